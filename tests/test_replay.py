"""Replay: what it finds, what it counts, and that packing, cutting, archiving and naming change nothing."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from models.artefacts.store import Artefacts, load_artefacts
from streams import replay
from streams.config.config import Config
from streams.fit.calibrate import calibrate
from streams.history.archive import Message
from streams.history.base import RawBatch, SourceError
from streams.history.sources import open_sources
from streams.progress import Silent
from streams.secrets.load import Secrets, load_secrets
from streams.sketch.identity import Identity
from streams.sketch.sketcher import Sketcher
from streams.wire import frames
from tests.archives import archived
from tests.history import Row, benign, lines, sweeps, write_jsonl
from tests.pipeline import fixed_secrets

CONFIG = Config(topics={"partitions": 3}, state={"blocks": 4})


class Fitted(NamedTuple):
    artefacts: Artefacts
    secrets: Secrets
    day: Path
    rows: list[Row]


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """Artefacts of a benign day, and the next day with two sweepers in it."""
    folder = tmp_path_factory.mktemp("history")
    write_jsonl(folder / "benign.jsonl", benign(1_500, seed=1))
    rows = write_jsonl(folder / "day.jsonl", benign(300, seed=2, day=1), sweeps(2, 60, seed=3, day=1))
    fixed_secrets(folder)
    secrets = load_secrets(CONFIG, folder)
    calibrate(open_sources([str(folder / "benign.jsonl")], CONFIG), folder, CONFIG, secrets, Silent())
    return Fitted(load_artefacts(folder, secrets.projection_seed), secrets, folder / "day.jsonl", rows)


@pytest.fixture(scope="session")
def judge(fitted: Fitted) -> Callable[..., replay.Outcome]:
    def judged(*paths: Path, plain_clients: bool = False) -> replay.Outcome:
        sources = open_sources([str(path) for path in paths], CONFIG)
        return replay.replay(
            replay.Plan(sources, CONFIG, fitted.artefacts, fitted.secrets, plain_clients=plain_clients)
        )

    return judged


def test_sweepers_are_found_and_counted(fitted: Fitted, judge: Callable[..., replay.Outcome], tmp_path: Path) -> None:
    outcome = judge(fitted.day, plain_clients=True)
    replay.write(outcome, tmp_path)
    throttles = [json.loads(line) for line in (tmp_path / "throttle.jsonl").read_bytes().splitlines()]
    alerts = (tmp_path / "alerts.jsonl").read_bytes().splitlines()
    summary = json.loads((tmp_path / "summary.json").read_bytes())
    assert {record["client"] for record in throttles if record["level"] >= 3} == {"evil-0", "evil-1"}
    assert {record["trigger"]["source"] for record in throttles} == {"day.jsonl[0]"}
    for record in throttles:
        row = fitted.rows[record["trigger"]["offset"]]
        assert (row["client_id"], row["request_id"]) == (record["client"], record["trigger"]["request_id"])
    consumer = summary["classes"]["consumer"]
    assert summary["records"] == summary["rows"] == consumer["rows"] == len(fitted.rows)
    assert summary["clients"] == consumer["clients"] == len({row["client_id"] for row in fitted.rows})
    assert consumer["watch"] >= consumer["soft"] >= consumer["hard"] == 2
    assert summary["alerts"] == len(alerts) > 0
    assert sum(sum(reasons.values()) for reasons in summary["throttles"].values()) == len(throttles)
    assert (summary["rejects"], summary["certified"]) == ({}, False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "alerts.jsonl", "drift.jsonl", "rejects.jsonl", "summary.json", "throttle.jsonl"
    ]  # fmt: skip


def test_a_second_replay_and_another_packing_give_the_same_bytes(
    fitted: Fitted, judge: Callable[..., replay.Outcome], tmp_path: Path
) -> None:
    packed = tmp_path / "day.jsonl.gz"
    packed.write_bytes(gzip.compress(fitted.day.read_bytes()))
    first = judge(fitted.day).events
    assert first == judge(fitted.day).events == judge(packed).events
    assert [(event.time_ms, event.id) for event in first] == sorted((event.time_ms, event.id) for event in first)


def test_frames_from_the_archive_give_the_bytes_that_the_raw_records_gave(
    fitted: Fitted, judge: Callable[..., replay.Outcome], tmp_path: Path
) -> None:
    """Cut otherwise, sent through the wire format and Parquet, the partitions one after the other: the same events."""
    identity = Identity(fitted.secrets.pseudonym_key, fitted.secrets.key_id, fitted.secrets.projection_seed)
    sketcher = Sketcher(fitted.artefacts, identity, CONFIG)
    (source,) = open_sources([str(fitted.day)], CONFIG)
    messages: list[Message] = []
    for batch in source.batches():
        assert isinstance(batch, RawBatch)
        for start in range(0, len(batch.records), 37):
            part = batch.records[start : start + 37]
            for frame in sketcher.frames(batch.topic, batch.partition, CONFIG.input.incarnation, part, 3).frames:
                messages.append(Message(frame.partition, 1_000 + len(messages), None, frames.encode(frame)))
    messages.append(Message(0, 9_999, None, b"written by nobody we know"))
    kept = judge(archived(tmp_path / "archive", messages))
    raw = judge(fitted.day)
    assert len(raw.events) > 4
    assert kept.events == raw.events
    assert [(reject.partition, reject.offset) for reject in kept.rejects] == [(0, 9_999)]
    assert kept.summary["classes"] == raw.summary["classes"]


def test_kafka_positions_in_records_survive_another_cutting_into_files(
    fitted: Fitted, judge: Callable[..., replay.Outcome], tmp_path: Path
) -> None:
    placed = [
        row | {"_kafka": {"topic": "gw", "partition": sum(row["client_id"].encode()) % 2, "offset": 10 * n}}
        for n, row in enumerate(fitted.rows)
    ]
    (tmp_path / "whole.jsonl").write_bytes(b"".join(lines(placed)))
    (tmp_path / "parts").mkdir()
    for start in range(0, len(placed), 100):
        (tmp_path / "parts" / f"{start:06}.jsonl").write_bytes(b"".join(lines(placed[start : start + 100])))
    whole, parts = judge(tmp_path / "whole.jsonl"), judge(tmp_path / "parts")
    assert whole.events == parts.events
    triggers = [json.loads(event.value)["trigger"] for event in whole.events if event.kind == "throttle"]
    assert {trigger["source"] for trigger in triggers} <= {"gw[0]", "gw[1]"}
    assert all(trigger["offset"] % 10 == 0 for trigger in triggers)
    assert whole.summary["clients_in_several_raw_partitions"] == 0


def test_history_given_twice_changes_nothing(
    fitted: Fitted, judge: Callable[..., replay.Outcome], tmp_path: Path
) -> None:
    placed = [row | {"_kafka": {"topic": "gw", "partition": 0, "offset": n}} for n, row in enumerate(fitted.rows)]
    (tmp_path / "once.jsonl").write_bytes(b"".join(lines(placed)))
    (tmp_path / "twice.jsonl").write_bytes(b"".join(lines(placed + placed[100:])))
    once, twice = judge(tmp_path / "once.jsonl"), judge(tmp_path / "twice.jsonl")
    assert once.events == twice.events
    assert (once.summary["skipped_rows"], twice.summary["skipped_rows"]) == (0, len(placed) - 100)


def test_bad_records_are_rejects_and_strangers_are_unjudged(
    fitted: Fitted, judge: Callable[..., replay.Outcome], tmp_path: Path
) -> None:
    good = fitted.rows[0]
    bad = [b"{\n", b'{"ts": 1}\n', *lines([good | {"ts": "secret-time"}, good | {"model": "other"}, good])]
    (tmp_path / "bad.jsonl").write_bytes(b"".join(bad))
    outcome = judge(tmp_path / "bad.jsonl")
    replay.write(outcome, tmp_path / "out")
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_bytes().splitlines()]
    assert [reject["offset"] for reject in rejects] == [0, 1, 2]
    assert sum(outcome.summary["rejects"].values()) == 3
    assert outcome.summary["unjudged"] == {"unknown_model": 1, "unreadable": 1}
    assert (outcome.summary["records"], outcome.summary["rows"]) == (5, 3)
    assert "secret-time" not in (tmp_path / "out" / "rejects.jsonl").read_text()


def test_a_client_in_several_files_is_counted(
    fitted: Fitted, judge: Callable[..., replay.Outcome], tmp_path: Path
) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(b"".join(lines(fitted.rows[:5])))
    assert judge(tmp_path).summary["clients_in_several_raw_partitions"] == len(
        {row["client_id"] for row in fitted.rows[:5]}
    )


def test_records_and_frames_are_not_mixed_and_frames_hold_no_names(
    fitted: Fitted, judge: Callable[..., replay.Outcome], tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match="cannot be replayed together"):
        judge(fitted.day, _archive(fitted, tmp_path / "archive"))
    with pytest.raises(SourceError, match="frames hold no client ids"):
        judge(tmp_path / "archive", plain_clients=True)


def _archive(fitted: Fitted, path: Path) -> Path:
    identity = Identity(fitted.secrets.pseudonym_key, fitted.secrets.key_id, fitted.secrets.projection_seed)
    (source,) = open_sources([str(fitted.day)], CONFIG)
    batch = next(iter(source.batches()))
    assert isinstance(batch, RawBatch)
    (frame, *_) = Sketcher(fitted.artefacts, identity, CONFIG).frames("gw", 0, "0", batch.records[:5], 1).frames
    return archived(path, [Message(0, 0, None, frames.encode(frame))])


def test_a_replay_does_not_begin_with_what_only_a_drift_baseline_needs() -> None:
    code = "import sys, streams.replay; print(sorted({'river', 'pandas', 'sklearn', 'faust'} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
