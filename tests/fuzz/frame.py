"""Fuzz target: any bytes as a message of `requests`, through the decoder and both folds.

A first byte of 1 takes the rest as the cells of a well-formed frame, which mutations of Arrow's own bytes seldom reach;
2 as a frame without its checksum, which is added.
"""

from dataclasses import replace

import numpy as np

from detector import engine, link
from detector.frame import ControlFrame, Frame, RowFrame, ShiftFrame
from models.rows import CLIENT_TAIL_BYTES, Rows
from streams.wire import frames
from streams.wire.frames import FrameError
from tests.fuzz import world

ROWS_MAX = 24
GROWN_MAX = 4_000_000
"""Bytes of a partition's state after one frame more: its arrays begin at about one."""


def check(value: bytes) -> None:
    try:
        frame = forged(value[1:]) if value[:1] == b"\x01" else frames.decode(unsealed(value), 0, 1)
    except FrameError as error:
        assert str(error).isprintable() and len(str(error)) < 200
        return
    written = frames.encode(frame) if isinstance(frame, RowFrame) else frames.encode_control(frame)
    back = frames.decode(written, 0, 1)
    assert same(frame, back), "a frame that says something else when it is read again"
    if isinstance(back, RowFrame):
        assert sum(column.nbytes for column in back.rows) < 8 * max(len(written), len(value)) + 100_000
        for row in range(back.rows.count):
            back.rows.request_id(row)
    judged(named(back))


def unsealed(value: bytes) -> bytes:
    return frames.checksummed(value[1:]) if value[:1] == b"\x02" else value


def forged(cells: bytes) -> RowFrame:
    """Columns filled with these bytes, again and again. Raises FrameError if they are no frame."""
    encoder = world.probing().rows
    n = (cells[0] if cells else 0) % ROWS_MAX
    letters = np.frombuffer((cells[1:] or b"\0") * (1 + 12_000 // max(1, len(cells) - 1)), np.uint8)
    at = 0

    def column(like: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        nonlocal at
        shape = (n, *like.shape[1:])
        size = like.dtype.itemsize * int(np.prod(shape))
        taken = np.resize(np.roll(letters, -at), size)
        at += size
        return taken.view(like.dtype).reshape(shape).copy()

    filled = {name: column(like) for name, like in encoder._asdict().items() if not name.startswith("id_")}
    filled["source"][:] = 7
    filled["client_class"] %= 3
    filled["time_ms"] %= 1 << 47  # before the year 6500
    rows = Rows(**filled, id_offsets=np.arange(n + 1, dtype=np.int32), id_bytes=np.full(n, 97, np.uint8))
    assert rows.client_tail.shape == (n, CLIENT_TAIL_BYTES)
    frame = replace(world.probing(), partition=0, offset=1, rows=rows)
    decoded = frames.decode(frames.encode(frame), 0, 1)
    assert isinstance(decoded, RowFrame)
    return decoded


def same(one: Frame, other: Frame) -> bool:
    if isinstance(one, RowFrame) and isinstance(other, RowFrame):
        alike = (one.model, one.space, one.source_name, one.key_id) == (
            other.model, other.space, other.source_name, other.key_id
        )  # fmt: skip
        pairs = zip(one.rows, other.rows, strict=True)
        return alike and all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)
    return one == other


def named(frame: Frame) -> Frame:
    """About the model that there is, whatever name the forger found."""
    model, space = world.probing().model, world.probing().space
    if isinstance(frame, RowFrame | ShiftFrame):
        return replace(frame, model=model, space=space)
    if isinstance(frame, ControlFrame) and frame.client % 2:
        key = int(world.probing().rows.client[0])
        return replace(frame, client=key)
    return frame


def judged(frame: Frame) -> None:
    """Both folds take it between two frames that they know, and go on as before it."""
    before, after = (replace(world.probing(), partition=0, offset=offset) for offset in (0, 2))
    state = engine.open_partition(world.settings(), 0)
    models = link.LinkState.of(world.CONFIG, world.artefacts())
    moved = after.rows._replace(offset=after.rows.offset + 1_000, time_ms=after.rows.time_ms + 60_000)
    for one in (before, frame, replace(after, rows=moved)):
        for event in engine.step(state, one):
            assert event.value.isascii() or event.value.decode().isprintable()
        models.step([one])
        models.close_due()
    assert sum(table.nbytes for table in state.tables.values()) < GROWN_MAX
    kept = link.LinkState.of(world.CONFIG, world.artefacts())
    kept.load(models.dump())
    assert kept.dump() == models.dump()
    restored = engine.open_partition(world.settings(), 0)
    for block in range(world.CONFIG.state.blocks):
        value = engine.dump_block(state, block)
        engine.load_block(restored, value)
        assert engine.dump_block(restored, block) == value
