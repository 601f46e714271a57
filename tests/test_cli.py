"""The commands as a user meets them: output, exit codes, errors, files."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from typer.testing import CliRunner, Result

from models.pseudonym import client_of
from streams.cli import app
from streams.secrets.load import create_secrets
from streams.wire import frames
from tests.history import benign, lines, write_jsonl
from tests.pipeline import HANGS_S

COMMANDS = (
    "run",
    "topics create",
    "topics check",
    "topics acls",
    "doctor",
    "client-id",
    "calibrate",
    "training-set",
    "certify-check",
    "verify",
    "sign",
    "replay",
    "compare",
    "allow",
    "lift",
    "block",
    "rekey",
    "alerts",
    "throttles",
    "clients",
    "label",
    "labels",
    "suppress",
    "suppressions",
    "selftest",
    "render",
    "archive",
)


@pytest.fixture(autouse=True)
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    result = call(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"Example: probewatch {command}" in " ".join(result.stdout.split())


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    heavy = "faust", "numba", "sklearn", "pyarrow", "pydantic"
    code = f"import streams.cli, sys; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_client_id_is_stable_and_a_pseudonym_stays_itself(at: Path) -> None:
    create_secrets(at / "artefacts")
    found = call("client-id", "acct-1").stdout.strip()
    assert found.startswith("k1-")
    assert call("client-id", found).stdout.strip() == found
    assert json.loads(call("client-id", "acct-1", "--json").stdout) == {"client": found}
    assert call("client-id", "acct-2").stdout.strip() != found


def test_the_service_demands_secrets_of_its_own(at: Path) -> None:
    """Those that `calibrate` made beside the artefacts serve offline work only."""
    create_secrets(at / "artefacts")
    # A process of its own: a worker takes over logging, for good.
    result = subprocess.run(
        [sys.executable, "-m", "streams.cli", "run"], capture_output=True, text=True, timeout=HANGS_S
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert "pseudonym_key: not set" in result.stderr


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("words", [("client-id", "acct-1"), ("topics", "acls"), ("topics", "acls", "--json")])
def test_a_reader_that_leaves_is_no_error(at: Path, words: tuple[str, ...], buffered: bool) -> None:
    """As `head` does, before anything is printed: the code that shells give SIGPIPE, and not a word."""
    create_secrets(at / "artefacts")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, "-m", "streams.cli", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment | ({} if buffered else {"PYTHONUNBUFFERED": "1"}),
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert (process.stderr.read(), process.wait(240)) == ("", 141)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("client-id", "x"), "pseudonym_key: not set"),
        (("replay", "absent.jsonl", "--out", "o"), "absent.jsonl: no such file or folder"),
        (
            ("replay", "log.jsonl", "--out", "o", "--artefacts", "absent"),
            "absent: no such folder; `probewatch calibrate",
        ),
        (("replay", "log.jsonl", "--out", "o", "--config", "bad.toml"), "policy.mode: expected one of"),
        (("calibrate", "log.jsonl", "--out", "o"), "1 rejected"),
        (("allow", "x", "--until", "soon", "--reason", "r"), "--until: expected a date"),
    ],
)
def test_what_cannot_be_used_is_said_with_exit_code_2(at: Path, words: tuple[str, ...], message: str) -> None:
    (at / "log.jsonl").write_text("{}\n")
    (at / "bad.toml").write_text("[policy]\nmode = 'x'\n")
    result = call(*words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_calibrate_then_replay_needs_no_configuration(at: Path) -> None:
    write_jsonl(at / "benign.jsonl", benign(400, seed=1))
    (at / "bad.jsonl").write_bytes(b"{\n" + b"".join(lines(benign(1, seed=2))))
    fitted = call("calibrate", "benign.jsonl", "--out", "artefacts", "--json")
    assert fitted.exit_code == 0, fitted.stderr
    assert "artefacts/secrets/pseudonym_key" in fitted.stderr
    certificate = json.loads(fitted.stdout)["certificate"]
    assert [part["name"] for part in certificate["classes"]] == ["consumer", "broker", "system"]
    replayed = call("replay", "benign.jsonl", "--out", "out", "--json")
    assert replayed.exit_code == 0, replayed.stderr
    assert json.loads(replayed.stdout) == json.loads((at / "out/summary.json").read_text())
    assert json.loads(replayed.stdout)["cold"] is False


def test_a_replay_without_artefacts_says_so_loudly(at: Path) -> None:
    write_jsonl(at / "benign.jsonl", benign(400, seed=1))
    result = call("replay", "benign.jsonl", "--out", "out", "--json")
    assert result.exit_code == 0, result.stderr
    assert "COLD" in result.stderr
    assert json.loads(result.stdout)["cold"] is True


def test_doctor_names_each_fault_and_its_cure(at: Path) -> None:
    (at / "probewatch.toml").write_text('[kafka]\nbootstrap = "127.0.0.1:9"\n')
    result = call("doctor", "--json")
    assert result.exit_code == 1
    found = {check["check"]: check for check in json.loads(result.stdout)}
    assert (found["secrets"]["state"], found["broker"]["state"]) == ("fault", "fault")
    assert all(check["fix"] for check in found.values() if check["state"] == "fault")
    (at / "probewatch.toml").write_text("[kafka]\nport = 1\n[nonsense]\n")
    faults = json.loads(call("doctor", "--json").stdout)
    assert len(faults) == 2 and {fault["check"] for fault in faults} == {"configuration"}


def test_topics_doctor_and_orders_on_a_broker(at: Path, embedded_broker: str, namespace: str) -> None:
    names = "\n".join(
        f'{name} = "{namespace}.{name}"'
        for name in ("requests", "judge_state", "alerts", "throttle", "throttle_state", "feedback", "dlq")
    )
    (at / "probewatch.toml").write_text(
        f'[kafka]\nbootstrap = "{embedded_broker}"\n[topics]\npartitions = 2\nraw = ["{namespace}.raw"]\n{names}\n'
    )
    create_secrets(at / "artefacts")
    assert call("topics", "check").exit_code == 1
    assert call("topics", "create", "--raw-partitions", "1").exit_code == 0
    checked = call("topics", "check", "--json")
    assert (checked.exit_code, json.loads(checked.stdout)) == (0, [])
    states = {check["check"]: check["state"] for check in json.loads(call("doctor", "--json").stdout)}
    assert (states["broker"], states["topics"]) == ("warning", "ok")
    allowed = call("allow", "acct-1", "--until", "2031-05-01", "--reason", "red team", "--model", "loan")
    assert "written to 2 partitions" in allowed.stderr
    pseudonym = call("client-id", "acct-1").stdout.strip()
    (at / "artefacts/secrets/pseudonym_key").rename(at / "elsewhere")
    assert call("lift", "acct-1").exit_code == 2
    assert call("lift", pseudonym).exit_code == 0, "who names a pseudonym needs no keys"
    assert call("block", pseudonym, "--until", "91d", "--reason", "x").exit_code == 2, "doors would forget it"
    blocked = call("block", pseudonym, "--until", "24h", "--reason", "copies", "--json")
    assert json.loads(blocked.stdout)["partitions"] == 1
    orders = _orders(embedded_broker, f"{namespace}.requests", 5)
    home = frames.partition_of(client_of(pseudonym), 2)
    assert sorted((order.partition, order.action) for order in orders) == sorted(
        [(0, "allow"), (0, "lift"), (1, "allow"), (1, "lift"), (home, "block")]
    )
    assert all(abs(order.given_ms / 1000 - time.time()) < 60 for order in orders)
    assert {order.client for order in orders} == {client_of(pseudonym)}
    assert {(order.model, order.until_ms) for order in orders if order.action == "allow"} == {
        ("loan", 1_935_360_000_000)
    }


def _orders(bootstrap: str, topic: str, count: int) -> list[frames.ControlFrame]:
    import asyncio

    async def read() -> list[frames.ControlFrame]:
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            records = [await asyncio.wait_for(consumer.getone(), HANGS_S) for _ in range(count)]
        finally:
            await consumer.stop()
        decoded = [frames.decode(record.value, record.partition, record.offset) for record in records]
        return [frame for frame in decoded if isinstance(frame, frames.ControlFrame)]

    return asyncio.run(read())
