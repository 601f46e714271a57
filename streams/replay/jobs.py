"""Several processes, one for each partition and one for the drift of models: the same bytes as one process."""

import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event as Asked
from pathlib import Path
from typing import NamedTuple

from detector import engine
from streams.config.config import Config
from streams.history.base import Source, SourceError
from streams.replay.checkpoint import Keeper, KeptPart
from streams.replay.fold import Fold, PartitionFold
from streams.replay.inputs import FrameRange, stretches
from streams.replay.selection import Selection
from streams.replay.settings_changes import Eras, Switch
from streams.replay.task import Outside, Pulse, Work
from streams.secrets.load import Secrets

LINK = "link"


class Plan(NamedTuple):
    """What every process needs to know.

    made_with : configurations and the folders of their artefacts, as Eras has the settings. kept_in : for checkpoints.
    run : whose they are.
    """

    made_with: Sequence[tuple[Config, Path]]
    switches: Mapping[int, Sequence[Switch]]
    secrets: Secrets
    selection: Selection
    kept_in: Path | None
    run: str
    resume: bool


def fold(
    plan: Plan,
    sources: Sequence[Source],
    parts: Sequence[FrameRange],
    count: int,
    tell: Callable[[Pulse], None],
    stops: Callable[[], bool],
) -> PartitionFold:
    """Raises SourceError; StoppedError once every process has kept how far it came."""
    spawn = multiprocessing.get_context("spawn")
    pulses: Queue[tuple[str, Pulse] | None] = spawn.Queue()
    asked = spawn.Event()
    listening = threading.Thread(target=_listen, args=(pulses, tell, stops, asked), daemon=True)
    names = [LINK, *(str(number) for number in sorted({stretch.partition for stretch in parts}))]
    with ProcessPoolExecutor(count, spawn, _begin, (plan, list(sources), pulses, asked)) as pool:
        listening.start()
        waiting = [pool.submit(_work, name) for name in names]
        try:
            found = _gathered(waiting, asked, stops)
        finally:
            asked.set()
            pulses.put(None)
            listening.join()
    return found


def _gathered(waiting: Sequence["Future[KeptPart]"], asked: Asked, stops: Callable[[], bool]) -> PartitionFold:
    """The parts added up in the order of their names, whichever is ready first."""
    for future in as_completed(waiting):
        if (error := future.exception()) is not None:
            asked.set()
            if isinstance(error, BrokenProcessPool):
                raise SourceError("--jobs: a process was killed, for want of memory perhaps; give fewer") from error
            raise error
    whole = PartitionFold.load(waiting[0].result())
    for future in waiting[1:]:
        whole.join(PartitionFold.load(future.result()))
    return whole


def _listen(
    pulses: "Queue[tuple[str, Pulse] | None]", tell: Callable[[Pulse], None], stops: Callable[[], bool], asked: Asked
) -> None:
    """Pulses of all works as one; and on the way, whether to stop."""
    latest: dict[str, Pulse] = {}
    while (entry := _next(pulses, stops, asked)) is not None:
        name, pulse = entry
        latest[name] = pulse
        judged = [one for other, one in latest.items() if other != LINK]
        clocks = [one.clock_ms for one in judged if one.clock_ms is not None]
        rows, alerts = sum(one.rows for one in judged), sum(one.alerts for one in latest.values())
        read = 0 if name == LINK else pulse.read
        tell(Pulse(read, rows, alerts, min(clocks, default=None)))


def _next(
    pulses: "Queue[tuple[str, Pulse] | None]", stops: Callable[[], bool], asked: Asked
) -> tuple[str, Pulse] | None:
    while True:
        if stops():
            asked.set()
        try:
            return pulses.get(timeout=0.1)
        except queue.Empty:
            continue


class _Here(NamedTuple):
    """What a process of the pool keeps between works."""

    plan: Plan
    sources: Sequence[Source]
    eras: Eras
    pulses: "Queue[tuple[str, Pulse] | None]"
    asked: Asked


_here: list[_Here] = []


def _begin(plan: Plan, sources: Sequence[Source], pulses: "Queue[tuple[str, Pulse] | None]", asked: Asked) -> None:
    """Once in each process."""
    from models.artefacts.store import load_artefacts
    from streams.secrets.load import trusted_keys

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process hears it, and asks
    settings = [
        engine.EngineSettings(config, load_artefacts(folder, plan.secrets.projection_seed, trusted_keys(config)))
        for config, folder in plan.made_with
    ]
    _here.append(_Here(plan, sources, Eras(settings, plan.switches), pulses, asked))


def _work(name: str) -> KeptPart:
    """One partition's clients, or the drift of all."""
    here = _here[0]
    plan = here.plan
    own = [
        stretch
        for source in here.sources
        for stretch in stretches(source, plan.selection, plan.made_with[-1][0]) or ()
        if name in (LINK, str(stretch.partition))
    ]
    folded = Fold(here.eras, plan.selection, judge=name != LINK, link=name == LINK)
    outside = Outside(lambda pulse: here.pulses.put((name, pulse)), here.asked.is_set)
    keeper = None if plan.kept_in is None else Keeper(plan.kept_in, name, plan.run)
    work = Work(folded, outside, keeper, one_of_many=True)
    if plan.resume:
        work.resume()
    return work.over_frames(own).dump()
