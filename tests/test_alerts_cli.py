"""The analyst's commands: what they list, group, find, hide, and keep of what people say."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from detector.drift import records as drift_records
from detector.events.encode import events as written
from streams.analyst.events import decode_event
from streams.analyst.labels import wilson
from streams.analyst.suppress import CurrentSuppressions
from streams.cli import app
from streams.config.config import Config
from tests.findings import FINDING, finding
from tests.test_events_read import MODEL_DRIFT, OTHER, write

WATCHED = finding(level=1, action="observe", revision=1, issued_ms=1_700_000_010_000, expires_ms=1_700_003_610_000)
UPDATED = finding(level=4, revision=3, update=True, issued_ms=1_700_000_045_000, expires_ms=1_700_086_445_000)
LIFTED = replace(OTHER, reason="person", decision=replace(OTHER.decision, action="lift", level=0, revision=9))


@pytest.fixture(autouse=True)
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `out` with two incidents about clients, one about a model; one client's decision was taken back."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    found = [event for one in (WATCHED, FINDING, UPDATED, OTHER, LIFTED) for event in written(one)]
    write(out, [*found, *drift_records.events(MODEL_DRIFT)])
    return tmp_path


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def rows(*words: object) -> Any:
    result = call(*words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_an_incident_is_one_line_that_is_updated() -> None:
    listed = rows("alerts", "--from", "out")
    by_client = {row["client"]: row for row in listed}
    assert len(listed) == 3 and by_client[""]["detectors"] == ["drift"]
    mine, theirs = by_client[FINDING.client], by_client[OTHER.client]
    assert (mine["uid"], mine["alerts"], mine["throttles"]) == (FINDING.incident, 2, 3)
    assert (mine["level"], mine["level_now"], mine["action"], mine["state"]) == (4, 4, "cap", "open")
    assert mine["until"] == "2023-11-15T22:14:05Z"
    assert (theirs["level"], theirs["level_now"], theirs["action"], theirs["state"]) == (4, 0, "", "closed")
    table = call("alerts", "--from", "out").stdout
    assert FINDING.incident[:12] in table and "cap until 2023-11-15T22:14:05Z" in table
    assert len(rows("alerts", "--from", "out", "--each")) == 4


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (("--client", FINDING.client), 1),
        (("--detector", "boundary"), 1),
        (("--level", "4"), 2),
        (("--since", "2023-11-14T22:14:10"), 2),
        (("--until", "2023-11-14T22:14:10Z"), 1),
        (("--mode", "shadow"), 0),
        (("--model", "nobody"), 0),
    ],
)
def test_filters_narrow_what_is_listed(words: tuple[str, ...], count: int) -> None:
    assert len(rows("alerts", "--from", "out", *words)) == count


def test_decisions_and_those_in_force() -> None:
    assert [row["revision"] for row in rows("throttles", "--from", "out", "--model", "loan")] == [1, 2, 3]
    assert [row["revision"] for row in rows("throttles", "--from", "out", "--in-force")] == [3]


def test_one_is_found_by_the_beginning_of_any_id() -> None:
    alert, decision = written(UPDATED)[1].id, written(WATCHED)[0].id
    for name in (FINDING.incident[:6], alert[:8], decision[:8]):
        whole = rows("alerts", name, "--from", "out")
        assert whole["incident"]["uid"] == FINDING.incident
        assert len(whole["alerts"]) == 2 and len(whole["throttles"]) == 3
        assert whole["label"] is None
    text = call("alerts", alert[:8], "--from", "out").stdout
    assert "Field-by-field sweep: model loan" in text and "in force   cap until" in text
    for name, message in (("ffff9", "no alert, incident or decision"), ("01", "at least 4 digits")):
        result = call("alerts", name, "--from", "out")
        assert (result.exit_code, message in result.stderr) == (2, True)


def test_clients_have_all_their_incidents() -> None:
    listed = {row["client"]: row for row in rows("clients", "--from", "out")}
    assert set(listed) == {FINDING.client, OTHER.client}
    assert listed[FINDING.client]["alerts"] == 2
    whole = rows("clients", FINDING.client, "--from", "out")
    assert [one["incident"]["uid"] for one in whole["incidents"]] == [FINDING.incident]
    assert "decision" in call("clients", FINDING.client, "--from", "out").stdout
    assert "no decisions" in call("clients", "k1-" + "z" * 26, "--from", "out").stderr


def test_a_label_closes_an_incident_and_the_last_counts() -> None:
    made = rows("label", FINDING.incident[:8], "--verdict", "true", "--reason", "seen", "--from", "out")
    assert (made["verdict"], made["verdict_id"], made["detectors"]) == ("true_positive", 2, ["sweep"])
    assert call("label", FINDING.incident, "--verdict", "false", "--reason", "a test", "--from", "out").exit_code == 0
    (mine,) = rows("alerts", "--from", "out", "--client", FINDING.client)
    assert (mine["state"], mine["verdict"]) == ("labelled", "false_positive")
    assert "a test" in call("alerts", FINDING.incident, "--from", "out").stdout
    call("label", OTHER.incident, "--verdict", "benign", "--reason", "our own", "--from", "out")
    found = rows("labels", "--from", "out")
    assert {one["finding_uid"]: one["verdict"] for one in found["labels"]} == {
        FINDING.incident: "false_positive", OTHER.incident: "benign"
    }  # fmt: skip
    assert {one["detector"]: (one["false_positive"], one["labelled"]) for one in found["detectors"]} == {
        "sweep": (1, 1), "boundary": (0, 1)
    }  # fmt: skip
    assert len((Path("out") / "feedback.jsonl").read_bytes().splitlines()) == 3


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (1, 100, 0.0018, 0.0545), (0, 0, 0.0, 1.0)],
)
def test_the_interval_is_wilsons(hits: int, of: int, low: float, high: float) -> None:
    """Figures of Wilson's interval as tables print them (Brown, Cai, DasGupta 2001)."""
    assert wilson(hits, of) == pytest.approx((low, high), abs=5e-5)


