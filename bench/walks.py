"""Which files of the product a function is called in while one record becomes a decision, and while one is explained.

`python -m bench.walks` prints them as JSON; `make figures ARGS=--walk` counts them. It runs the real code and listens
to calls in all threads (`sys.setprofile`). A file counts if a function that stands in it is called. What runs at
import does not count, nor does making a record, whose constructor stands in no file. Compiled kernels cannot be
listened to: with each that Python calls, those count that are compiled into it, whether or not their branch is taken.

- sketch: one raw record, usual in shape, through a live worker on the embedded broker, from the time that it is sent to
  Kafka until its frame is acknowledged in `requests`.
- judge: that frame, through another worker, until throttle record and alert are acknowledged. The record is the one
  at which a client that sweeps a field is decided about for the first time.
- record: the union of both. Functions that the idle worker calls too, within five seconds, are not called because of
  the record and do not count (looks at the broker, ticks). `idle` names the files that are entered only so. Blocks of
  state are not written meanwhile: in service that follows the acknowledgement.
- explain: `probewatch explain` of that decision from a replayed file of records, all files.
- own: those of explain alone, without files of the record's way and without general ones, which are the files that
  `probewatch client-id` (settings, secrets, the command line itself) and reading artefacts and the same file of records
  from beginning to end enter.
"""

import asyncio
import contextlib
import json
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from numba.core.dispatcher import Dispatcher
from typer.testing import CliRunner

from bench.structure import PACKAGES
from models.artefacts.store import load_artefacts
from streams import replay
from streams.cli import app
from streams.config.config import Config
from streams.history.sources import open_sources
from streams.kafka import topics
from streams.kafka.broker import probe
from streams.kafka.clients import Producer
from streams.kafka.embedded import EmbeddedBroker
from streams.progress import Bars
from streams.worker.app import Worker
from streams.worker.judge import JudgeStage
from streams.worker.sink import Sink
from tests.history import benign, sweeps, write_jsonl
from tests.kafka_config import kafka_config
from tests.pipeline import RAW_PARTITIONS, Calibrated, all_handled, calibrated, read_topic, until

ROOT = Path(__file__).resolve().parents[1]
SWEPT, IDLE_S, PATIENCE_S = 60, 5.0, 120.0
TICK_S = {"sketch": 0.2, "judge": 3_600.0}
"""`judge` writes blocks by its ticks: none while a record is on its way, or chance would say whether they count."""


class Trace:
    """Functions called while it is on, in threads that began after `install` and in the one that called it."""

    def __init__(self) -> None:
        self.on = False
        self._called: set[CodeType] = set()

    def install(self) -> None:
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        kernels: Any = Dispatcher
        plain = kernels.__call__

        def listening(kernel: Any, *arguments: Any, **named: Any) -> Any:
            if self.on:
                self._called |= compiled(kernel)
            return plain(kernel, *arguments, **named)

        kernels.__call__ = listening

    def take(self) -> set[CodeType]:
        """What was called since the last time; off."""
        self.on = False
        taken, self._called = self._called, set()
        return taken

    def _profile(self, frame: FrameType, event: str, _: Any) -> None:
        if self.on and event == "call" and frame.f_code not in self._called and not _importing(frame):
            self._called.add(frame.f_code)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def compiled(kernel: Any) -> set[CodeType]:
    """A kernel and all that are compiled into it."""
    found: set[CodeType] = set()
    waiting = [kernel]
    while waiting:
        function = waiting.pop().py_func
        if function.__code__ not in found:
            found.add(function.__code__)
            named = (function.__globals__.get(name) for name in function.__code__.co_names)
            waiting += [one for one in named if isinstance(one, Dispatcher)]
    return found


def files(called: set[CodeType]) -> set[str]:
    """The product's files that these functions stand in."""
    paths = {Path(code.co_filename) for code in called if not code.co_filename.startswith("<")}
    inside = (path.relative_to(ROOT) for path in paths if path.is_relative_to(ROOT))
    return {path.as_posix() for path in inside if path.parts[0] in PACKAGES}


class Day(NamedTuple):
    """What the walks begin with. alert : id of the first one about the client that sweeps. rows_seen : its row then."""

    folder: Path
    fitted: Calibrated
    alert: str
    rows_seen: int


def prepared(folder: Path) -> Day:
    """Calibrated, and a day replayed in which one client sweeps a field."""
    fitted, day = calibrated(folder), folder / "day.jsonl"
    write_jsonl(day, benign(30, seed=2, day=1), sweeps(1, SWEPT, seed=3, day=1))
    outcome = replay.replay(replay.Plan(open_sources([str(day)], Config()), Config(), fitted.artefacts, fitted.secrets))
    replay.write(outcome, folder / "out")
    (folder / "probewatch.toml").write_text(f'artefacts = "{folder}"\nsecrets = {{ directory = "{folder}/secrets" }}\n')
    alert = json.loads((folder / "out/alerts.jsonl").read_bytes().splitlines()[0])
    return Day(folder, fitted, alert["metadata"]["uid"], alert["evidences"][0]["data"]["rows_seen"])


class Way(NamedTuple):
    """One stage's share. idle : what it calls with nothing to do, too."""

    called: set[CodeType]
    idle: set[CodeType]


