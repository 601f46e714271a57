"""A part of a history, and a history in several processes: the bytes of the whole."""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from typer.testing import CliRunner

from detector import engine
from detector.events.finding import Event
from detector.frame import ControlFrame
from models.pseudonym import client_of
from streams import replay
from streams.analyst.events import read_events
from streams.cli import app
from streams.config.config import Config
from streams.history.archive import Message, Writer, layout
from streams.history.base import RawBatch, SourceError
from streams.history.sources import open_sources
from streams.ops import archive_topic
from streams.progress import Advance
from streams.replay import jobs
from streams.replay.evidence import EVIDENCE_FILE, around, gather, write_evidence
from streams.replay.outcome import COLD_FILE
from streams.replay.publish import publish, refuse_live
from streams.replay.verify import sentence, verify
from streams.sketch.identity import Identity
from streams.sketch.sketcher import Sketcher
from streams.wire import frames
from streams.worker.state_topic import Stored
from tests.history import Row, benign, sweeps, write_jsonl
from tests.kafka_config import kafka_config
from tests.pipeline import Calibrated, read_topic

CONFIG = Config(topics={"partitions": 3}, state={"blocks": 4})
BEGIN_MS = 1_800_000_000_000
DAY_MS = 86_400_000
VARIES = ("seconds", "rows_per_s")


class History(NamedTuple):
    """One day of people and three sweepers: raw, and as frames. whole : what is said of it."""

    fitted: Calibrated
    raw: Path
    messages: list[Message]
    archive: Path
    whole: replay.Outcome

    def said(self, *paths: Path, config: Config = CONFIG, **options: Any) -> replay.Outcome:
        sources = open_sources([str(path) for path in paths], config)
        fitted = self.fitted
        return replay.replay(replay.Plan(sources, config, fitted.artefacts, fitted.secrets, **options))

    def in_processes(self, path: Path, out: Path, **options: Any) -> replay.Outcome:
        sources, fitted = open_sources([str(path)], CONFIG), self.fitted
        plan = replay.Plan(sources, CONFIG, fitted.artefacts, fitted.secrets, **options)
        return jobs.replay(plan, [fitted.folder], 2, out)


@pytest.fixture(scope="module")
def history(fitted: Calibrated, tmp_path_factory: pytest.TempPathFactory) -> History:
    folder = tmp_path_factory.mktemp("ways")
    raw = folder / "day.jsonl"
    write_jsonl(raw, benign(200, seed=2, day=1), *(_sweep(number) for number in range(3)))
    identity = Identity(fitted.secrets.pseudonym_key, fitted.secrets.key_id, fitted.secrets.projection_seed)
    sketcher, written = Sketcher(fitted.artefacts, identity, CONFIG), [0, 0, 0]
    (source,) = open_sources([str(raw)], CONFIG)
    messages: list[Message] = []
    for batch in source.batches():
        assert isinstance(batch, RawBatch)
        for start in range(0, len(batch.records), 29):
            part, at_ms = batch.records[start : start + 29], BEGIN_MS + start * DAY_MS // 200
            for frame in sketcher.frames(batch.topic, batch.partition, "0", part, 3).frames:
                value = frames.encode(frame)
                messages.append(Message(frame.partition, written[frame.partition], None, value, at_ms, ()))
                written[frame.partition] += 1
    made = History(fitted, raw, messages, archived(folder / "archive", messages), None)  # type: ignore[arg-type]
    return made._replace(whole=made.said(made.archive))


def _sweep(number: int) -> list[Row]:
    """One after the other, hours apart."""
    rows = sweeps(1, 60, seed=number, day=1)
    return [row | {"client_id": f"evil-{number}", "ts": row["ts"] + 14_400 * (number - 1)} for row in rows]


def archived(folder: Path, messages: list[Message]) -> Path:
    """By partition, as `archive` reads a topic."""
    with Writer(folder, CONFIG.topics.requests) as writer:
        for partition in sorted({message.partition for message in messages}):
            own = [message for message in messages if message.partition == partition]
            first = writer.begin(partition, own[0].offset)
            for message in own:
                if message.offset >= first:
                    writer.add(message)
            writer.finish()
    return folder


def same(one: replay.Outcome, other: replay.Outcome) -> None:
    assert one.events == other.events
    assert (one.rejects, one.cold) == (other.rejects, other.cold)
    left, right = ({k: v for k, v in o.summary.items() if k not in VARIES} for o in (one, other))
    assert left == right


