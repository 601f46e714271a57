"""Sketch: what a row says, where it goes, and that batches do not matter."""

import json
import random
from collections import defaultdict
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.frame import RowFrame
from models.artefacts.training_set import Members, add, empty_bits
from models.encoders.table import TabularEncoder
from models.pseudonym import pseudonym
from models.rows import (
    FLAG_EXPLAIN,
    FLAG_LABEL,
    FLAG_MEMBER,
    FLAG_REFUSED,
    FLAG_UNJUDGED,
    FLAG_UNKNOWN_MODEL,
    FLAG_UNREADABLE,
    Rows,
)
from streams.config.config import Config
from streams.sketch import columns
from streams.sketch import sketcher as sketch_module
from streams.sketch.identity import Identity, source_id
from streams.sketch.sketcher import CHUNK_RECORDS, RawRange, SketchResult, chunks
from streams.wire import frames
from tests import frame_rows, sketching

IDENTITY = Identity(sketching.SEED, "k1", sketching.SEED)


def sketch(bodies: list[dict[str, Any]], config: Config | None = None, n_partitions: int = 1) -> SketchResult:
    raws = [sketching.raw(100 + place, json.dumps(body).encode()) for place, body in enumerate(bodies)]
    return sketching.build_sketcher(config).frames("gateway-logs", 3, "0", raws, n_partitions)


def one(config: Config | None = None, model: str = "loan", **changes: Any) -> Rows:
    body = sketching.record(random.Random(1), 1, model) | changes
    result = sketch([body], config)
    assert not result.rejects and not result.unjudged
    [frame] = result.frames
    return frame.rows


def test_a_row_keeps_who_when_and_where() -> None:
    frame = sketch([sketching.record(random.Random(n), n) for n in range(3)]).frames[0]
    assert (frame.partition, frame.offset, frame.model, frame.key_id) == (0, -1, "loan", "k1")
    assert frame.space == sketching.build_models().models["loan"].space and frame.source_name == "gateway-logs[3]"
    assert frame.rows.source.tolist() == [source_id("gateway-logs", 3, "0")] * 3
    assert frame.rows.offset.tolist() == [100, 101, 102] and frame.rows.index.tolist() == [0, 0, 0]
    assert [frame.rows.request_id(row) for row in range(3)] == ["r-0", "r-1", "r-2"]
    rows = one(client_id="client-7", request_id="Müller-☃")
    assert (int(rows.client[0]), rows.client_tail[0].tobytes()) == IDENTITY.client("client-7")
    assert rows.request_id(0) == "Müller-☃"


