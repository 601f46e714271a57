"""`probewatch explain` of a replayed day: whoever is meant, the same story is told, and it is the right one."""

import asyncio
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner, Result

from streams import replay
from streams.analyst.events import Alert, decode_event
from streams.cli import app
from streams.config.config import Config
from streams.explain import find
from streams.history.archive import Message
from streams.history.sources import open_sources
from streams.kafka import topics
from streams.progress import Silent
from streams.sketch.identity import pseudonym_of
from streams.wire import frames
from tests.archives import archived
from tests.history import Row, benign, sweeps, write_jsonl
from tests.kafka_config import kafka_config
from tests.pipeline import RAW_PARTITIONS, Calibrated, all_handled, read_events, until, write_raw
from tests.test_worker import working

ATTACKER = "evil-0"


class Day(NamedTuple):
    folder: Path
    rows: list[Row]
    client: str

    def run(self, *arguments: str) -> Result:
        options = ("--config", str(self.folder / "probewatch.toml"), "--events", str(self.folder / "out"))
        return CliRunner().invoke(app, ["explain", *arguments, *options])

    def told(self, what: str) -> dict[str, Any]:
        result = self.run(what, str(self.folder / "day.jsonl"), "--json")
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    def alerts(self) -> list[dict[str, Any]]:
        lines = (self.folder / "out/alerts.jsonl").read_bytes().splitlines()
        return [alert for line in lines if (alert := json.loads(line))["resources"][0]["uid"] == self.client]


@pytest.fixture(scope="module")
def day(fitted: Calibrated, tmp_path_factory: pytest.TempPathFactory) -> Day:
    folder = tmp_path_factory.mktemp("day")
    rows = write_jsonl(folder / "day.jsonl", benign(300, seed=2, day=1), sweeps(2, 60, seed=3, day=1))
    (folder / "probewatch.toml").write_text(
        f'artefacts = "{fitted.folder}"\nsecrets = {{ directory = "{fitted.folder}/secrets" }}\n'
    )
    sources = open_sources([str(folder / "day.jsonl")], Config())
    replay.write(replay.replay(replay.Plan(sources, Config(), fitted.artefacts, fitted.secrets)), folder / "out")
    return Day(folder, rows, pseudonym_of(ATTACKER, fitted.secrets))


def test_alert_incident_decision_request_pseudonym_and_client_id_lead_to_the_same_story(day: Day) -> None:
    alert = day.alerts()[-1]
    trigger = alert["evidences"][0]
    row = next(row for row in day.rows if row["request_id"] == trigger["uid"])
    assert row["client_id"] == ATTACKER
    names = [
        alert["metadata"]["uid"], alert["finding_info"]["uid"], alert["unmapped"]["decision_id"], row["request_id"],
        alert["metadata"]["uid"][:12], day.client, ATTACKER,
    ]  # fmt: skip
    first, *others = [day.told(name) for name in names]
    assert all(told == first for told in others)
    at, lead = first["at"], next(ground for ground in first["grounds"] if ground["leads"])
    assert (at["source"], at["offset"], at["rows_seen"]) == (
        trigger["data"]["source"], trigger["data"]["offset"], trigger["data"]["rows_seen"]
    )  # fmt: skip
    assert (first["client"], first["rows"]) == (day.client, 60)
    assert lead["process"] == alert["finding_info"]["analytic"]["algorithm"]
    assert lead["evidence"] == alert["unmapped"]["evidence_nats"]
    assert lead["needed"] == pytest.approx(alert["unmapped"]["threshold_nats"], abs=0.002)
    assert lead["excess"] == at["statistic"] >= first["thresholds"][first["promise"]["level_name"]]
    assert first["rulings"][-1]["title"] == alert["finding_info"]["title"]
    consumers = {row["client_id"] for row in day.rows}
    promise = first["promise"]
    assert 0.9 * len(consumers) < promise["clients"] <= len(consumers)
    assert promise["expected"] == pytest.approx(promise["promised"] * promise["clients"], rel=1e-4)


def test_requests_stand_side_by_side_with_what_differs_marked(day: Day) -> None:
    told = day.told(ATTACKER)
    beside = told["requests"]
    fields = {field["field"]: field for field in beside["fields"]}
    rows = [row for row in day.rows if row["client_id"] == ATTACKER]
    income = [str(rows[seen - 1]["features"]["income"]) for seen in beside["rows_seen"]]
    assert beside["rows_seen"][0] == told["at"]["rows_seen"] and len(beside["rows_seen"]) > 3
    assert fields["features.income"]["values"] == income
    assert fields["features.income"]["differs"] == [False, *[True] * (len(income) - 1)]
    assert not any(fields["features.age"]["differs"])
    assert told["varied"][0]["field"] == "income"
    assert told["at"]["changed"] == ["income"]