def test_the_history_is_of_interest(history: History) -> None:
    """The archive spans days, so that a replay comes to several places; and something is said in each partition."""
    assert len(history.whole.events) >= 6 and not history.whole.cold  # how many, the random keys decide
    assert {message.partition for message in history.messages} == {0, 1, 2}
    assert history.whole.events == history.said(history.raw).events


class Listening:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.totals: list[int | None] = []
        self.done = 0
        self.said: list[str] = []

    def task(self, description: str, total: int | None) -> Advance:
        self.totals.append(total)
        return self._advance

    def _advance(self, units: int) -> None:
        self.done += units

    def tell(self, text: str) -> None:
        self.said.append(text)


def test_it_tells_how_far_it_is_at_what_rate_and_what_was_said_so_far(history: History) -> None:
    listening, sources = Listening(), open_sources([str(history.archive)], CONFIG)
    made = history.fitted
    replay.replay(replay.Plan(sources, CONFIG, made.artefacts, made.secrets, reporter=listening))
    (total,) = listening.totals
    assert total is not None and 0.5 * total < listening.done <= total
    alerts, rows = history.whole.summary["alerts"], history.whole.summary["rows"]
    assert re.fullmatch(rf"{rows} rows · [\d.]+k?M?/s · 2023-11-1\d \d\d:\d\d · {alerts} alerts", listening.said[-1])
    assert len(listening.said) > 6


def test_several_processes_give_the_bytes_of_one(history: History, tmp_path: Path) -> None:
    same(history.in_processes(history.archive, tmp_path), history.whole)
    with pytest.raises(SourceError, match="--jobs needs frames"):
        history.in_processes(history.raw, tmp_path)


def test_the_command_in_several_processes_writes_the_same_and_leaves_nothing_behind(
    history: History, tmp_path: Path
) -> None:
    (tmp_path / "probewatch.toml").write_text("[topics]\npartitions = 3\n[state]\nblocks = 4\n")
    words = ["replay", history.archive, "--artefacts", history.fitted.folder, "--config", tmp_path / "probewatch.toml"]
    words += ["--out", tmp_path / "out", "--jobs", 2, "--no-report"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.stderr
    replay.write(history.whole, tmp_path / "whole")
    for name in replay.FILES.values():
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "out" / jobs.FOLDER).exists()