def test_raw_partitions_share_their_frames() -> None:
    """As many frames as for one of them; every row says whose it is, and what is wrong with others is told of each."""
    sketcher = sketching.build_sketcher()
    bodies = [sketching.record(random.Random(n), n) | {"client_id": f"c-{n % 5}"} for n in range(60)]
    raws = [sketching.raw(number // 2, json.dumps(body).encode()) for number, body in enumerate(bodies)]
    raws[7] = sketching.raw(3, b"{")
    parts = {3: raws[0::2], 11: raws[1::2]}
    alone = {n: sketcher.frames("logs", n, "0", part, 4) for n, part in parts.items()}
    stretches = [RawRange("logs", n, source_id("logs", n, "0"), part) for n, part in parts.items()]
    first, second = stretches
    pieces = [
        sketcher.piece([first._replace(records=first.records[:9])]),
        sketcher.piece([first._replace(records=first.records[9:]), second]),
    ]
    shared = sketcher.join(stretches, pieces, 4)
    assert shared.rejects == [reject for result in alone.values() for reject in result.rejects] != []
    assert [frame.partition for frame in shared.frames] == sorted(
        {frame.partition for result in alone.values() for frame in result.frames}
    )
    told = sorted(
        (frame.source_of(row), int(frame.rows.offset[row]), frame.rows.request_id(row), frame.partition)
        for frame in shared.frames
        for row in range(frame.rows.count)
    )
    assert told == sorted(
        (f"logs[{n}]", int(frame.rows.offset[row]), frame.rows.request_id(row), frame.partition)
        for n, result in alone.items()
        for frame in result.frames
        for row in range(frame.rows.count)
    )
    assert {name for name, *_ in told} == {"logs[3]", "logs[11]"} and len(told) == 59


@pytest.mark.parametrize("lengths", [[0], [3], [2_048], [2_049, 0, 1], [7, 4_096, 2_000], [5_000, 5_000, 1]])
def test_portions_hold_all_records_in_order(lengths: list[int]) -> None:
    record = sketching.raw(1, b"{}")
    stretches = [
        RawRange("logs", n, n, [record._replace(offset=at) for at in range(length)]) for n, length in enumerate(lengths)
    ]
    portions = list(chunks(stretches))
    sizes = [sum(len(part.records) for part in portion) for portion in portions]
    assert sizes[:-1] == [CHUNK_RECORDS] * (len(sizes) - 1) and all(0 < size <= CHUNK_RECORDS for size in sizes)
    told = [(part.partition, record.offset) for portion in portions for part in portion for record in part.records]
    assert told == [(n, at) for n, length in enumerate(lengths) for at in range(length)]


@pytest.mark.parametrize(
    ("ts", "expected"),
    [
        ("2025-03-01T10:00:00.123Z", 1740823200123),
        ("2025-03-01T10:00:00.1234Z", 1740823200123),
        ("2025-03-01T10:00:00.123999999Z", 1740823200124),
        ("2025-03-01t12:00:00+02:00", 1740823200000),
        (1740823200, 1740823200000),
        (1740823200.123, 1740823200123),
        ("2099-12-31T23:59:59.999Z", 4102444799999),
    ],
)
def test_times(ts: object, expected: int) -> None:
    assert one(ts=ts).time_ms.tolist() == [expected]


@pytest.mark.parametrize(
    ("output", "threshold", "label", "score", "margin"),
    [
        (None, None, None, None, None),
        ({}, None, None, None, None),
        ({"label": "a"}, None, "a", None, None),
        ({"label": 1, "score": 0.75}, None, "1", 0.75, 0.25),
        ({"label": "a", "score": 0.25}, 0.5, "a", 0.25, 0.25),
        ({"score": -3}, 1.0, None, -3.0, 4.0),
        ({"scores": {"a": 0.25, "b": 0.5, "c": 0.125}}, 0.9, "b", 0.5, 0.25),
        ({"label": "c", "score": 0.125, "scores": {"a": 0.25, "b": 0.5}}, None, "c", 0.125, 0.25),
        ({"scores": {"a": 0.75}}, 0.25, "a", 0.75, 0.5),
        ({"scores": {"a": 0.5, "b": 0.5}}, None, "b", 0.5, 0.0),
        ({"label": "a", "scores": {}}, None, "a", None, None),
    ],
)
def test_answers(
    output: Any, threshold: float | None, label: str | None, score: float | None, margin: float | None
) -> None:
    config = Config(models={"loan": {"decision_threshold": threshold}})
    rows = one(config, output=output)
    assert rows.output.tolist() == [0 if label is None else IDENTITY.label(label)]
    assert rows.flags.tolist() == [0 if label is None else FLAG_LABEL]
    np.testing.assert_array_equal(rows.score, np.array([score], np.float32))
    np.testing.assert_array_equal(rows.margin, np.array([margin], np.float32))


def test_threshold_of_the_artefact_holds_unless_configured() -> None:
    output = {"score": 0.95}
    assert one(model="faces", output=output).margin[0] == pytest.approx(0.25)
    config = Config(models={"faces": {"decision_threshold": 0.0}})
    assert one(config, model="faces", output=output).margin[0] == pytest.approx(0.95)


@pytest.mark.parametrize(
    "change",
    [
        {"tokens_in": -1}, {"tokens_out": 1.5}, {"tokens_in": 2**40}, {"output": {"label": True, "score": 0.5}},
        {"output": {"score": float("nan")}}, {"output": {"score": 1e300}}, {"output": [1]}, {"client_class": "king"},
        {"operation": 5}, {"prompt": "\udfff"}, {"request_id": "x" * 513}, {"request_id": [1]}, {"trace": [[1]] * 600},
        {"trace": json.loads("[" * 600 + "]" * 600)}, {"latency": float("inf")},
    ],
    ids=range(15),
)  # fmt: skip
def test_what_cannot_be_read_but_is_not_needed_is_absent(change: dict[str, Any]) -> None:
    plain, rows = one(), one(**change)
    shallow = "trace" in change and change["trace"][0] == [1]  # read, or rather skipped
    assert rows.flags[0] & ~np.uint16(FLAG_LABEL) == (0 if shallow else FLAG_UNREADABLE)
    for name in ("client", "time_ms", "exact", "values", "fields"):
        np.testing.assert_array_equal(getattr(rows, name), getattr(plain, name))


@pytest.mark.parametrize(
    "change",
    [
        {"ts": "1740823200.5"}, {"ts": 1740823200500}, {"ts": 1740823200500000}, {"ts": 1740823200500000000},
        {"ts": "1740823200500"}, {"model": "LOAN"}, {"model": "credit"}, {"model": "Credit"},
    ],
)  # fmt: skip
def test_other_spellings_of_a_time_and_of_a_model_are_read(change: dict[str, Any]) -> None:
    config = Config(models={"loan": {"aliases": ["credit"]}})
    body = sketching.record(random.Random(1), 1) | {"ts": 1740823200.5} | change
    result = sketch([body], config)
    [frame] = result.frames
    rows = frame.rows
    assert not result.unjudged and not result.unread and frame.model == "loan"
    assert rows.time_ms.tolist() == [1740823200500] and not rows.flags[0] & ~np.uint16(FLAG_LABEL)


def test_a_missing_request_id_is_the_place_of_the_record() -> None:
    for changes in ({"request_id": ""}, {"request_id": None}):
        rows = one(**changes)
        assert rows.request_id(0) == "gateway-logs[3]@100/0" and not rows.flags[0] & FLAG_UNREADABLE
    assert one(request_id=77).request_id(0) == "77"
    rows = one(client_id=12)
    assert (int(rows.client[0]), rows.client_tail[0].tobytes()) == IDENTITY.client("12")


def test_flags_and_tokens() -> None:
    rows = one(output={"label": "x", "refused": True}, operation="explain", tokens_in=7, tokens_out=2**32 - 1)
    assert rows.flags.tolist() == [FLAG_LABEL | FLAG_REFUSED | FLAG_EXPLAIN]
    assert (rows.tokens_in.tolist(), rows.tokens_out.tolist()) == ([7], [2**32 - 1])
    assert one(output={"refused": False}, operation="classify").flags.tolist() == [0]


def test_class_is_declared_registered_or_consumer() -> None:
    names = {n: pseudonym("k1", *IDENTITY.client(f"client-{n}")) for n in range(4)}
    config = Config(input={"registry": {names[1]: "broker", names[2]: "system"}})
    found = {n: int(one(config, client_id=f"client-{n}").client_class[0]) for n in range(4)}
    assert found == {0: 0, 1: 1, 2: 2, 3: 0}
    assert one(config, client_id="client-1", client_class="consumer").client_class.tolist() == [0]
    assert one(client_id="client-1", client_class="system").client_class.tolist() == [2]


def test_what_no_encoder_reads_counts_against_its_client_and_is_not_rejected() -> None:
    rng = random.Random(1)
    bodies = [
        sketching.record(rng, 0),
        sketching.record(rng, 1) | {"model": "unheard of"},
        sketching.record(rng, 2) | {"features": None},
        sketching.record(rng, 3) | {"model": "faces"},
        sketching.record(rng, 4, "faces"),
        sketching.record(rng, 5) | {"features": {"Income": 3_000, "Term": 12}},
    ]
    result = sketch(bodies)
    assert result.unjudged == {"unknown_model": 1, "no_input": 2, "few_fields": 1} and not result.rejects
    assert [frame.model for frame in result.frames] == ["faces", "loan"]
    told = {
        frame.rows.request_id(row): (frame.model, int(frame.rows.flags[row]) & ~FLAG_LABEL)
        for frame in result.frames
        for row in range(frame.rows.count)
    }
    assert told == {
        "r-0": ("loan", 0),
        "r-1": ("faces", FLAG_UNKNOWN_MODEL | FLAG_UNJUDGED),
        "r-2": ("loan", FLAG_UNJUDGED),
        "r-3": ("faces", FLAG_UNJUDGED),
        "r-4": ("faces", 0),
        "r-5": ("loan", FLAG_UNJUDGED),
    }
    for frame in result.frames:
        idle = frame.rows.flags & FLAG_UNJUDGED > 0
        for name in ("values", "fields", "surprisal", "offgrid", "output", "cell"):
            assert not getattr(frame.rows, name)[idle].any(), name
        assert np.isnan([frame.rows.score[idle], frame.rows.margin[idle], frame.rows.novelty[idle]]).all()
        assert frame.rows.exact.all() and len(set(frame.rows.exact.tolist())) == frame.rows.count


def test_inputs_are_encoded_as_the_encoder_does() -> None:
    models = sketching.build_models().models
    for name, field in (("loan", "features"), ("faces", "embedding")):
        bodies = [sketching.record(random.Random(n), n, name) for n in range(5)]
        [frame] = sketch(bodies).frames
        encoded = models[name].encoder.encode([body[field] for body in bodies])
        for column in ("values", "fields", "surprisal", "offgrid", "exact"):
            np.testing.assert_array_equal(getattr(frame.rows, column), getattr(encoded, column))
        assert frame.rows.values.any()


def test_rows_are_placed_in_their_population_where_there_is_one() -> None:
    bodies = [sketching.record(random.Random(n), n) for n in range(50)]
    [frame] = sketch(bodies).frames
    population = sketching.build_models().models["loan"].population
    assert population is not None
    novelty, cell = population.describe(frame.rows.values)
    np.testing.assert_array_equal(frame.rows.novelty, novelty)
    assert frame.rows.cell.tolist() == cell.tolist() and len(set(cell.tolist())) > 10 and cell.min() >= 1
    assert 0.5 < float(np.median(novelty)) < 2.0
    faces = one(model="faces")
    assert np.isnan(faces.novelty).all() and faces.cell.tolist() == [0]


def test_rows_go_where_their_client_lives() -> None:
    bodies = [sketching.record(random.Random(n), n) for n in range(300)]
    result = sketch(bodies, n_partitions=7)
    assert [frame.partition for frame in result.frames] == list(range(7))
    homes = {body["request_id"]: (IDENTITY.client(body["client_id"])[0] >> 32) % 7 for body in bodies}
    for frame in result.frames:
        ids = sketching.request_ids([frame])
        assert ids == [name for name, home in homes.items() if home == frame.partition]


def test_frames_are_cut_at_rows_and_bytes() -> None:
    for rows in (frame_rows.rows(9_000, 4, 4, 1), frame_rows.rows(5_000, 200, 100, 2, ["x" * 300] * 5_000)):
        rows.source[:] = 7
        parts = [part for _, part in columns.cut(rows, 1)]
        assert len(parts) > 2
        order = np.lexsort((rows.index, rows.offset))
        assert np.concatenate([part.exact for part in parts]).tolist() == rows.exact[order].tolist()
        for part in parts:
            assert part.count <= columns.FRAME_ROWS
            assert len(frames.encode(frame_rows.frame(part))) <= columns.FRAME_BYTES + 8_192
    [(_, huge)] = columns.cut(frame_rows.rows(1, 1, 1, 3, ["x" * 2_000_000]), 1)
    assert huge.count == 1


def mixed_records(seed: int, count: int) -> list[bytes]:
    """Objects, arrays and NDJSON of both models, good, bad and unknown."""
    rng = random.Random(seed)
    values, number = [], 0
    for _ in range(count):
        texts = []
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            number += 1
            body = sketching.record(rng, number, rng.choice(["loan", "faces"]))
            match rng.randrange(8):
                case 0:
                    body["ts"] = 0
                case 1:
                    body["model"] = "unheard of"
                case 2:
                    body["output"] = rng.choice([None, {"scores": {"a": 0.1, "b": 0.7}}, {"score": 1e300}])
                case 3:
                    body["embedding"] = rng.choice([[1.0], "AAAA", "[1]", None, {"data": [0.5] * 64}])
                case _:
                    pass
            texts.append(json.dumps(body).encode())
        values.append(rng.choice([b"\n".join(texts), b"[" + b",".join(texts) + b"]"]))
    return values


Gathered = tuple[dict[tuple[str, int], list[tuple[object, ...]]], list[str], dict[str, int]]


def gather(results: list[SketchResult]) -> Gathered:
    """Rows as tuples by model and partition, in order; rejects; counts."""
    rows: dict[tuple[str, int], list[tuple[object, ...]]] = defaultdict(list)
    unjudged: dict[str, int] = defaultdict(int)
    for result in results:
        for frame in result.frames:
            wire = frames.decode(frames.encode(frame), frame.partition, 0)
            assert isinstance(wire, RowFrame)
            parts = [column for name, column in wire.rows._asdict().items() if not name.startswith("id_")]
            for row in range(wire.rows.count):
                cells = tuple(column[row].tobytes() for column in parts)
                rows[frame.model, frame.partition].append((wire.rows.request_id(row), *cells))
        for reason, count in result.unjudged.items():
            unjudged[reason] += count
    return dict(rows), [reject.message for result in results for reject in result.rejects], dict(unjudged)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 5), cuts=st.lists(st.integers(0, 60), max_size=8), chunk=st.integers(1, 20))