async def record_walk(day: Day, bootstrap: str, trace: Trace) -> tuple[Way, Way]:
    """The ways of one record: through `sketch` into `requests`, and from there through `judge`."""
    await topics.create(before := kafka_config(bootstrap, "walk-sketch"), RAW_PARTITIONS)
    await topics.create(behind := kafka_config(bootstrap, "walk-judge"), RAW_PARTITIONS)
    rows = [row | {"request_id": f"r{number}"} for number, row in enumerate(sweeps(1, day.rows_seen, seed=3, day=1))]
    values = [json.dumps(row).encode() for row in rows]
    async with working(before, day.fitted, "sketch"):
        way = Walk(trace, before.topics.raw[0], 0)
        sketched = await way.of(before, values, Producer, "send_in_order", lambda: all_handled(before, readers=()))
    frames = await read_topic(before, before.topics.requests)
    handled: list[int] = []
    _afterwards(JudgeStage, "process", lambda batch: handled.append(len(batch.records)))
    async with working(behind, day.fitted, "judge"):
        way = Walk(trace, behind.topics.requests, frames[0].partition, frames[0].headers)

        async def all_judged() -> bool:
            return sum(handled) == len(frames) - 1

        judged = await way.of(behind, [frame.value for frame in frames], Sink, "send", all_judged)
    return sketched, judged


class Walk(NamedTuple):
    """Sends to one partition, and listens."""

    trace: Trace
    topic: str
    partition: int
    headers: Sequence[tuple[str, bytes]] = ()

    async def of(
        self, config: Config, values: Sequence[bytes], owner: type, last: str, ready: Callable[[], Awaitable[bool]]
    ) -> Way:
        """The way of the last value: from its sending until `owner.last` returns. ready : all others are handled."""
        reached = asyncio.Event()
        async with AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap, **config.kafka.client()) as producer:
            for value in values[:-1]:
                await producer.send_and_wait(self.topic, value, partition=self.partition, headers=list(self.headers))
            await until(ready, "all but the last are handled")
            self.trace.on = True
            await asyncio.sleep(IDLE_S)
            idle = self.trace.take()

            def arrived(_: Any) -> None:
                self.trace.on = False
                reached.set()

            restore = _afterwards(owner, last, arrived)
            self.trace.on = True
            await producer.send(self.topic, values[-1], partition=self.partition, headers=list(self.headers))
            await asyncio.wait_for(reached.wait(), PATIENCE_S)
            restore()
            return Way(self.trace.take(), idle)


def _afterwards(owner: type, name: str, tell: Callable[[Any], None]) -> Callable[[], None]:
    """Have an asynchronous method tell its first argument whenever it returns. Returns what ends that."""
    plain = getattr(owner, name)

    async def telling(self: Any, first: Any, *more: Any, **named: Any) -> Any:
        found = await plain(self, first, *more, **named)
        tell(first)
        return found

    setattr(owner, name, telling)
    return lambda: setattr(owner, name, plain)


@contextlib.asynccontextmanager
async def working(config: Config, fitted: Calibrated, stage: str) -> AsyncIterator[None]:
    """A worker with one stage."""
    worker = Worker(config, await probe(config.kafka), fitted.artefacts, fitted.secrets, (stage,))
    worker.runners[0].stage.tick_s = TICK_S[stage]
    asked = asyncio.Event()
    running = asyncio.create_task(worker.run(asked))
    while not worker.ready and not running.done():  # noqa: ASYNC110 readiness sets no event
        await asyncio.sleep(0.05)
    try:
        yield
    finally:
        asked.set()
        await running


def explain_walk(day: Day, trace: Trace) -> tuple[set[CodeType], set[CodeType]]:
    """What explaining the decision calls, and what general work on the same history does."""
    config, history = ("--config", str(day.folder / "probewatch.toml")), str(day.folder / "day.jsonl")
    events = ("--events", str(day.folder / "out"))
    trace.on = True
    _command("explain", day.alert, history, *events, *config)
    explained = trace.take()
    trace.on = True
    _command("client-id", "somebody", *config)
    load_artefacts(day.folder, day.fitted.secrets.projection_seed)
    with Bars() as bars:
        for source in open_sources([history], Config()):
            for _ in source.batches(bars.task("reading", source.size)):
                pass
    return explained, trace.take()


def _command(*words: str) -> None:
    result = CliRunner().invoke(app, list(words))
    if result.exit_code:
        raise RuntimeError(f"probewatch {words[0]}: {result.output}")


def walk() -> dict[str, list[str]]:
    """All of them, as sorted paths."""
    with tempfile.TemporaryDirectory(prefix="probewatch-walks-") as folder, EmbeddedBroker() as broker:
        day, trace = prepared(Path(folder)), Trace()
        trace.install()
        sketched, judged = asyncio.run(record_walk(day, broker.bootstrap, trace))
        explained, general = map(files, explain_walk(day, trace))
    sketch, judge = files(sketched.called - sketched.idle), files(judged.called - judged.idle)
    found = {
        "sketch": sketch,
        "judge": judge,
        "record": sketch | judge,
        "idle": files(sketched.idle | judged.idle) - sketch - judge,
        "explain": explained,
        "own": explained - sketch - judge - general,
    }
    return {name: sorted(paths) for name, paths in found.items()}


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):  # where a worker that nobody configured logs to
        found = walk()
    print(json.dumps(found))
