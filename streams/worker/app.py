"""`probewatch run`: the stages of one worker, started, watched and stopped together.

Workers fail fast: on the first error, or after a stall longer than its group session, a worker logs the cause and exits
1. A supervisor restarts it, and it resumes from Kafka.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog
from faust.types import TP

from detector.engine import EngineSettings
from detector.events.escape import printable
from models.artefacts.store import Artefacts, load_artefacts
from streams.config.config import Config
from streams.fit.certify import standing
from streams.kafka.acl_check import demand
from streams.kafka.broker import Features, probe
from streams.kafka.clients import SendError
from streams.metrics import Metrics
from streams.secrets.load import Secrets, load_secrets, trusted_keys
from streams.sketch.identity import identity_of
from streams.sketch.sketcher import Sketcher
from streams.terminal import say
from streams.worker.allocator import settle
from streams.worker.health import Health
from streams.worker.judge import JudgeStage
from streams.worker.liveness import Liveness, TopicSnapshot, wait_for_kafka
from streams.worker.sketch import SketchStage
from streams.worker.stage import StageError, StageRunner
from streams.worker.warm import warm

if TYPE_CHECKING:
    from streams.worker.link import LinkStage

STAGES = ("sketch", "judge", "link")
STOP_S = 20.0
"""Time to flush and leave the group before the process is ended."""

LEFT_S = 3.0
"""Time for each of: leaving without a flush, closing connections, shutdown of libraries. With STOP_S 30 s in all."""

WATCH_S = 0.5
log = structlog.get_logger("probewatch")


def run_worker(config: Config, stages: Sequence[str] = STAGES) -> int:
    """Run until SIGTERM or SIGINT (exit code 0) or the first error (1, with a line on standard error).

    Waits for Kafka without limit. Raises SecretsError, ArtefactError.
    """
    quieten()
    secrets = load_secrets(config)
    artefacts = load_artefacts(config.artefacts, secrets.projection_seed, trusted_keys(config))
    for text in standing(config.artefacts, artefacts):
        _say(text)
    warm()  # compiling takes longer than a session timeout, so not between two heartbeats
    settle()
    with asyncio.Runner() as runner:
        code = runner.run(_run(config, artefacts, secrets, stages))
        last = threading.Timer(LEFT_S, _end, (code,))  # a task may ignore its cancellation
        last.daemon = True
        last.start()
    last.cancel()
    if any(thread.is_alive() and not thread.daemon for thread in threading.enumerate()[1:]):
        _end(code)  # a thread of Faust's consumer hangs; Python would wait for it forever
    return code


async def _run(config: Config, artefacts: Artefacts, secrets: Secrets, stages: Sequence[str]) -> int:
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    try:
        if not await _kafka_responds(config, asked):
            return 0
        features = await probe(config.kafka)
        worker = Worker(config, features, artefacts, secrets, stages)
        watchdog = Watchdog(min(config.kafka.session_timeout_s, features.session_s_max))
        watchdog.start()
        await worker.run(asked)
    except Exception as error:  # every failure ends the worker, and the operator needs the cause
        _say(reason(error))
        log.debug("failure", exc_info=error)
        return 1
    return 0


async def _kafka_responds(config: Config, asked: asyncio.Event) -> bool:
    """False if the worker is asked to stop before Kafka responds."""
    responds, stop = asyncio.create_task(wait_for_kafka(config.kafka)), asyncio.create_task(asked.wait())
    done, waiting = await asyncio.wait({responds, stop}, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    if responds in done:
        responds.result()
    return responds in done


class Worker:
    """The stages of one process on one event loop."""

    def __init__(
        self, config: Config, features: Features, artefacts: Artefacts, secrets: Secrets, stages: Sequence[str] = STAGES
    ) -> None:
        self.metrics = Metrics()
        self._config = config
        self._features = features
        self._begun: list[StageRunner] = []
        self.liveness = Liveness(config, self._wanted, self._check_topics)
        self.runners = [StageRunner(*self._stage(name, artefacts, secrets)) for name in STAGES if name in stages]
        self.health = Health(self.runners, self.metrics, self.liveness, config.web)

    def _stage(self, name: str, artefacts: Artefacts, secrets: Secrets) -> tuple[Any, str, dict[str, Any]]:
        stage: SketchStage | JudgeStage | LinkStage
        away_s = self.liveness.away_s
        if name == "sketch":
            identity = identity_of(secrets, self._config.input.registry)
            sketcher = Sketcher(artefacts, identity, self._config)
            stage = SketchStage(self._config, self._features, sketcher, self.metrics, away_s)
        elif name == "link":
            from streams.worker import link  # with river, whose import takes seconds: only this stage needs it

            stage = link.LinkStage(self._config, self._features, artefacts, self.metrics, away_s)
        else:
            settings = EngineSettings(self._config, artefacts)
            stage = JudgeStage(self._config, self._features, settings, self.metrics, away_s)
        return stage, self._config.kafka.group, stage.consumer_arguments

    @property
    def ready(self) -> bool:
        return not self.liveness.unavailable_s and all(self.health.serves(runner) for runner in self.runners)

    def _wanted(self) -> tuple[list[str], list[TP]]:
        names = {name for runner in self.runners for name in runner.stage.topics}
        return sorted(names), sorted({tp for runner in self.runners for tp in runner.owned})

    def _check_topics(self, snapshot: TopicSnapshot) -> None:
        for runner in self.runners:
            runner.log_ends = snapshot.ends
            runner.check_topic_ids(snapshot.ids)

    async def run(self, asked: asyncio.Event) -> None:
        """Run until `asked` is set. Raises the first error of any stage."""
        await demand(self._config, [runner.stage.name for runner in self.runners])
        await self.health.start()
        log.info("started", stages=[r.stage.name for r in self.runners], on=self._features.name, at=self.health.address)
        stop = asyncio.create_task(asked.wait())
        starts = [asyncio.create_task(self._start(runner)) for runner in self.runners]
        watching, looking = asyncio.create_task(self._watch()), asyncio.create_task(self.liveness.run())
        ends: list[asyncio.Future[Any]] = [stop, watching, looking, *(runner.failed for runner in self.runners)]
        waiting = set(ends) | set(starts)
        try:
            while not any(end.done() for end in ends):
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            for task in starts:
                task.cancel()
            await self._bounded(asyncio.gather(*(runner.stop() for runner in self._begun)), STOP_S)
            log.info("stopped")
        except BaseException:
            for task in starts:
                task.cancel()
            with contextlib.suppress(StageError):  # the first error is the one to report
                leaving = asyncio.gather(*(runner.abandon() for runner in self._begun), return_exceptions=True)
                await self._bounded(leaving, LEFT_S)
            raise
        finally:
            helpers = (stop, watching, looking)
            for helper in helpers:
                helper.cancel()
            await asyncio.wait(helpers, timeout=LEFT_S)
            await self.health.stop()

    async def _start(self, runner: StageRunner) -> None:
        """Not before its raw topics exist: some brokers make a topic as soon as somebody asks for it."""
        await self.liveness.until_there({*runner.stage.topics} & {*self._config.topics.raw})
        self._begun.append(runner)
        await runner.start()

    async def _bounded(self, stopping: "asyncio.Future[Any]", seconds: float) -> None:
        """Not `wait_for`, which waits until what it cancels has ended."""
        if not (await asyncio.wait({stopping}, timeout=seconds))[0]:
            raise StageError(f"did not stop within {seconds:.0f} s; unflushed records will be reprocessed")
        stopping.result()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            self.metrics.unavailable.set(self.liveness.unavailable_s)
            for runner in self._begun:
                if self.liveness.unavailable_s:
                    runner.reset_deadlines()
                elif (overdue := runner.overdue(WATCH_S)) is not None:
                    raise StageError(overdue)


class Watchdog(threading.Thread):
    """Ends the process after a stall longer than the session timeout: other workers own its partitions by then.

    A thread of its own, since the event loop would first continue what it was doing.
    """

    def __init__(self, session_s: float) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._session_s = session_s

    def run(self) -> None:
        before = time.monotonic()
        while True:
            time.sleep(min(WATCH_S, self._session_s / 10))
            now = time.monotonic()
            if now - before > self._session_s:
                _say(f"stalled for {now - before:.1f} s, longer than kafka.session_timeout_s; other workers take over")
                _end(1)
            before = now


def reason(error: BaseException) -> str:
    """One line for the operator."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = str(error)
    return (
        text
        if isinstance(error, (StageError, SendError))
        else f"{type(error).__name__}: {text}"
        if text
        else repr(error)
    )


class PrintableFormatter(logging.Formatter):
    """Libraries log text from brokers and clients: escape control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), "\n\t")


def quieten() -> None:
    """Silence libraries. Faust logs each step of a rebalance, and every error once for each of its services; aiokafka
    logs each attempt to reach an unavailable broker. The worker reports each error once itself.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    for name in (
        "aiokafka",
        "faust",
        "mode",
        "streams.kafka.faust_batches",
    ):  # mode names loggers after the module of the subclass
        logging.getLogger(name).setLevel(logging.CRITICAL)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _say(text: str) -> None:
    say(f"probewatch: {text}")


def _end(code: int) -> None:
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(code)
