"""A second log format beside the native one: chosen by `input.formats`, read, judged and sent again."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detector import engine
from detector.frame import RowFrame
from streams import adapters
from streams.adapters import Formats, native
from streams.config.config import Config
from streams.config.keys import ConfigError
from streams.explain.find import Place, requests_at
from streams.history.sources import open_sources
from streams.progress import Silent
from streams.sketch.identity import source_id
from streams.sketch.sketcher import RawRange, RawRecord, Sketcher, SketchResult, chunks
from streams.wire import frames
from streams.wire.rejects import Record, dead_letters
from tests import engine_cases
from tests.adapters import scoring_log
from tests.history import Row, benign, sweeps
from tests.pipeline import Calibrated

ROWS = [row | {"request_id": f"r{n}"} for n, row in enumerate(sweeps(2, 120, seed=4) + benign(60, seed=9))]
MIXED: dict[str, Any] = {"topics": {"raw": ["gw", "scores"]}, "input": {"formats": {"scores": "scoring-log"}}}


@pytest.fixture(autouse=True)
def _two_formats(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(adapters, "REGISTRY", (native.ADAPTER, scoring_log.ADAPTER))
    yield


def scored(row: Row) -> bytes:
    line = {
        "at": row["ts"],
        "call": row["request_id"],
        "caller": {"name": row["client_id"]},
        "scored": {"model": row["model"], "fields": row["features"]},
        "p": row["output"]["score"],
        "class": row["output"]["label"],
    }
    return json.dumps(line).encode()


def as_native(row: Row) -> bytes:
    return json.dumps(row).encode()


def raw(values: list[bytes]) -> list[RawRecord]:
    return [RawRecord(offset, value, None, (), -1) for offset, value in enumerate(values)]


def sketcher_of(config: Config, fitted: Calibrated) -> Sketcher:
    return Sketcher(fitted.artefacts, engine_cases.identity(), config)


def judged(result: SketchResult, config: Config, fitted: Calibrated) -> list[tuple[str, str, int, str]]:
    """What falls, in order: kind of event, its client and so on, without what the configuration's hash moves."""
    state = engine.open_partition(engine.EngineSettings(config, fitted.artefacts), 0)
    events = []
    for offset, frame in enumerate(result.frames):
        for event in engine.step(state, frames.decode(frames.encode(frame), 0, offset)):
            body = json.loads(event.value)
            events.append((event.kind, body.get("client", ""), body.get("level", 0), body.get("action", "")))
    return events


def test_both_formats_give_the_same_rows_and_decisions(fitted: Calibrated) -> None:
    config = Config.model_validate(MIXED)
    sketcher = sketcher_of(config, fitted)
    results = [
        sketcher.frames(topic, 0, "0", raw([write(row) for row in ROWS]), 1)
        for topic, write in (("gw", as_native), ("scores", scored))
    ]
    first, second = ([frame.rows for frame in result.frames] for result in results)
    assert sum(rows.count for rows in first) == len(ROWS) and not results[0].rejects + results[1].rejects
    for one, other in zip(first, second, strict=True):
        for name, column in one._asdict().items():
            assert name == "source" or column.tobytes() == getattr(other, name).tobytes(), name
    decisions = [judged(result, config, fitted) for result in results]
    assert decisions[0] == decisions[1] and len(decisions[0]) > 2


def test_topics_of_both_formats_share_a_fetch_and_their_frames(fitted: Calibrated) -> None:
    config = Config.model_validate(MIXED)
    sketcher = sketcher_of(config, fitted)
    half = len(ROWS) // 2
    ranges = [
        RawRange("gw", 1, source_id("gw", 1, "0"), raw([as_native(row) for row in ROWS[:half]])),
        RawRange("scores", 2, source_id("scores", 2, "0"), raw([scored(row) for row in ROWS[half:]] + [b"{}"])),
    ]
    result = sketcher.join(ranges, [sketcher.piece(chunk) for chunk in chunks(ranges)], 3)
    assert sum(frame.rows.count for frame in result.frames) == len(ROWS)
    assert all(isinstance(frame, RowFrame) and "gw[1]" in frame.source_name for frame in result.frames)
    assert [(reject.topic, reject.field) for reject in result.rejects] == [("scores", "at")]


def test_of_several_requests_in_a_message_the_bad_one_travels(fitted: Calibrated) -> None:
    config = Config.model_validate(MIXED)
    good, bad = scored(ROWS[0]), scored(ROWS[1]).replace(b'"caller"', b'"collar"')
    [record] = raw([b"[%b,%b]" % (good, bad)])
    result = sketcher_of(config, fitted).frames("scores", 0, "0", [record], 1)
    elements = Formats(config).of("scores").elements
    [letter] = dead_letters(result.rejects, {0: Record(None, record.value, ())}, elements)
    assert letter.value == bad and letter.rejects[0].field == "caller" and result.frames[0].rows.count == 1


def test_files_have_the_format_that_all_raw_topics_share() -> None:
    shared = Formats(Config.model_validate({"topics": {"raw": ["scores"]}, "input": MIXED["input"]}))
    assert shared.of("june.jsonl") is shared.of("scores") is scoring_log.ADAPTER
    mixed = Formats(Config.model_validate(MIXED))
    assert mixed.of("june.jsonl") is mixed.of("gw") is native.ADAPTER and mixed.of("scores") is scoring_log.ADAPTER
    assert mixed.topics(scoring_log.ADAPTER) == ["scores"]


def test_a_record_in_a_file_has_the_format_of_the_topic_that_it_names(tmp_path: Path, fitted: Calibrated) -> None:
    config = Config.model_validate(MIXED)
    place = b',"_kafka":{"topic":"scores","partition":0,"offset":7}}'
    path = tmp_path / "june.jsonl"
    path.write_bytes(as_native(ROWS[0]) + b"\n" + scored(ROWS[1])[:-1] + place + b"\n")
    [source] = open_sources([str(path)], config)
    sketcher = sketcher_of(config, fitted)
    results = [sketcher.frames(b.topic, b.partition, "0", b.records, 1) for b in source.batches()]  # type: ignore[union-attr]
    assert [(len(result.frames), len(result.rejects)) for result in results] == [(1, 0), (1, 0)]
    shown = requests_at([Place("scores[0]", 7, 0)], [source], config, Silent())
    assert shown[Place("scores[0]", 7, 0)]["call"] == "r1"


def test_an_unknown_format_and_a_topic_that_is_not_read_stop_the_start(fitted: Calibrated) -> None:
    config = Config.model_validate({"input": {"formats": {"gateway-logs": "nativ"}}})
    expected = r"input.formats.gateway-logs: expected one of native, scoring-log; got 'nativ'"
    with pytest.raises(ConfigError, match=expected):
        sketcher_of(config, fitted)
    with pytest.raises(ValueError, match=r"input.formats: expected topics of topics.raw \(gateway-logs\); got 'gw'"):
        Config.model_validate({"input": {"formats": {"gw": "native"}}})


def test_the_hash_counts_formats_only_where_some_are_set() -> None:
    named = Config.model_validate({"input": {"formats": {"gateway-logs": "scoring-log"}}})
    assert Config().hash == Config.model_validate({"input": {"formats": {}}}).hash != named.hash