def test_a_second_run_takes_over_finished_partitions(history: History, tmp_path: Path) -> None:
    """One partition was not finished when the first run was stopped, another one's file is damaged."""
    history.in_processes(history.archive, tmp_path)
    first, second, third = sorted(path for path in tmp_path.rglob("*.zst") if path.stem != jobs.LINK)
    unchanged = first.stat().st_mtime_ns
    second.unlink()
    third.write_bytes(third.read_bytes()[:-9])
    assert jobs.kept(tmp_path) == 2
    listening = Listening()
    same(history.in_processes(history.archive, tmp_path, reporter=listening), history.whole)
    (total,) = listening.totals
    assert total is not None and 0 < listening.done < 0.9 * total
    assert first.stat().st_mtime_ns == unchanged and second.exists()
    jobs.forget(tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_stopped_replay_leaves_whole_partitions_or_none(history: History, tmp_path: Path) -> None:
    with pytest.raises(replay.StoppedError):
        history.said(history.archive, stops=lambda: True)
    with pytest.raises(replay.StoppedError):
        history.in_processes(history.archive, tmp_path, stops=lambda: True)
    assert all(path.suffix == ".zst" for path in tmp_path.rglob("*") if path.is_file())
    same(history.in_processes(history.archive, tmp_path), history.whole)


def test_another_replay_takes_over_nothing(history: History, tmp_path: Path) -> None:
    history.in_processes(history.archive, tmp_path)
    (before,) = (tmp_path / jobs.FOLDER).iterdir()
    selection = replay.Selection(model="other")
    assert history.in_processes(history.archive, tmp_path, selection=selection).events == []
    (after,) = (tmp_path / jobs.FOLDER).iterdir()
    assert before.name != after.name


def told(events: list[Event], test: Callable[[Event], bool]) -> list[Event]:
    chosen = [event for event in events if test(event)]
    assert 0 < len(chosen) < len(events)
    return chosen


def test_a_range_of_time_is_a_part_of_the_whole(history: History) -> None:
    events = history.whole.events
    since, until = events[4].time_ms, events[-4].time_ms
    selection = replay.Selection(since_ms=since, until_ms=until)
    expected = told(events, lambda event: since <= event.time_ms < until)
    for path in (history.archive, history.raw):
        found = history.said(path, selection=selection)
        assert found.events == expected
        assert 0 < found.summary["rows"] < history.whole.summary["rows"]


@pytest.fixture(scope="module")
def split(history: History) -> int:
    """An offset with something said before it and behind it."""
    for offset in range(1, 30):
        head = history.said(history.archive, selection=replay.Selection(end=offset)).events
        if 2 < len(head) < len(history.whole.events) - 2:
            return offset
    raise AssertionError("everything is said at once")


def test_behind_a_range_of_time_only_orders_are_read_and_whom_they_are_about(history: History, tmp_path: Path) -> None:
    """Two clients are lifted at the very end: one whose last row lies in the range, one who was there later."""
    alarmed = sorted({event.client_key for event in history.whole.events if event.kind == "alert"})
    rows = {key: [event for event in history.whole.events if event.client_key == key] for key in alarmed}
    first, *_, last = sorted(alarmed, key=lambda key: rows[key][0].time_ms)
    names = {json.loads(event.value)["client"] for event in history.whole.events if event.kind == "throttle"}
    name = {client_of(name): name for name in names}
    orders = [
        Message(partition, 10_000 + number, None, frames.encode_control(
            ControlFrame(partition, 0, "lift", key, name[key], "", 0, "a test")), BEGIN_MS + 9 * DAY_MS, ())
        for number, key in enumerate((first, last)) for partition in range(3)
    ]  # fmt: skip
    archive = archived(tmp_path, [*history.messages, *orders])
    config = Config(topics={"partitions": 3}, state={"blocks": 4}, drift={"window_s": 60, "lateness_s": 0})
    whole = history.said(archive, config=config)
    until = rows[last][0].time_ms - 60_000 * 60
    found = history.said(archive, config=config, selection=replay.Selection(until_ms=until))
    expected = told(whole.events, lambda event: event.time_ms < until)
    assert found.events == expected
    assert [event.client_key for event in expected if b'"reason":"person"' in event.value] == [first]
    assert found.summary["records"] < whole.summary["records"]


def test_a_range_of_offsets_is_a_part_of_the_whole(history: History, split: int) -> None:
    head = history.said(history.archive, selection=replay.Selection(end=split)).events
    tail = history.said(history.archive, selection=replay.Selection(first=split)).events
    assert head and tail
    assert sorted([*head, *tail], key=lambda event: (event.time_ms, event.id)) == history.whole.events
    with pytest.raises(SourceError, match="offsets in `requests`"):
        history.said(history.raw, selection=replay.Selection(first=split))


def test_one_client_and_one_model_are_a_part_of_the_whole(history: History) -> None:
    client = next(event.client_key for event in history.whole.events if event.kind == "alert")
    expected = told(history.whole.events, lambda event: event.client_key == client)
    for path in (history.archive, history.raw):
        found = history.said(path, selection=replay.Selection(clients=frozenset({client})))
        assert (found.events, found.summary["clients"]) == (expected, 1)
    assert history.said(history.archive, selection=replay.Selection(model="loan")).events == history.whole.events
    assert history.said(history.archive, selection=replay.Selection(model="other")).events == []


def test_a_range_begins_at_the_nearest_snapshot_and_without_one_is_a_cold_start(
    history: History, split: int, tmp_path: Path
) -> None:
    """The beginning is gone; with the state of then, what is said of the rest is what was said."""
    archive = archived(tmp_path / "later", [message for message in history.messages if message.offset >= split])
    selection = replay.Selection(first=split)
    expected = history.said(history.archive, selection=selection).events
    cold = history.said(archive, selection=selection)
    assert cold.cold == {event.id for event in cold.events} and cold.summary["cold_start_events"] == len(cold.events)
    replay.write(cold, tmp_path / "out")
    assert len((tmp_path / "out" / COLD_FILE).read_bytes().splitlines()) == len(cold.events) > 0

    for number in range(3):
        _snapshot(history, archive, number, split)
    warm = history.said(archive, selection=selection)
    assert warm.events == expected and len(expected) > 2
    assert not warm.cold and warm.events != cold.events
    replay.write(warm, tmp_path / "out")
    assert not (tmp_path / "out" / COLD_FILE).exists()
    assert history.said(archive, selection=selection).summary["records"] < history.whole.summary["records"]


def _snapshot(history: History, archive: Path, number: int, offset: int) -> None:
    """The state of a partition before this offset, where `archive` keeps it."""
    state = engine.open_partition(engine.EngineSettings(CONFIG, history.fitted.artefacts), number)
    for message in history.messages:
        if message.partition == number and message.offset < offset:
            engine.step(state, frames.decode(message.value or b"", number, message.offset))
    stored = Stored()
    for block in range(CONFIG.state.blocks):
        stored.keep(engine.dump_block(state, block))
    archive_topic._write_snapshot(layout.snapshot_path(archive, "2027-01-15", number), number, stored, offset)


@pytest.mark.parametrize("of", ["archive", "raw"])
def test_the_rows_around_each_alert_are_kept(history: History, tmp_path: Path, of: str) -> None:
    path = getattr(history, of)
    alerts = [event for event in history.whole.events if event.kind == "alert"]
    clients = {alert.client_key for alert in alerts}
    made = history.fitted
    sources = open_sources([str(path)], CONFIG)
    plan = replay.Plan(sources, CONFIG, made.artefacts, made.secrets)
    gathered = gather(plan, clients)
    assert gather(plan, []).frames == []
    settings = engine.EngineSettings(CONFIG, made.artefacts)
    write_evidence(around(alerts, gathered, settings, 3), tmp_path)
    kept = [json.loads(line) for line in (tmp_path / EVIDENCE_FILE).read_bytes().splitlines()]
    assert [line["alert_uid"] for line in kept] == [alert.id for alert in alerts]
    for line, alert in zip(kept, alerts, strict=True):
        (decided,) = (e for e in json.loads(alert.value)["evidences"] if "rows_seen" in e.get("data", {}))
        row = line["rows"][line["decided"]]
        assert (row["request_id"], row["rows_seen"]) == (decided["uid"], decided["data"]["rows_seen"])
        assert row["statistic"] >= line["thresholds"][2] and len(line["rows"]) <= 7
        assert [r["rows_seen"] for r in line["rows"]] == sorted(r["rows_seen"] for r in line["rows"])


def test_the_first_difference_and_the_hash_that_differs_are_named(history: History, tmp_path: Path) -> None:
    replay.write(history.whole, tmp_path)
    assert verify(history.whole, read_events(tmp_path, CONFIG)).equal
    other = CONFIG.model_copy(update={"policy": CONFIG.policy.model_copy(update={"mode": "enforce"})})
    changed = verify(history.said(history.archive, config=other), read_events(tmp_path, CONFIG))
    assert not changed.equal and changed.first is not None and changed.first.what == "changed"
    assert [one.field for one in changed.hashes] == ["config_hash"] and changed.by_hashes_alone == 0
    assert "mode" in {one.field for one in changed.first.fields}
    assert f"config_hash differs: {CONFIG.hash} when recorded, {other.hash} now" in sentence(changed)

    throttles = (tmp_path / "throttle.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "throttle.jsonl").write_bytes(b"".join(throttles[1:]))
    lost = verify(history.whole, read_events(tmp_path, CONFIG))
    assert (lost.different, lost.hashes) == (1, []) and lost.first is not None
    assert (lost.first.what, lost.first.uid) == ("only replayed", json.loads(throttles[0])["decision_id"])
    client = json.loads(throttles[0])["client"]
    narrow = replay.Selection(clients=frozenset({client_of(client)}))
    assert verify(history.said(history.archive, selection=narrow), read_events(tmp_path, CONFIG), narrow).different == 1


async def test_what_is_published_says_that_it_is_a_replay(
    history: History, embedded_broker: str, namespace: str
) -> None:
    config = kafka_config(embedded_broker, namespace)
    admin = AIOKafkaAdminClient(bootstrap_servers=embedded_broker)
    await admin.start()
    await admin.create_topics([NewTopic(f"{namespace}.replayed", 1, 1)])
    await admin.close()

    written = await asyncio.to_thread(publish, config, f"{namespace}.replayed", history.whole, lambda _: None)
    records = await read_topic(config, f"{namespace}.replayed")
    assert written == len(records) == len(history.whole.events)
    for record, event in zip(records, history.whole.events, strict=True):
        headers = dict(record.headers)
        assert (headers["probewatch-replay"], headers["probewatch-id"]) == (b"1", event.id.encode())
        if event.kind == "throttle":
            assert json.loads(record.value) == json.loads(event.value) | {"replay": True}
        else:
            assert record.value == event.value
    for live in (config.topics.throttle_state, config.topics.raw[0], config.topics.alerts):
        with pytest.raises(SourceError, match="for live events only"):
            refuse_live(config, live)
    with pytest.raises(SourceError, match="no such topic"):
        await asyncio.to_thread(publish, config, f"{namespace}.absent", history.whole, lambda _: None)
