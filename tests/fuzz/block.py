"""Fuzz target: any bytes as a block of the state topic, then a step from what was loaded.

A first byte of 1 takes the rest as the body beneath the checksum, packed and sealed again; 2 as the state of `link`;
3 as places and bytes to put there in the columns of a sound block, which mutations of a body seldom leave whole.
"""

from dataclasses import replace
from functools import cache
from typing import Any

import msgspec

from detector import engine, link
from detector.link_fold import StateError
from detector.state.packing import BODY_BYTES_MIN, pack, unpack
from tests.fuzz import world

LINK_HEAD = link.STATE_MAGIC + b"%d" % link.STATE_LAYOUT
GROWN_MAX = 64_000_000


def check(value: bytes) -> None:
    if value[:1] == b"\x02":
        check_link(value[1:])
        return
    state = engine.open_partition(world.settings(), 0)
    if value[:1] in (b"\x01", b"\x03"):
        value = engine.seal(value[1:] if value[:1] == b"\x01" else woven(value[1:]), 0, 0, 1)
    try:
        engine.load_block(state, value)
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


@cache
def sound() -> Any:
    """The body of the block of one probing client."""
    state = engine.open_partition(world.settings(), 0)
    engine.step(state, world.probing())
    body = engine.dump_block(state, 0)[engine.BLOCK_HEAD_BYTES :]
    return msgspec.msgpack.decode(unpack(body, BODY_BYTES_MIN))


def woven(places: bytes) -> bytes:
    """Of each four bytes the first two name a place, the others go there."""
    spaces = {}
    for space, columns in sound()["spaces"].items():
        whole = bytearray(b"".join(column for column in columns.values() if isinstance(column, bytes)))
        for at in range(0, len(places) - 3, 4):
            start = int.from_bytes(places[at : at + 2], "little") % (len(whole) - 1)
            whole[start : start + 2] = places[at + 2 : at + 4]
        spaces[space] = dict(columns)
        start = 0
        for name, column in columns.items():
            if isinstance(column, bytes):
                spaces[space][name] = bytes(whole[start : start + len(column)])
                start += len(column)
    return msgspec.msgpack.encode(sound() | {"spaces": spaces})


def check_link(body: bytes) -> None:
    """Only what reading it gives: what figures a worker has written its successor believes."""
    state, again = (link.LinkState.of(world.CONFIG, world.artefacts()) for _ in range(2))
    try:
        state.load(LINK_HEAD + pack(body, level=1))
    except StateError as error:
        assert str(error).isprintable() and len(str(error)) < 300
        return
    written = state.dump()
    again.load(written)
    assert again.dump() == written
