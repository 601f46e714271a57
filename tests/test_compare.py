"""Two replays held against each other: by hand where figures can be told by hand, and as the command shows it."""

import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from streams.analyst.events import Alert, ThrottleEvent, decode_event, read_events
from streams.analyst.labels import Label
from streams.cli import app
from streams.compare import compare, read_side
from streams.compare.judged import Truth, alarms, scores
from streams.compare.minutes import held
from streams.compare.pairs import pairs
from streams.config.config import Config
from tests.history import benign, sweeps, write_jsonl
from tests.pipeline import HANGS_S, Calibrated

BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOBODY = Truth({})


def throttle(at_min: float, minutes: float, **said: Any) -> ThrottleEvent:
    """A decision that holds from `at_min` on."""
    issued = BEGIN + timedelta(minutes=at_min)
    record = {
        "schema": "probewatch.throttle/1", "decision_id": f"{said}{at_min}{minutes}", "revision": 1,
        "scope": "client", "client": "k1-a", "model": "loan", "origin": "judge", "action": "cap", "level": 2,
        "limits": {"requests_per_minute": 1, "tokens_per_minute": None, "max_concurrency": None, "delay_ms": None},
        "mode": "enforce", "reason": "sweep", "evidence_nats": 9.0, "threshold_nats": 8.0, "budget": 1e-3,
        "certified": True, "issued_at": issued, "effective_at": issued,
        "expires_at": issued + timedelta(minutes=minutes), "finding_uid": "f",
        "trigger": {"source": "gw[0]", "offset": 1, "index": 0, "request_id": "r", "rows_seen": 7},
        "config_hash": "c", "artefact_hash": "a", "engine_version": "0",
    }  # fmt: skip
    found = decode_event(json.dumps(record | said, default=str).replace("+00:00", "Z").encode())
    assert isinstance(found, ThrottleEvent)
    return found


def test_a_decision_holds_until_it_expires_or_the_next_one_takes_its_place() -> None:
    first, second = throttle(0, 60), throttle(20, 15, revision=2, level=3, reason="boundary")
    found = held([second, first])
    assert (found.union, found.enforced, found.clients) == (35.0, 35.0, 1)
    assert found.by_detector == {"sweep": 20.0, "boundary": 15.0}
    assert found.by_level == {"soft": 20.0, "hard": 15.0}
    lifted = throttle(10, 0, revision=2, action="lift", reason="person")
    assert held([first, lifted]).union == 10.0
    watched = throttle(0, 60, action="observe", level=1)
    assert (held([watched]).union, held([watched]).clients) == (0.0, 0)


def test_decisions_of_several_origins_are_counted_once_and_those_of_several_models_each() -> None:
    ours, theirs = throttle(0, 30), throttle(10, 60, origin="person", reason="person", mode="shadow")
    assert (held([ours, theirs]).union, held([ours, theirs]).enforced) == (70.0, 30.0)
    assert held([ours, throttle(0, 30, model="fraud")]).union == 60.0


def test_what_moved_is_changed_what_only_one_has_is_lost_or_new() -> None:
    here = throttle(0, 60)
    hashes = throttle(0, 60, config_hash="d", artefact_hash="b")
    assert pairs("throttle", [here], [here])[:2] == (1, [])
    assert (pairs("throttle", [here], [hashes]).same, pairs("throttle", [here], [hashes]).changed) == (1, [])
    later = throttle(3, 60, config_hash="d")
    (changed,) = pairs("throttle", [here], [later]).changed
    assert {change.field for change in changed.changes} == {"time", "effective_at", "expires_at"}
    other = throttle(3, 60, client="k1-b")
    found = pairs("throttle", [here], [other])
    assert (found.same, found.changed) == (0, [])
    assert ([one.client for one in found.lost], [one.client for one in found.new]) == (["k1-a"], ["k1-b"])
    twice = pairs("throttle", [here, later], [later])
    assert (twice.same, len(twice.lost), twice.new) == (1, 1, [])


def label(client: str, verdict: str, finding: str = "none") -> Label:
    ids = {"true_positive": 2, "false_positive": 1, "benign": 5}
    return Label(
        finding_uid=finding, event_uid="e", verdict=verdict, verdict_id=ids[verdict], reason="",  # type: ignore[arg-type]
        labelled_at=BEGIN, detectors=("sweep",), model="loan", client=client, config_hash="c", artefact_hash="a",
    )  # fmt: skip


