"""Fuzz target: any bytes as a block of the state topic, then a step from what was loaded.

A first byte of 1 takes the rest as the body beneath the checksum, packed and sealed again; 2 as the state of `link`.
"""

from dataclasses import replace

from detector import drift, engine
from detector.packed import pack
from tests.fuzz import world

LINK_HEAD = drift.STATE_MAGIC + b"%d" % drift.STATE_LAYOUT
GROWN_MAX = 64_000_000


def check(value: bytes) -> None:
    if value[:1] == b"\x02":
        check_link(value[1:])
        return
    state = engine.open_partition(world.settings(), 0)
    try:
        engine.load_block(state, engine.seal(value[1:], 0, 0, 1) if value[:1] == b"\x01" else value)
    except engine.BlockError as error:
        assert str(error).isprintable() and len(str(error)) < 300
        assert state.clients == 0 and not state.allowed, "a refused block leaves something behind"
        return
    frame = replace(world.probing(), partition=0, offset=1 << 40)
    moved = frame.rows._replace(offset=frame.rows.offset + (1 << 40), time_ms=frame.rows.time_ms + 60_000)
    for event in engine.step(state, replace(frame, rows=moved)):
        assert event.value.isascii() or event.value.decode().isprintable()
    assert sum(table.nbytes for table in state.tables.values()) < GROWN_MAX
    restored = engine.open_partition(world.settings(), 0)
    for block in range(world.CONFIG.state.blocks):
        dumped = engine.dump_block(state, block)
        engine.load_block(restored, dumped)
        assert engine.dump_block(restored, block) == dumped


def check_link(body: bytes) -> None:
    """Only what reading it gives: what figures a worker has written its successor believes."""
    settings = drift.Settings.of(world.CONFIG, world.artefacts())
    try:
        state = drift.load(settings, LINK_HEAD + pack(body, level=1))
    except drift.StateError as error:
        assert str(error).isprintable() and len(str(error)) < 300
        return
    written = drift.dump(state)
    assert drift.dump(drift.load(settings, written)) == written
