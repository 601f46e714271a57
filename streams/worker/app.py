"""`probewatch run`: the stages of one worker, started, watched and stopped together.

A worker never mends itself. On the first failure, or if it stood still for longer than its session lives, it says so
and ends with exit code 1; whoever started it starts it again, and the topics hold all that it needs.
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
from streams.worker.liveness import Contact, Seen, arrival
from streams.worker.sketch import SketchStage
from streams.worker.stage import StageError, StageRunner
from streams.worker.warm import warm

if TYPE_CHECKING:
    from streams.worker.link import LinkStage

STAGES = ("sketch", "judge", "link")
STOP_S = 20.0
"""What a worker may take to write and leave, before it is ended."""

LEFT_S = 3.0
"""What leaving without writing may take, hanging up, and then what is left of the libraries: each, so 30 s in all."""

WATCH_S = 0.5
log = structlog.get_logger("probewatch")


def run_worker(config: Config, stages: Sequence[str] = STAGES) -> int:
    """Run until SIGTERM or SIGINT (exit code 0) or until something fails (1, said on standard error).

    Waits for Kafka as long as it takes. Raises SecretsError, ArtefactError.
    """
    quieten()
    secrets = load_secrets(config)
    artefacts = load_artefacts(config.artefacts, secrets.projection_seed, trusted_keys(config))
    for text in standing(config.artefacts, artefacts):
        _say(text)
    warm()  # compiling takes longer than a session lives, so not between two heartbeats
    settle()
    with asyncio.Runner() as runner:
        code = runner.run(_run(config, artefacts, secrets, stages))
        last = threading.Timer(LEFT_S, _end, (code,))  # a task may not let itself be cancelled
        last.daemon = True
        last.start()
    last.cancel()
    if any(thread.is_alive() and not thread.daemon for thread in threading.enumerate()[1:]):
        _end(code)  # a thread of Faust's consumer hangs; Python would wait for it for ever
    return code


async def _run(config: Config, artefacts: Artefacts, secrets: Secrets, stages: Sequence[str]) -> int:
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    try:
        if not await _there(config, asked):
            return 0
        features = await probe(config.kafka)
        worker = Worker(config, features, artefacts, secrets, stages)
        watchdog = Watchdog(min(config.kafka.session_timeout_s, features.session_s_max))
        watchdog.start()
        await worker.run(asked)
    except Exception as error:  # every failure ends the worker, and the operator must read why
        _say(reason(error))
        log.debug("failure", exc_info=error)
        return 1
    return 0


async def _there(config: Config, asked: asyncio.Event) -> bool:
    """Whether Kafka answered before somebody asked to stop."""
    arriving, stop = asyncio.create_task(arrival(config.kafka)), asyncio.create_task(asked.wait())
    done, waiting = await asyncio.wait({arriving, stop}, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    if arriving in done:
        arriving.result()
    return arriving in done


class Worker:
    """The stages of one process on one event loop."""

    def __init__(
        self, config: Config, features: Features, artefacts: Artefacts, secrets: Secrets, stages: Sequence[str] = STAGES
    ) -> None:
        self.metrics = Metrics()
        self._config = config
        self._features = features
        self.runners = [StageRunner(*self._stage(name, artefacts, secrets)) for name in STAGES if name in stages]
        self.contact = Contact(config, self._wanted, self._seen)
        self.health = Health(self.runners, self.metrics, self.contact)

    def _stage(self, name: str, artefacts: Artefacts, secrets: Secrets) -> tuple[Any, str, dict[str, Any]]:
        stage: SketchStage | JudgeStage | LinkStage
        if name == "sketch":
            identity = identity_of(secrets, self._config.input.registry)
            sketcher = Sketcher(artefacts, identity, self._config)
            stage = SketchStage(self._config, self._features, sketcher, self.metrics)
        elif name == "link":
            from streams.worker import link  # with river, whose import takes seconds: only this stage needs it

            stage = link.LinkStage(self._config, self._features, artefacts, self.metrics)
        else:
            settings = EngineSettings(self._config, artefacts)
            stage = JudgeStage(self._config, self._features, settings, self.metrics)
        return stage, self._config.kafka.group, stage.consumer_arguments

    @property
    def ready(self) -> bool:
        return not self.contact.away_s and all(runner.ready for runner in self.runners)

    def _wanted(self) -> tuple[list[str], list[TP]]:
        names = {name for runner in self.runners for name in runner.stage.topics}
        return sorted(names), sorted({tp for runner in self.runners for tp in runner.owned})

    def _seen(self, seen: Seen) -> None:
        for runner in self.runners:
            runner.seen(seen.ids, seen.ends)

    async def run(self, asked: asyncio.Event) -> None:
        """Until `asked` is set. Raises the first error of any stage."""
        await demand(self._config, [runner.stage.name for runner in self.runners])
        await self.health.start(self._config.web)
        log.info("started", stages=[r.stage.name for r in self.runners], on=self._features.name, at=self.health.address)
        stop = asyncio.create_task(asked.wait())
        starts = [asyncio.create_task(runner.start()) for runner in self.runners]
        watching, looking = asyncio.create_task(self._watch()), asyncio.create_task(self.contact.run())
        ends: list[asyncio.Future[Any]] = [stop, watching, looking, *(runner.failed for runner in self.runners)]
        waiting = set(ends) | set(starts)
        try:
            while not any(end.done() for end in ends):
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            for task in starts:
                task.cancel()
            await self._bounded(asyncio.gather(*(runner.stop() for runner in self.runners)), STOP_S)
            log.info("stopped")
        except BaseException:
            for task in starts:
                task.cancel()
            with contextlib.suppress(StageError):  # the first error is the one to tell
                leaving = asyncio.gather(*(runner.abandon() for runner in self.runners), return_exceptions=True)
                await self._bounded(leaving, LEFT_S)
            raise
        finally:
            helpers = (stop, watching, looking)
            for helper in helpers:
                helper.cancel()
            await asyncio.wait(helpers, timeout=LEFT_S)
            await self.health.stop()

    async def _bounded(self, stopping: "asyncio.Future[Any]", seconds: float) -> None:
        """Not `wait_for`, which waits for as long as what it cancels goes on."""
        if not (await asyncio.wait({stopping}, timeout=seconds))[0]:
            raise StageError(f"did not stop within {seconds:.0f} s; what is not written will be done again")
        stopping.result()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            self.metrics.away.set(self.contact.away_s)
            for runner in self.runners:
                if self.contact.away_s:
                    runner.reset_deadlines()
                elif (stuck := runner.overdue(WATCH_S)) is not None:
                    raise StageError(stuck)


class Watchdog(threading.Thread):
    """Ends the process if it stood still for longer than a session lives: others have its partitions by now.

    A thread of its own, since the event loop would first go on with what it was doing.
    """

    def __init__(self, session_s: float) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._session_s = session_s

    def run(self) -> None:
        seen = time.monotonic()
        while True:
            time.sleep(min(WATCH_S, self._session_s / 10))
            now = time.monotonic()
            if now - seen > self._session_s:
                _say(f"stood still for {now - seen:.1f} s, longer than kafka.session_timeout_s; others go on")
                _end(1)
            seen = now


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
    """Libraries log what brokers and clients told them."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), "\n\t")


def quieten() -> None:
    """Faust tells each step of a rebalance, and every error once for each of its services; aiokafka each attempt to
    reach a broker that is away. Ours is told once."""
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