@pytest.fixture(scope="module")
def replays(fitted: Calibrated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`now` and `now/what-if`, where a level is out of reach for the detector that finds sweeps."""
    folder = tmp_path_factory.mktemp("compare")
    write_jsonl(folder / "day.jsonl", benign(200, seed=2, day=1), sweeps(3, 60, seed=3, day=1))
    (folder / "other.toml").write_text('[policy]\nmode = "enforce"\n[policy.block]\nduration_s = 60\n')
    words = ["replay", folder / "day.jsonl", "--artefacts", fitted.folder, "--out", folder / "now"]
    result = call(*words, "--what-if", folder / "other.toml", "--evidence", 2)
    assert result.exit_code == 0, result.stderr
    return folder


def test_json_prints_one_value_or_says_so(tmp_path: Path) -> None:
    both = ("--verify", tmp_path, "--what-if", tmp_path / "other.toml")
    refused = call("replay", tmp_path / "day.jsonl", "--out", tmp_path / "out", *both, "--json")
    assert refused.exit_code == 2 and "prints one value" in refused.stderr
    assert not (tmp_path / "out").exists()


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_what_another_configuration_would_have_said(replays: Path) -> None:
    found = json.loads((replays / "now/compare.json").read_bytes())
    assert found["differs"] == ["config_hash"] and found["same_history"]
    by_kind = {kind["kind"]: kind for kind in found["events"]}
    assert by_kind["throttle"]["changed"] > 4 and by_kind["throttle"]["lost"] == by_kind["throttle"]["new"] == 0
    assert found["a"]["client_minutes"] > 2 * found["b"]["client_minutes"] > 0
    assert found["a"]["client_minutes_enforced"] == 0 < found["b"]["client_minutes_enforced"]
    fields = {change["field"] for one in found["changed"] for change in one["changes"]}
    assert {"mode", "expires_at"} <= fields
    for level in found["false_alarms"]["a"]:
        assert level["false_at_most"] == level["alarmed"] and level["expected"] > 0
    assert (replays / "now/evidence.jsonl").read_bytes().count(b"\n") == found["a"]["alerts"] > 0


def test_a_replay_against_itself_is_the_same(replays: Path) -> None:
    side = read_side(replays / "now", Config())
    found = compare(side, side, {})
    assert (found.differs, found.changed, found.lost, found.new, found.scores) == ([], [], [], [], None)
    assert [kind.same for kind in found.events] == [len(side.alerts), len(side.throttles), len(side.drifts)]


def test_labels_give_precision_and_recall_and_take_false_alarms_away(replays: Path) -> None:
    side = read_side(replays / "now", Config())
    guilty = sorted({alert.client for alert in side.alerts})
    assert len(guilty) == 3
    labels = {
        "x": label(guilty[0], "true_positive", "x"), "y": label(guilty[1], "benign", "y"),
        "z": label(guilty[2], "false_positive", "z"), "missed": label("k1-nobody", "true_positive", "missed"),
    }  # fmt: skip
    everything, *_ = scores(side.alerts, Truth(labels))
    assert (everything.detector, everything.alerted, everything.labelled, everything.false) == ("", 3, 3, 1)
    assert (everything.precision, everything.recall) == (0.6667, 0.6667)
    assert everything.precision_low is not None and everything.precision_low < 0.6667
    hard = alarms(side.summary, side.throttles, Truth(labels))[2]
    assert (hard.level, hard.alarmed, hard.not_false, hard.false_at_most) == ("hard", 3, 2, 1)
    own = {side.alerts[0].incident: label("somebody else", "false_positive", side.alerts[0].incident)}
    assert Truth(own).of(side.alerts[0]) == "false_positive" and NOBODY.of(side.alerts[0]) is None


def test_the_command_tells_people_and_programs_the_same(replays: Path) -> None:
    a, b = replays / "now", replays / "now/what-if"
    shown, told = call("compare", a, b), call("compare", a, b, "--json")
    assert (shown.exit_code, told.exit_code) == (0, 0), shown.stderr
    found = json.loads(told.stdout)
    assert found == json.loads((a / "compare.json").read_bytes())
    assert "A and B differ in config_hash" in shown.stderr
    for text in ("client-minutes limited", "sweep", "A expected false", "expires_at"):
        assert text in shown.stdout
    wrong = call("compare", a, replays)
    assert wrong.exit_code == 2 and "summary.json" in wrong.stderr


def test_verify_says_equal_or_ends_with_exit_code_1(fitted: Calibrated, replays: Path, tmp_path: Path) -> None:
    words = ["replay", replays / "day.jsonl", "--artefacts", fitted.folder, "--out", tmp_path, "--verify"]
    equal = call(*words, replays / "now", "--json")
    assert (equal.exit_code, json.loads(equal.stdout)["equal"]) == (0, True)
    other = call(*words, replays / "now/what-if")
    assert other.exit_code == 1 and "config_hash differs" in other.stderr
    events = list(read_events(tmp_path, Config()))
    assert any(isinstance(event, Alert) for event in events)


def test_ctrl_c_writes_nothing_and_the_same_command_gives_the_same_bytes(fitted: Calibrated, tmp_path: Path) -> None:
    """A process of its own, that gets a signal; then again, to the end: as if it had never been stopped."""
    write_jsonl(tmp_path / "day.jsonl", benign(9_000, seed=2, day=1), sweeps(3, 60, seed=3, day=1))
    words = ["replay", str(tmp_path / "day.jsonl"), "--artefacts", str(fitted.folder), "--out"]
    whole = call(*words, tmp_path / "whole")
    assert whole.exit_code == 0
    command = [sys.executable, "-m", "streams.cli", *words, str(tmp_path / "out")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not _hears(process.pid):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=HANGS_S)
    assert process.returncode == 130, said
    assert "stopped before anything was written" in said and not (tmp_path / "out").exists()
    assert call(*words, tmp_path / "out").exit_code == 0
    for name in ("alerts.jsonl", "throttle.jsonl", "drift.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def _hears(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM: Python has none of its own, as it has for SIGINT."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
