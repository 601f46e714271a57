"""Every command that knows --json, run on something that gives it something to say: what it printed, by command."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from typer.main import get_command
from typer.testing import CliRunner

from detector import engine
from detector.breaker.fuse import Fuse
from models.artefacts.store import Artefacts
from streams.cli import app
from streams.config.config import Config
from tests.history import benign, sweeps, write_jsonl
from tests.kafka_config import kafka_config

KEY = "5e" * 32


class Output(NamedTuple):
    """words : the command line behind `probewatch`. code : its exit code."""

    command: str
    words: tuple[str, ...]
    code: int
    value: Any


def commands() -> dict[str, Any]:
    """All of them, by the words that call them."""
    return dict(_walk(get_command(app), ()))


def _walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for name, one in command.commands.items():
            yield from _walk(one, (*words, name))
    else:
        yield " ".join(words), command


def with_json() -> set[str]:
    return {name for name, one in commands().items() if any("--json" in option.opts for option in one.params)}


class Runner:
    """Runs commands in the present folder and keeps what they print."""

    def __init__(self) -> None:
        self.outputs: list[Output] = []

    def __call__(self, command: str, *words: object, codes: tuple[int, ...] = (0,)) -> Any:
        line = (*command.split(), *map(str, words), "--json")
        result = CliRunner().invoke(app, line)
        assert result.exit_code in codes, (line, result.exit_code, result.stderr, result.exception)
        value = json.loads(result.stdout)
        self.outputs.append(Output(command, line, result.exit_code, value))
        return value


def offline(run: Runner) -> None:
    """Files alone: from calibration to a compared configuration."""
    write_jsonl(Path("benign.jsonl"), benign(400, seed=1))
    write_jsonl(Path("later.jsonl"), benign(300, seed=2, day=1))
    write_jsonl(Path("day.jsonl"), benign(60, seed=3, day=2), sweeps(2, 60, seed=4, day=2))
    with Path("day.jsonl").open("a") as log:
        log.write('{"ts": "soon", "request_id": "r", "client_id": "c", "model": "loan"}\n')
    Path("rows.csv").write_text("income,age,default\n" + "".join(f"{n}00,{n},0\n" for n in range(20, 60)))
    Path("strict.toml").write_text('[policy]\nmode = "enforce"\n[policy.soft]\nrequests_per_minute = 5\n')
    run("calibrate", "benign.jsonl", "--out", "artefacts")
    run("certify-check", "later.jsonl", "--artefacts", "artefacts", codes=(0, 1))
    run("verify", "artefacts")
    run("training-set", "rows.csv", "--leave-out", "default", "--out", "artefacts/train.set")
    run("client-id", "evil-0")
    replay = ("replay", "day.jsonl", "--artefacts", "artefacts", "--no-report", "--out")
    run(*replay, "out")
    run(*replay, "again", "--verify", "out")
    run(*replay, "strict", "--config", "strict.toml", "--verify", "out", codes=(1,))
    run(*replay, "thrice", "--what-if", "strict.toml")
    run("compare", "out", "strict")
    incident = run("alerts", "--from", "out")[0]
    client = incident["client"]
    run("alerts", incident["uid"], "--from", "out")
    run("alerts", "--each", "--from", "out")
    run("throttles", "--from", "out")
    run("throttles", incident["uid"], "--from", "out")
    run("clients", "--from", "out")
    run("clients", client, "--from", "out")
    run("explain", client, "day.jsonl", "--events", "out", "--artefacts", "artefacts")
    run("label", incident["uid"], "--verdict", "false", "--reason", "our own test", "--from", "out")
    run("alerts", incident["uid"], "--from", "out")
    run("labels", "--from", "out")
    run("compare", "out", "strict", "--labels", "out/feedback.jsonl")
    run("suppress", "--client", client, "--until", "30d", "--reason", "nightly", "--from", "out")
    run("suppressions", "--from", "out")
    run("dlq list", "--from", "out")
    run("dlq show", "--from", "out", "--record", "--raw", "day.jsonl")
    run("dlq retry", "--from", "out", "--raw", "day.jsonl", "--dry-run")


def online(run: Runner, bootstrap: str, namespace: str) -> None:
    """On a broker, without a worker: what needs none, and what `selftest` says then."""
    config = kafka_config(bootstrap, namespace)
    names = "\n".join(
        f'{name} = "{getattr(config.topics, name)}"' for name in type(config.topics).model_fields
        if name not in ("raw", "partitions", "replication")
    )  # fmt: skip
    Path("probewatch.toml").write_text(
        f'[kafka]\nbootstrap = "{bootstrap}"\ngroup = "{namespace}"\n[topics]\nraw = ["{namespace}.raw"]\n'
        f"partitions = 3\n{names}\n"
    )
    run("topics check", codes=(1,))
    run("topics create", "--raw-partitions", 2)
    run("topics acls")
    run("doctor", codes=(0, 1))
    client = run("client-id", "evil-0")["client"]
    run("allow", client, "--until", "24h", "--reason", "ticket 12")
    run("block", client, "--until", "24h", "--reason", "ticket 13")
    run("lift", client)
    asyncio.run(_decided(config))
    run("breaker show")
    run("breaker reset", "loan", "--reason", "looked at")
    run("archive write", f"kafka://{bootstrap}/{config.topics.requests}", "--out", "archive")
    run("archive erase", "archive", "--client", client)
    run("selftest", "--timeout", "1", codes=(1,))
    _rotate()
    run("rekey", f"kafka://{bootstrap}/{config.topics.raw[0]}")


async def _decided(config: Config) -> None:
    """What a judge stores that has counted decisions."""
    blocks = config.model_copy(update={"state": Config().state})
    state = engine.open_partition(engine.EngineSettings(blocks, Artefacts("", {})), 0)
    state.breakers.fuses["loan@0123"] = Fuse("", limits=[(3, False, 10, 1.6, 1_602)])
    async with AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap) as producer:
        value = engine.dump_block(state, 0)
        await producer.send_and_wait(config.topics.judge_state, value, key=b"0/0", partition=0)


def _rotate() -> None:
    """Today's key becomes the one before."""
    folder = Path("artefacts/secrets")
    (folder / "old").write_text((folder / "pseudonym_key").read_text())
    (folder / "pseudonym_key").write_text(KEY)
    text = Path("probewatch.toml").read_text()
    Path("probewatch.toml").write_text(
        text
        + '[secrets]\nkey_id = "k2"\nprevious_key_id = "k1"\nprevious_pseudonym_key_file = "artefacts/secrets/old"\n'
    )