def test_from_an_archive_the_same_is_told_and_requests_only_to_who_may_read_them(
    day: Day, fitted: Calibrated, tmp_path: Path
) -> None:
    history = find.HistoryContext(
        open_sources([str(day.folder / "day.jsonl")], Config()), Config(), *fitted[1:], Silent()
    )
    read = find.read_frames(history, "archiving")
    messages = [Message(one.partition, one.offset, None, frames.encode(one), 0) for one in read]  # type: ignore[arg-type]
    folder = str(archived(tmp_path / "archive", messages))
    options = ("--config", str(day.folder / "probewatch.toml"), "--json")

    def told(*arguments: str, what: str = ATTACKER) -> dict[str, Any]:
        result = CliRunner().invoke(app, ["explain", what, folder, *arguments, *options])
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    from_records = day.told(ATTACKER)
    assert told() == from_records | {"requests": None}
    assert told("--raw", str(day.folder / "day.jsonl")) == from_records
    assert from_records["requests"] is not None
    early = next(row["request_id"] for row in day.rows if row["client_id"] == ATTACKER)
    assert told(what=early) == day.told(early) | {"requests": None}


def test_another_row_than_the_deciding_one_is_told_as_it_was_then(day: Day) -> None:
    early = [row for row in day.rows if row["client_id"] == ATTACKER][2]
    told = day.told(early["request_id"])
    assert told["at"]["rows_seen"] == 3
    assert told["at"]["statistic"] < day.told(ATTACKER)["at"]["statistic"]
    assert [step["rows_seen"] for step in told["before"]] == [1, 2]


def test_a_person_gets_a_tree_without_escapes(day: Day) -> None:
    result = day.run(ATTACKER, str(day.folder / "day.jsonl"))
    assert result.exit_code == 0, result.output
    for part in ("log line", "adapter", "row", "features", "evidence", "decision", "before", "varied", "promise"):
        assert f"── {part} " in result.stdout
    assert "income" in result.stdout and "Side by side" in result.stdout and "\x1b" not in result.stdout


def test_who_is_nobody_is_said_with_a_way_out(day: Day) -> None:
    for name in ("nobody", "0" * 32, "00000"):
        result = day.run(name, str(day.folder / "day.jsonl"))
        assert result.exit_code == 2
        assert name in result.stderr and "probewatch alerts" in result.stderr


async def test_in_service_the_topics_are_all_that_is_needed(
    broker: str, namespace: str, fitted: Calibrated, tmp_path: Path
) -> None:
    """By default alerts are looked up in theirs, and the history is the topic of frames."""
    config = kafka_config(broker, namespace)
    await topics.create(config, RAW_PARTITIONS)
    async with working(config, fitted):
        await write_raw(config, [*benign(60, seed=5), *sweeps(2, 60, seed=6)])
        await until(lambda: all_handled(config), "all committed")
    names = config.topics.model_dump(mode="json")
    lines = [f"{name} = {json.dumps(value)}" for name, value in names.items() if value is not None]
    (tmp_path / "probewatch.toml").write_text(
        f'artefacts = "{fitted.folder}"\nsecrets = {{ directory = "{fitted.folder}/secrets" }}\n'
        f'[kafka]\nbootstrap = "{broker}"\n[state]\nblocks = 4\n[topics]\n' + "\n".join(lines)
    )
    written = (await read_events(config)).values.values()
    alerts = [found for values in written for value in values if isinstance(found := decode_event(value), Alert)]
    about = max((one for one in alerts if one.client), key=lambda one: one.time)
    words = ["explain", about.uid, "--raw", f"kafka://{broker}/{config.topics.raw[0]}", "--json"]
    options = ("--config", str(tmp_path / "probewatch.toml"))
    result = await asyncio.to_thread(CliRunner().invoke, app, [*words, *options])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert about.trigger is not None
    assert (told["client"], told["at"]["offset"]) == (about.client, about.trigger.offset)
    income = next(field for field in told["requests"]["fields"] if field["field"] == "features.income")
    assert len(income["values"]) > 3 and all(income["differs"][1:])
