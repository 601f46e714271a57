"""Frames on the wire: what goes in comes out, and nothing that is no frame does harm."""

import random
import struct
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector import engine
from detector.engine import EngineSettings
from detector.frame import ControlFrame, RowFrame, label
from models.rows import COLUMNS, Rows, blank_rows, distinct
from streams.config.config import Config
from streams.wire import frames
from streams.wire.arrow_batch import layout
from streams.wire.frames import FrameError
from tests import frame_rows
from tests.pipeline import Calibrated

CLIENT = "k1-" + "a" * 26


def same(one: RowFrame, other: RowFrame) -> None:
    for name in ("partition", "offset", "model", "space", "source_name", "key_id"):
        assert getattr(one, name) == getattr(other, name)
    for name, column in one.rows._asdict().items():
        back = getattr(other.rows, name)
        assert back.dtype == column.dtype and back.shape == column.shape, name
        np.testing.assert_array_equal(back, column, err_msg=name)
        assert back.flags.c_contiguous and back.flags.aligned and back.flags.writeable, name


def content(n: int, d: int = 4, f: int = 4, seed: int = 1) -> Rows:
    rows = frame_rows.rows(n, d, f, seed)
    rows.source[:] = 77
    return rows


@settings(max_examples=150, deadline=None)
@given(
    ids=st.lists(st.text(max_size=12), max_size=40),
    d=st.integers(0, 70),
    f=st.integers(0, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_round_trip(ids: list[str], d: int, f: int, seed: int) -> None:
    rows = frame_rows.rows(len(ids), d, f, seed, ids)
    rows.source[:] = seed
    frame = frame_rows.frame(rows)
    back = frames.decode(frames.encode(frame), 3, 17)
    assert isinstance(back, RowFrame)
    same(frame, back)
    assert [back.rows.request_id(row) for row in range(len(ids))] == ids


@settings(max_examples=80, deadline=None)
@given(
    ids=st.lists(st.text("abcé", max_size=6), min_size=1, max_size=40),
    d=st.integers(0, 70),
    f=st.integers(0, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_arrow_reads_what_is_written_without_it_and_the_other_way_round(
    ids: list[str], d: int, f: int, seed: int
) -> None:
    frame = frame_rows.frame(frame_rows.rows(len(ids), d, f, seed, ids))
    value = frames.encode(frame)
    batch = pa.ipc.open_stream(value).read_next_batch()
    batch.validate(full=True)
    start = frames._message_bytes(value)
    mine = layout(d, f).read(value, start)
    assert (mine is None) == (not "".join(ids).isascii())
    slow = frames._by_arrow(value, start, frames._read[value[:start]])
    same(replace(frame, rows=slow), replace(frame, rows=mine or slow))
    assert value[start:].startswith(bytes(batch.serialize())), "not a byte is another than Arrow would write"


def test_rows_of_several_raw_partitions_say_whose_they_are() -> None:
    rows = content(6)
    rows.source[:] = [7, 7, 0xFFFFFFFF, 7, 0, 0]
    name = label({7: "a[3]", 0xFFFFFFFF: "a[10]", 0: "b.c-d_e[0]"})
    value = frames.encode(replace(frame_rows.frame(rows), source_name=name))
    assert pa.ipc.open_stream(value).schema.metadata[b"schema"] == b"probewatch.rows/2"
    back = frames.decode(value, 3, 17)
    assert isinstance(back, RowFrame)
    assert [back.source_of(row) for row in range(6)] == ["a[3]", "a[3]", "a[10]", "a[3]", "b.c-d_e[0]", "b.c-d_e[0]"]
    rows.source[2] = 8
    with pytest.raises(FrameError, match="source"):
        frames.decode(frames.encode(replace(frame_rows.frame(rows), source_name=name)), 3, 17)


def test_names_that_look_like_several_raw_partitions_are_one() -> None:
    for name in ("a,b[0]", "a[0]:0,b[1]:1", "x:00000001[0]", "logs/a[0]:00000001,b[1]:00000002.jsonl[0]"):
        rows = content(3)
        back = frames.decode(frames.encode(replace(frame_rows.frame(rows), source_name=name)), 3, 17)
        assert isinstance(back, RowFrame)
        assert back.source_of(1) == name


def test_a_slice_of_larger_columns_round_trips() -> None:
    whole = content(50)
    part = Rows(
        **{name: column[10:20] for name, column in whole._asdict().items() if not name.startswith("id_")},
        id_offsets=whole.id_offsets[10:21] - whole.id_offsets[10],
        id_bytes=whole.id_bytes[whole.id_offsets[10] : whole.id_offsets[20]],
    )
    frame = frame_rows.frame(part)
    back = frames.decode(frames.encode(frame), 3, 17)
    assert isinstance(back, RowFrame)
    same(frame, back)


def test_it_is_plain_arrow_with_nulls_for_no_opinion() -> None:
    rows = content(9)
    rows.score[:] = [0.5, np.nan, 1.0] * 3
    table = pa.ipc.open_stream(frames.encode(frame_rows.frame(rows))).read_all()
    assert table.schema.metadata[b"schema"] == b"probewatch.rows/1"
    assert table.schema.names == [
        "source", "offset", "index", "client", "class", "time_ms", "request_id", "exact", "values", "fields",
        "surprisal", "offgrid", "output", "score", "margin", "novelty", "guard", "cell", "tokens_in", "tokens_out",
        "flags", "client_tail", "append_ms", "odd",
    ]  # fmt: skip
    assert table["score"].to_pylist() == [0.5, None, 1.0] * 3
    assert table["request_id"].to_pylist() == [rows.request_id(row) for row in range(9)]
    assert table["values"].to_pylist() == rows.values.tolist()
    assert table["client_tail"].to_pylist() == [tail.tobytes() for tail in rows.client_tail]


def test_columns_added_at_the_end_are_ignored() -> None:
    frame = frame_rows.frame(content(5))
    table = pa.ipc.open_stream(frames.encode(frame)).read_all()
    longer = table.append_column("later", pa.array(range(5))).replace_schema_metadata(table.schema.metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, longer.schema) as writer:
        writer.write_table(longer)
    back = frames.decode(frames.checksummed(sink.getvalue().to_pybytes()), 3, 17)
    assert isinstance(back, RowFrame)
    same(frame, back)


def test_control_frames_round_trip() -> None:
    order = ControlFrame(3, 17, "allow", 0, CLIENT, "loan", 2**62, 'a red team, "permitted"')
    assert frames.decode(frames.encode_control(order), 3, 17) == order
    assert frames.encode_control(order).startswith(b'{"schema":"probewatch.control/1"')


def altered(rows: Rows, schema: pa.Schema | None = None, codec: str | None = None) -> bytes:
    table = pa.ipc.open_stream(frames.encode(frame_rows.frame(rows))).read_all()
    table = table.cast(schema) if schema is not None else table
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table)
    return frames.checksummed(sink.getvalue().to_pybytes())


def retyped(name: str, kind: pa.DataType) -> pa.Schema:
    schema = pa.ipc.open_stream(frames.encode(frame_rows.frame(content(5)))).schema
    return schema.set(schema.get_field_index(name), pa.field(name, kind))


def with_nulls(name: str) -> bytes:
    """A frame whose column has a null, which its schema permits."""
    table = pa.ipc.open_stream(frames.encode(frame_rows.frame(content(5)))).read_all()
    kind = table.schema.field(name).type
    column = pa.array([None, *table[name].to_pylist()[1:]], kind)
    if pa.types.is_fixed_size_list(kind):
        column = pa.array([[None, *cells[1:]] for cells in table[name].to_pylist()], kind)
    place = table.schema.get_field_index(name)
    changed = table.set_column(place, pa.field(name, kind), column).replace_schema_metadata(table.schema.metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, changed.schema) as writer:
        writer.write_table(changed)
    return frames.checksummed(sink.getvalue().to_pybytes())


def bad_class() -> Rows:
    rows = content(5)
    rows.client_class[3] = 3
    return rows


BAD_FRAMES = {
    "nothing": b"",
    "one byte": b"\xff",
    "text": b"hello",
    "an end": frames.checksummed(frames._END_OF_STREAM),
    "without a checksum": frames.encode(frame_rows.frame(content(6)))[: -frames.CHECKSUM_BYTES],
    "another schema": frames.checksummed(pa.schema([("a", pa.int8())]).serialize().to_pybytes()),
    "no batch": frames.checksummed(retyped("index", pa.int32()).serialize().to_pybytes()),
    "nulls": with_nulls("cell"),
    "nulls in a list": with_nulls("values"),
    "zstd": altered(content(5), codec="zstd"),
    "lz4": altered(content(5), codec="lz4"),
    "another type": altered(content(5), retyped("index", pa.int64())),
    "another metadata": altered(
        content(5), retyped("index", pa.int32()).with_metadata({"schema": "probewatch.rows/2"})
    ),
    "two sources": frames.encode(frame_rows.frame(frame_rows.rows(5, 4, 4, 1))),
    "no such class": frames.encode(frame_rows.frame(bad_class())),
    "control, malformed": b'{"schema":"probewatch.control/1"',
    "control, another schema": b'{"schema":"x","action":"allow","client":"%b","model":"","until_ms":0,"reason":""}'
    % CLIENT.encode(),
    "control, no pseudonym": frames.encode_control(ControlFrame(0, 0, "allow", 0, "bob", "", 0, "")),
    "control, deep": b'{"x":' + b"[" * 100_000,
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_bad_frames_are_refused(name: str) -> None:
    with pytest.raises(FrameError):
        frames.decode(BAD_FRAMES[name], 0, 0)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(value: bytes) -> None:
    for start in (b"", struct.pack("<Ii", 0xFFFFFFFF, len(value) + 8)):
        with pytest.raises(FrameError):
            frames.decode(start + value, 0, 0)
        with pytest.raises(FrameError):
            frames.decode(frames.checksummed(start + value), 0, 0)


def test_the_table_of_columns_is_that_of_rows() -> None:
    rows = content(4, 3, 2)
    assert {column.attribute for column in COLUMNS} | {"id_offsets"} == set(Rows._fields)
    assert {column.attribute: np.dtype(column.dtype) for column in COLUMNS} == {
        name: column.dtype for name, column in rows._asdict().items() if name != "id_offsets"
    }
    nothing = blank_rows(4, 3, 2, cell=np.arange(4, dtype=np.uint32))
    shapes = {name: column.shape for name, column in nothing._asdict().items() if name != "id_bytes"}
    assert shapes == {name: column.shape for name, column in rows._asdict().items() if name != "id_bytes"}
    assert nothing.cell.tolist() == [0, 1, 2, 3] and np.isnan(nothing.guard).all() and not nothing.values.any()


def test_a_damaged_frame_is_not_another_frame() -> None:
    rng = random.Random(5)
    original = frames.encode(frame_rows.frame(content(6)))
    for _ in range(2_000):
        value = bytearray(original)
        value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
        with pytest.raises(FrameError):
            frames.decode(bytes(value), 0, 0)


@pytest.mark.parametrize("seed", range(12))
def test_damaged_frames_never_crash_or_grow(seed: int) -> None:
    """Bits flipped, numbers overwritten with extremes, pieces cut out: an error, or a frame within bounds.

    With the checksum of the damaged bytes, as an attacker would compute it.
    """
    rng = random.Random(seed)
    original = frames.encode(frame_rows.frame(content(6, 3, 3, seed)))[: -frames.CHECKSUM_BYTES]
    head = len(original) // 2
    refused = 0
    for _ in range(3_000):
        value = bytearray(original)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(head if rng.random() < 0.8 else len(value) - 8)
            match rng.randrange(4):
                case 0:
                    value[place] ^= 1 << rng.randrange(8)
                case 1:
                    value[place : place + 4] = struct.pack("<i", rng.choice([-1, 0, 1, 2**31 - 1, -(2**31), 1 << 20]))
                case 2:
                    value[place : place + 8] = struct.pack("<q", rng.choice([-1, 2**62, 1 << 40, 7]))
                case _:
                    del value[place : place + 8]
        try:
            frame = frames.decode(frames.checksummed(bytes(value)), 0, 0)
        except FrameError:
            refused += 1
            continue
        assert isinstance(frame, RowFrame)
        assert sum(column.nbytes for column in frame.rows) < 4 * len(original)
        for row in range(frame.rows.count):
            frame.rows.request_id(row)
    assert 0 < refused < 3_000


def test_rows_of_another_width_are_counted_and_not_judged(fitted: Calibrated) -> None:
    """The frame is well formed and names a known space; only the engine knows what its rows must look like."""
    settings_ = EngineSettings(Config(), fitted.artefacts)
    [(name, space)] = settings_.spaces.items()
    d, f = space.artefact.encoder.dim, len(space.artefact.encoder.field_names)
    state = engine.open_partition(settings_, 0)
    for offset, (width, fields) in enumerate([(d - 1, f), (d + 1, f), (d, f - 1), (d, f + 1), (0, 0)]):
        forged = RowFrame(0, offset, "loan", name, "gateway-logs[3]", "k1", content(5, width, fields))
        assert engine.step(state, frames.decode(frames.encode(forged), 0, offset)) == []
    assert (state.unjudged, state.clients) == (25, 0)


@given(st.lists(st.integers(0, 50), max_size=40))
def test_distinct_is_what_unique_finds(numbers: list[int]) -> None:
    values = np.array(numbers, np.uint64)
    assert distinct(values).tolist() == sorted(set(numbers))
