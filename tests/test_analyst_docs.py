"""docs/analyst.md is walked through: every command, in its order, on a worker that runs, with two sweepers on it."""

import asyncio
import json
import re
import shlex
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
from typer.testing import CliRunner

from streams.cli import app
from streams.kafka.broker import probe
from streams.secrets.load import load_settings
from streams.worker.app import Worker
from tests.history import BEGIN_S, DAY_S, benign, sweeps
from tests.kafka_config import config_text, kafka_config
from tests.pipeline import HANGS_S, Calibrated, write_raw

PAGE = (Path(__file__).parents[1] / "docs/analyst.md").read_text()
INCIDENT, CLIENT, BROKER = "3f9ad1c07b2e", "k1-m4zqhx2trn5vj7wkepyb3gd6ua", "localhost:9092"
REQUESTS = "probewatch.requests.v1"


class Said(NamedTuple):
    """A line of the page, and what it printed. sample : what the page shows of it, "" for nothing."""

    line: str
    text: str
    sample: str


def call(*words: str) -> str:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, (words, result.stderr, result.exception)
    return result.stdout


def listed(*words: str) -> Any:
    return json.loads(call(*words, "--json"))


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory, embedded_broker: str, fitted: Calibrated) -> Iterator[list[Said]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("desk"))
        requests = configure(embedded_broker, fitted)
        with Working(fitted) as worker:
            incident = attack(embedded_broker, worker)
            places = {INCIDENT: incident["uid"], CLIENT: incident["client"]}
            places |= {BROKER: embedded_broker, REQUESTS: requests}
            yield [walk(line, sample, places) for line, sample in lines()]


class Working:
    """A worker on a thread of its own: commands have event loops themselves."""

    def __init__(self, fitted: Calibrated) -> None:
        self._fitted = fitted
        self._asked = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    async def _run(self) -> None:
        config = load_settings(None)
        worker = Worker(config, await probe(config.kafka), self._fitted.artefacts, self._fitted.secrets)
        await worker.run(self._asked)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._asked.set)
        self.thread.join(20)


def configure(bootstrap: str, fitted: Calibrated) -> str:
    """A configuration, artefacts and topics in this folder; the name of the topic of frames."""
    config = kafka_config(bootstrap, "analyst")
    settings = config_text(config, "artefacts")
    (toml,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    Path("probewatch.toml").write_text(settings)
    Path("gentle.toml").write_text(settings + toml)
    shutil.copytree(fitted.folder, "artefacts")
    call("topics", "create", "--raw-partitions", "2")
    return config.topics.requests


def attack(bootstrap: str, worker: Working) -> Any:
    """An ordinary day, then two sweepers until now; one of their incidents, once it has become a block."""
    late = time.time() - BEGIN_S - 1.5 * DAY_S - 100
    rows = [*benign(100, seed=5), *sweeps(2, 60, seed=6, day=1)]
    config = kafka_config(bootstrap, "analyst")
    asyncio.run(write_raw(config, [row | {"ts": row["ts"] + late} for row in rows]))
    deadline = time.monotonic() + HANGS_S
    while len(found := [one for one in listed("alerts") if one["level"] == 4]) < 2:
        assert worker.thread.is_alive() and time.monotonic() < deadline, "no alerts"
        time.sleep(0.5)
    return found[0]


def lines() -> Iterator[tuple[str, str]]:
    """Each command of the page, the last of a block with the sample behind it."""
    for block, sample in re.findall(r"```sh\n(.*?)```(?:\n\n```text\n(.*?)```)?", PAGE, re.DOTALL):
        *first, last = block.strip().splitlines()
        yield from ((line, "") for line in first)
        yield last, sample


def walk(line: str, sample: str, places: dict[str, str]) -> Said:
    command = line
    for example, real in places.items():
        command = command.replace(example, real)
    program, *words = shlex.split(command)
    assert program == "probewatch"
    if line.startswith("probewatch throttles"):
        until_lifted(words)
    return Said(line, call(*words), sample)


def until_lifted(words: list[str]) -> None:
    deadline = time.monotonic() + HANGS_S
    while listed(*words)[-1]["action"] != "lift":
        assert time.monotonic() < deadline, "the lift took nothing back"
        time.sleep(0.3)


def test_each_command_does_what_the_page_says(said: list[Said]) -> None:
    assert len(said) == 11
    by_line = {one.line.split()[1]: one for one in said}
    assert {"alerts", "explain", "label", "labels", "lift", "throttles", "archive", "replay", "compare"} == set(by_line)
    assert all(one.text for one in said if one.line.split()[1] not in ("label", "lift"))
    assert "lift" in by_line["throttles"].text
    assert re.search(r"sweep\s+1\s+0\s+0\s+1\s+1\.0\s+0\.2065\s+1\.0", by_line["labels"].text)


def test_samples_have_the_columns_of_what_is_printed(said: list[Said]) -> None:
    samples = [one for one in said if one.sample]
    assert len(samples) == 2
    for one in samples:
        header = re.split(r"\s{2,}", one.sample.splitlines()[0].strip())
        printed = [re.split(r"\s{2,}", line.strip()) for line in one.text.splitlines()]
        assert header in printed, one.line


def test_the_list_shows_the_label_and_what_is_in_force(said: list[Said]) -> None:
    states = {one["verdict"]: one for one in listed("alerts")}
    assert (states["false_positive"]["state"], states["false_positive"]["action"]) == ("labelled", "")
    assert (states[""]["state"], states[""]["action"]) == ("open", "cap")


def test_the_replay_is_what_was_live_and_the_other_differs(said: list[Said]) -> None:
    live = {one["decision_id"]: one for one in listed("throttles")}
    asis = {one["decision_id"]: one for one in listed("throttles", "--from", "asis")}
    assert asis == live and len(live) > 2, "two blocks and a lift"
    found = listed("compare", "asis", "gentle", "--labels", "kafka")
    assert found["same_history"] and found["differs"] == ["config_hash"]
    changed = [change for one in found["changed"] for change in one["changes"]]
    assert any("'requests_per_minute': 5" in change["b"] for change in changed), changed
    assert found["labelled"] == 1
