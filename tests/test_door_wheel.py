"""The door's wheel in a clean environment: the sample of docs/doors.md, next to an application's own models.py.

The wheel's dependencies are copied from this environment, as its metadata names them, so that nothing is downloaded.
"""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from importlib.metadata import distribution
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from packaging.requirements import Requirement

from detector.events.encode import throttle
from probewatch_door import __version__
from probewatch_door.pseudonym import PseudonymKey, pseudonyms
from streams.kafka.embedded import EmbeddedBroker
from tests.findings import FINDING
from tests.pipeline import HANGS_S

ROOT = Path(__file__).parents[1]
KEY = PseudonymKey("k1", b"w" * 32)
TOPIC = "probewatch.throttle-state.v1"
MEGABYTES_MAX = 15
HEAVY = {"numpy", "numba", "pydantic", "faust-streaming", "pyarrow", "cryptography", "structlog"}

MODELS = "def score(features):\n    return {'score': len(features)}\n"
"""The application's own models.py: a name that the service's wheel takes, and the door's must not."""

DRIVER = """
import asyncio, importlib.util, json
import gateway, models

async def main():
    inbox, started = asyncio.Queue(), asyncio.Event()
    async def on_lifespan(message):
        assert message["type"].endswith(".complete"), message
        started.set()
    lifespan = asyncio.create_task(gateway.app({"type": "lifespan"}, inbox.get, on_lifespan))
    await inbox.put({"type": "lifespan.startup"})
    await started.wait()

    async def ask(client):
        sent = []
        async def send(message):
            sent.append(message)
        async def receive():
            return {"type": "http.request", "body": b"[1, 2]", "more_body": False}
        scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": []}
        await gateway.app(scope | {"headers": [(b"x-client-id", client.encode())]}, receive, send)
        return sent[0]["status"], sent[1]["body"].decode()

    fresh = await gateway.decisions.wait_fresh(120)
    answers = {name: await ask(name) for name in ("alice", "bob")}
    await inbox.put({"type": "lifespan.shutdown"})
    await lifespan
    absent = [name for name in ("detector", "streams", "numpy") if importlib.util.find_spec(name) is None]
    print(json.dumps({"fresh": fresh, "answers": answers, "models": models.__file__, "absent": absent}))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make wheels` does."""
    out = tmp_path_factory.mktemp("dist")
    (line,) = re.findall(r"^\t\$\(BIN\)/(uv build .* door)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    words = line.replace("$(BIN)/python", sys.executable).replace("--out-dir dist", f"--out-dir {out}").split()
    _run([Path(sys.executable).parent / words[0], *words[1:], "--offline"], ROOT)
    (built,) = out.glob("*.whl")
    return built


def _run(words: Iterable[object], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, words)), cwd=folder, env={"PATH": "/usr/bin:/bin", "HOME": str(folder), **environment},
        capture_output=True, text=True, timeout=HANGS_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _needed(requirements: Iterable[str]) -> set[str]:
    """These distributions and all that they need, without extras."""
    names: set[str] = set()
    waiting = list(requirements)
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.name in names or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found = distribution(requirement.name)
        assert requirement.specifier.contains(found.version), requirement
        names.add(requirement.name)
        waiting += found.requires or []
    return names


def _copy(names: Iterable[str], target: Path) -> int:
    """The installed files of these distributions; how many bytes."""
    copied = 0
    for name in sorted(names):
        for file in distribution(name).files or []:
            source = Path(str(file.locate()))
            if ".." in file.parts or "__pycache__" in file.parts or not source.is_file():
                continue
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target / file)
            copied += source.stat().st_size
    return copied


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        (metadata,) = [name for name in names if name.endswith("/METADATA")]
        about = message_from_bytes(packed.read(metadata))
    assert (about["Name"], about["Version"]) == ("probewatch-door", __version__)
    assert {name.split("/")[0] for name in names} == {"probewatch_door", metadata.split("/")[0]}
    assert "probewatch_door/py.typed" in names and any(name.endswith("LICENSE") for name in names)
    assert about["License-Expression"] == "Apache-2.0" and len(about.get_all("Classifier")) > 5
    service = (ROOT / "pyproject.toml").read_text()
    assert f'"probewatch-door=={__version__}"' in service, "the service takes the door of its own release"


@pytest.fixture
def own_broker() -> Iterator[str]:
    """The sample names the topic as production does; no other test may find it."""
    with EmbeddedBroker() as broker:
        yield broker.bootstrap


async def test_the_sample_runs_in_a_clean_environment(wheel: Path, tmp_path: Path, own_broker: str) -> None:
    _run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], tmp_path)
    python = tmp_path / "venv/bin/python"
    _run(
        [Path(sys.executable).parent / "uv", "pip", "install", "--offline", "--no-deps", "--python", python, wheel],
        tmp_path,
    )
    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    with zipfile.ZipFile(wheel) as packed:
        own = sum(entry.file_size for entry in packed.infolist())
        (metadata,) = [name for name in packed.namelist() if name.endswith("/METADATA")]
        needed = _needed(message_from_bytes(packed.read(metadata)).get_all("Requires-Dist"))
    assert not needed & HEAVY
    assert (own + _copy(needed, site)) / 1e6 <= MEGABYTES_MAX
    _copy(_needed(["starlette"]) - needed, site)  # the application's own

    app = tmp_path / "app"
    app.mkdir()
    page = (ROOT / "docs/doors.md").read_text()
    (app / "gateway.py").write_text(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0])
    (app / "models.py").write_text(MODELS)
    (app / "driver.py").write_text(DRIVER)
    await _block("alice", own_broker)
    output = await asyncio.to_thread(
        _run, [python, "driver.py"], app, KAFKA_BOOTSTRAP=own_broker, PROBEWATCH_PSEUDONYM_KEY=KEY.secret.hex()
    )
    result = json.loads(output)
    assert result["fresh"] and result["absent"] == ["detector", "streams", "numpy"]
    assert result["models"] == str(app / "models.py")
    assert result["answers"]["bob"] == [200, '{"score":2}']
    status, body = result["answers"]["alice"]
    assert status == 429 and json.loads(body)["violated-policies"] == ["abnormal-usage"]


async def _block(client_id: str, bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(TOPIC, 2, 1, topic_configs={"cleanup.policy": "compact"})])
    await admin.close()
    now = datetime.now(UTC)
    record = msgspec.structs.replace(
        throttle(FINDING), client=pseudonyms(client_id, [KEY])[0], action="block", mode="enforce",
        issued_at=now, effective_at=now, expires_at=now + timedelta(hours=1),
    )  # fmt: skip
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        await producer.send_and_wait(TOPIC, msgspec.json.encode(record), key=record.key.encode())
    finally:
        await producer.stop()
