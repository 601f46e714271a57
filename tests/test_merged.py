"""Record files are read in order of time, each a raw partition of its own."""

import json
from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rows import blank_rows
from streams import replay
from streams.adapters import native
from streams.config.config import Config
from streams.history.base import FrameBatch, RawBatch, Source, together
from streams.history.merged import in_order, stamps
from streams.history.sources import open_sources
from streams.sketch.columns import cut
from tests.scenarios import run, world

CONFIG = Config()
NOON_S = 1_750_075_200.0
PODS = 4


def lines() -> list[bytes]:
    """Attackers among people in order of time, no two at the same millisecond."""
    records = world.benign(60, seed=21) + run.records("sweep", "attack") + run.records("boundary", "attack")
    records.sort(key=lambda record: float(record["ts"]))
    return [
        world.as_bytes(record | {"request_id": f"r-{place}", "ts": round(record["ts"] + place / 1000, 3)})
        for place, record in enumerate(records)
    ]


def write(path: Path, texts: Sequence[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(text + b"\n" for text in texts))
    return path


def dealt(folder: Path, texts: Sequence[bytes]) -> Path:
    """As pods behind a load balancer would log them, some busier than others."""
    pods = np.random.default_rng(4).choice(PODS, len(texts), p=[0.6, 0.2, 0.15, 0.05]).tolist()
    for pod in range(PODS):
        write(folder / f"pod-{pod}.jsonl", [text for text, own in zip(texts, pods, strict=True) if own == pod])
    return folder


def outcome(sources: Sequence[Source]) -> replay.Outcome:
    return replay.replay(replay.Plan(sources, CONFIG, run.artefacts(), run.SECRETS, plain_clients=True))


def told(found: replay.Outcome) -> list[dict[str, object]]:
    return sorted(run.told(found.events), key=str)


def test_a_folder_of_pods_is_the_log_that_one_gateway_would_have_written(tmp_path: Path) -> None:
    texts = lines()
    whole = outcome(open_sources([str(write(tmp_path / "log.jsonl", texts))], CONFIG))
    assert len(told(whole)) > 3
    folder = dealt(tmp_path / "pods", texts)
    pods = outcome(open_sources([str(folder)], CONFIG))
    assert told(pods) == told(whole)
    assert pods.summary["clients_in_several_raw_partitions"] > 20
    again = outcome(open_sources([str(path) for path in sorted(folder.iterdir())], CONFIG))
    assert [event.value for event in again.events] == [event.value for event in pods.events]
    one_after_the_other = outcome([source for path in sorted(folder.iterdir()) for source in opened(path)])
    assert told(one_after_the_other) != told(whole), "without the merge they differ, or this test shows nothing"


def opened(path: Path) -> list[Source]:
    return open_sources([str(path)], CONFIG)


def test_one_log_cut_into_files_is_read_as_if_they_were_read_one_by_one(tmp_path: Path) -> None:
    texts = lines()
    for number, part in enumerate(np.array_split(np.arange(len(texts)), 5)):
        write(tmp_path / "days" / f"{number}.jsonl", [texts[place] for place in part])
    merged = outcome(open_sources([str(tmp_path / "days")], CONFIG))
    alone = outcome([source for path in sorted((tmp_path / "days").iterdir()) for source in opened(path)])
    assert [event.value for event in merged.events if event.kind != "drift"] == [
        event.value for event in alone.events if event.kind != "drift"
    ]
    assert merged.summary["alerts"] > 0


def groups(folder: Path) -> Iterator[list[RawBatch]]:
    for group in together(batches(folder)):
        assert not isinstance(group, FrameBatch)
        yield group


def batches(folder: Path) -> list[RawBatch]:
    (source,) = open_sources([str(folder)], CONFIG)
    steps: list[int] = []
    found = list(source.batches(steps.append))
    assert sum(steps) == source.size
    return [batch for batch in found if isinstance(batch, RawBatch)]


def record(ts: float, **more: object) -> bytes:
    return json.dumps({"ts": ts, "request_id": "r", "client_id": "c", "model": "m", **more}).encode()


def seconds(batch: RawBatch) -> list[float]:
    return [json.loads(one.value or b"")["ts"] - NOON_S for one in batch.records]


def test_positions_are_those_of_the_files(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [record(NOON_S + 2 * n) for n in range(3_000)])
    write(tmp_path / "b.jsonl", [b"", *(record(NOON_S + 2 * n + 1) for n in range(3_000))])
    found = batches(tmp_path)
    for name, begin in (("a.jsonl", 0), ("b.jsonl", 1)):
        records = [one for batch in found if batch.topic == name for one in batch.records]
        assert [one.offset for one in records] == list(range(begin, begin + 3_000))
    assert [batch.more for batch in found[:2]] == [True, False]


def test_files_are_never_further_apart_than_a_buffer(tmp_path: Path) -> None:
    write(tmp_path / "busy.jsonl", [record(NOON_S + n / 10) for n in range(20_000)])
    write(tmp_path / "quiet.jsonl", [record(NOON_S + 10 * n) for n in range(200)])
    latest = -np.inf
    for group in groups(tmp_path):
        read = [at for batch in group for at in seconds(batch)]
        assert min(read) > latest - 0.001, "nothing that is read later is earlier"
        latest = max(latest, *read)


@pytest.mark.parametrize("wrong_s", [86_400 * 365, -86_400 * 365])
def test_a_wrong_clock_moves_no_file(tmp_path: Path, wrong_s: float) -> None:
    """Nor do records that cannot be read."""
    good = [record(NOON_S + n) for n in range(4_000)]
    strange = [*good[:1_000], *[record(NOON_S + 1_000 + wrong_s)] * 40, b"{", b"\xff", *good[1_000:]]
    write(tmp_path / "a.jsonl", strange)
    write(tmp_path / "b.jsonl", [record(NOON_S + n + 0.5) for n in range(4_000)])
    latest = 0.0
    for group in groups(tmp_path):
        texts = [one.value for batch in group for one in batch.records if one.value and one.value.startswith(b'{"ts')]
        read = [at for at in (json.loads(text)["ts"] - NOON_S for text in texts) if 0 <= at < 86_400]
        assert min(read, default=latest) > latest - 100
        latest = max([latest, *read])


def test_records_with_positions_in_kafka_are_read_file_by_file(tmp_path: Path) -> None:
    for part in (0, 1):
        place = {"topic": "gw", "partition": part}
        texts = [record(NOON_S + n, _kafka=place | {"offset": n}) for n in range(2_000)]
        write(tmp_path / f"{part}.jsonl", texts)
    found = batches(tmp_path)
    assert [batch.partition for batch in found] == [0] * (len(found) // 2) + [1] * (len(found) // 2)
    assert not any(batch.more for batch in found)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_times_differ_least_in_all(read: list[int]) -> None:
    found = in_order(np.array(read, np.float64))
    least = min(
        sum(abs(one - other) for one, other in zip(tried, read, strict=True))
        for tried in combinations_with_replacement(range(6), len(read))
    )
    assert np.abs(found - read).sum() == least and not (np.diff(found) < 0).any()


@given(st.lists(st.one_of(st.integers(-(2**40), 2**40).map(record), st.sampled_from([b"", b"{", b"[]"])), max_size=300))
def test_times_never_fall(texts: list[bytes]) -> None:
    found = in_order(stamps(list(enumerate(texts)), native.ADAPTER, CONFIG.input))
    assert len(found) == len(texts)
    assert all(one <= other for one, other in pairwise(found.tolist()))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-50, 50), st.integers(0, 2**20)), min_size=1, max_size=60),
    st.integers(1, 3),
)
def test_rows_of_several_sources_stand_in_order_of_time_and_each_sources_in_its_own(
    drawn: list[tuple[int, int, int]], partitions: int
) -> None:
    source, time_ms, client = (np.array(column) for column in zip(*drawn, strict=True))
    rows = blank_rows(
        len(drawn), 2, 0, source=source.astype(np.uint32), time_ms=time_ms.astype(np.int64),
        client=client.astype(np.uint64) << np.uint64(32),
    )  # fmt: skip
    for _, part in cut(rows, partitions):
        so_far: dict[int, int] = {}
        offsets: dict[int, int] = {}
        keys = []
        for own, at, offset in zip(part.source.tolist(), part.time_ms.tolist(), part.offset.tolist(), strict=True):
            assert offsets.setdefault(own, -1) < offset
            offsets[own] = offset
            so_far[own] = max(at, so_far.get(own, at))
            keys.append(so_far[own])
        assert keys == sorted(keys)