def test_cutting_does_not_matter(seed: int, cuts: list[int], chunk: int) -> None:
    raws = [sketching.raw(offset, value) for offset, value in enumerate(mixed_records(seed, 60))]
    layout, bits = {"fields": {"term": "number"}}, empty_bits(30)
    keys_of = TabularEncoder.row_keys(layout, sketching.SEED)
    add(bits, keys_of([{"term": float(term)} for term in range(30)]).keys)
    sketcher = sketching.build_sketcher(None, Members("", "tabular", layout, 30, bits, sketching.SEED))
    whole = gather([sketcher.frames("t", 0, "0", raws, 3)])
    assert len(whole[0]) == 6 and whole[1] and whole[2]["unknown_model"]
    place = 1 + [name for name in Rows._fields if not name.startswith("id_")].index("flags")
    flags = {int.from_bytes(row[place], "little") for rows in whole[0].values() for row in rows}  # type: ignore[arg-type]
    assert {flag & FLAG_MEMBER for flag in flags} == {0, FLAG_MEMBER}
    with patch.object(sketch_module, "CHUNK_RECORDS", chunk):
        pieces = [sketcher.frames("t", 0, "0", raws[a:b], 3) for a, b in pairwise([0, *sorted(cuts), len(raws)])]
    assert gather(pieces) == whole


def test_nothing_in_nothing_out() -> None:
    result = sketch([])
    assert (result.frames, result.rejects, dict(result.unjudged)) == ([], [], {})