def test_a_suppression_hides_until_its_end_and_says_so() -> None:
    assert call("suppress", "--until", "30d", "--reason", "x", "--from", "out").exit_code == 2, "it would hide all"
    made = rows("suppress", "--detector", "sweep", "--until", "2099-01-01", "--reason", "test", "--from", "out")
    assert [one["detector"] for one in made] == ["sweep"]
    hidden = call("alerts", "--from", "out", "--json")
    assert len(json.loads(hidden.stdout)) == 2 and "1 suppressed incidents not shown" in hidden.stderr
    assert len(rows("alerts", "--from", "out", "--each")) == 2
    assert len(rows("alerts", "--from", "out", "--suppressed")) == 3
    assert len(rows("throttles", "--from", "out")) == 5, "decisions are shown all the same"
    assert call("suppress", "--detector", "sweep", "--until", "2020-01-01", "--reason", "over", "--from", "out")
    assert len(rows("alerts", "--from", "out")) == 3
    (kept,) = rows("suppressions", "--from", "out")
    assert (kept["until"], kept["reason"]) == ("2020-01-01T00:00:00Z", "over")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("alerts", "--from", "nowhere"), "no such file or folder"),
        (("alerts", "--from", "out", "--since", "soon"), "--since: expected a date"),
        (("alerts", "--from", "out", "--follow"), "--follow: expected --from kafka"),
        (("labels", "--from", "nowhere.jsonl"), "nowhere.jsonl"),
    ],
)
def test_what_cannot_be_done_says_why(words: tuple[str, ...], message: str) -> None:
    result = call(*words)
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


def test_no_escape_sequence_from_data_reaches_a_terminal() -> None:
    evil = replace(FINDING, model="\x1b[2Jloan\u202e", incident="e" * 32)
    write(Path("out"), written(evil))
    shown = [call("alerts", "--from", "out").stdout, call("alerts", "eeeee", "--from", "out").stdout]
    call("label", "eeeee", "--verdict", "true", "--reason", "\x1b[2J", "--from", "out")
    shown += [call("throttles", "--from", "out").stdout, call("clients", "--from", "out").stdout]
    shown += [call("labels", "--from", "out").stdout]
    assert all(r"\x1b[2J" in one and "\x1b" not in one and "\u202e" not in one for one in shown), shown


def test_topics_keep_what_was_said_and_following_goes_on_until_ctrl_c(
    at: Path, embedded_broker: str, namespace: str
) -> None:
    names = ("requests", "judge_state", "alerts", "throttle", "throttle_state", "drift", "feedback", "dlq")
    lines = "\n".join(f'{name} = "{namespace}.{name}"' for name in names)
    (at / "probewatch.toml").write_text(
        f'[kafka]\nbootstrap = "{embedded_broker}"\n[topics]\npartitions = 2\nlink_state = "{namespace}.l"\n{lines}\n'
    )
    refused = call("label", FINDING.incident, "--verdict", "true", "--reason", "x")
    assert refused.exit_code == 2 and "does not exist" in refused.stderr
    assert call("topics", "create").exit_code == 0
    _send(embedded_broker, f"{namespace}.alerts", [event.value for event in written(FINDING) if event.kind == "alert"])
    _send(embedded_broker, f"{namespace}.alerts", [b"what is no event"])
    assert [row["uid"] for row in rows("alerts")] == [FINDING.incident]
    told = call("alerts", "--json")
    assert "passed over" in told.stderr and len(json.loads(told.stdout)) == 1
    rows("label", FINDING.incident[:8], "--verdict", "false", "--reason", "a test")
    rows("suppress", "--model", "fraud", "--until", "30d", "--reason", "x")
    assert [row["state"] for row in rows("alerts")] == ["labelled"]
    assert [one["verdict"] for one in rows("labels")["labels"]] == ["false_positive"]
    following = subprocess.Popen(
        [sys.executable, "-m", "streams.cli", "alerts", "--follow", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job would ignore it
    )  # fmt: skip
    assert following.stdout is not None and following.stderr is not None
    assert json.loads(following.stdout.readline())["incident"] == FINDING.incident
    _send(embedded_broker, f"{namespace}.alerts", [e.value for one in (OTHER, UPDATED) for e in written(one)[1:]])
    assert json.loads(following.stdout.readline())["incident"] == FINDING.incident, "that about fraud is suppressed"
    following.send_signal(signal.SIGINT)
    said = following.stderr.read()
    assert following.wait(120) == 0 and "passed over" in said and said.count("\n") == 1


def _send(bootstrap: str, topic: str, values: list[bytes]) -> None:
    import asyncio

    from aiokafka import AIOKafkaProducer

    async def send() -> None:
        async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
            for value in values:
                await producer.send_and_wait(topic, value)

    asyncio.run(send())


def test_who_follows_for_hours_meets_what_was_suppressed_meanwhile(at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (alert,) = (decode_event(event.value) for event in written(FINDING) if event.kind == "alert")
    current = CurrentSuppressions(at / "out", Config())
    rows("suppress", "--model", FINDING.model, "--until", "30d", "--reason", "x", "--from", "out")
    current.refresh()
    assert not current.hides(alert), "it was read a moment ago"
    monkeypatch.setattr("streams.analyst.suppress.REREAD_S", 0.0)
    current.refresh()
    assert current.hides(alert)
    (at / "out" / "feedback.jsonl").write_bytes(b"not feedback\n")
    current.refresh()
    assert current.hides(alert), "what cannot be read stays as it was"
