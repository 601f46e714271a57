"""A replay from its sources to its outcome."""

import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, cast

from detector import __version__, engine
from models.artefacts.store import Artefacts
from streams.config.config import Config
from streams.history.base import Source, SourceError
from streams.progress import Advance, Reporter
from streams.replay import jobs
from streams.replay.checkpoint import Keeper, fingerprint, forget
from streams.replay.evidence import Gathering
from streams.replay.fold import Fold
from streams.replay.inputs import FrameRange, stretches
from streams.replay.outcome import Outcome, outcome
from streams.replay.records import Records
from streams.replay.selection import EVERYTHING, Selection
from streams.replay.settings_changes import Eras
from streams.replay.task import Outside, Pulse, Work
from streams.secrets.load import Secrets

WHOLE = "replay"
"""Name of the only work of a run without `jobs`."""


class Options(NamedTuple):
    """How history is replayed; whatever it says, events have the same bytes.

    plain_clients : the log's client ids instead of pseudonyms. selection : what is told. kept_in : folder for
    checkpoints, None for none; resume : go on from them. eras : settings over time, if they changed. jobs : processes;
    more than one needs frames, and folders : of the artefacts of each of the settings. stops : asked now and then.
    """

    plain_clients: bool = False
    selection: Selection = EVERYTHING
    kept_in: Path | None = None
    resume: bool = False
    eras: Eras | None = None
    jobs: int = 1
    folders: Sequence[Path] = ()
    stops: Callable[[], bool] = lambda: False


DEFAULTS = Options()


def replay(
    sources: Sequence[Source],
    config: Config,
    artefacts: Artefacts,
    secrets: Secrets,
    reporter: Reporter,
    options: Options = DEFAULTS,
) -> Outcome:
    """Read every source to its end and judge it.

    Raises SourceError, CheckpointError; StoppedError if it was asked to stop, having kept how far it came.
    """
    begun = time.perf_counter()
    eras = _eras(config, artefacts, options)
    parts = _stretches(sources, config, options)
    run = fingerprint(
        [(source.name, source.size) for source in sources], [(s.config.hash, s.artefacts.hash) for s in eras.settings],
        eras.switches, config.topics.partitions, config.state.blocks, options.selection, options.plain_clients,
        options.jobs > 1, __version__,
    )  # fmt: skip
    if options.kept_in is not None and not options.resume:
        forget(options.kept_in)
    if parts is not None and options.jobs > 1:
        made = [(cast(Config, one.config), folder) for one, folder in zip(eras.settings, options.folders, strict=True)]
        plan = jobs.Plan(made, eras.switches, secrets, options.selection, options.kept_in, run, options.resume)
        found = jobs.fold(plan, sources, parts, options.jobs, _Teller(sources, reporter), options.stops)
    elif options.jobs > 1:
        raise SourceError(f"{sources[0].name}: --jobs needs frames; raw records are read in one order, by one process")
    else:
        fold = Fold(eras, options.selection)
        records = None if parts is not None else Records(config, artefacts, secrets, fold, options.plain_clients)
        keeper = None if options.kept_in is None else Keeper(options.kept_in, WHOLE, run)
        work = Work(fold, Outside(_Teller(sources, reporter), options.stops), keeper, records)
        if options.resume:
            work.resume()
        found = work.over_frames(parts) if parts is not None else work.over_sources(sources, options.plain_clients)
    return outcome(found, eras, time.perf_counter() - begun)


def gather(
    sources: Sequence[Source],
    config: Config,
    artefacts: Artefacts,
    secrets: Secrets,
    reporter: Reporter,
    clients: Collection[int],
    options: Options = DEFAULTS,
) -> Gathering:
    """The frames of some clients, read once more, as the replay folded them. Raises SourceError, StoppedError."""
    eras = _eras(config, artefacts, options)
    narrowed = options.selection._replace(clients=frozenset(clients))
    parts = _stretches(sources, config, options._replace(selection=narrowed))
    gathering = Gathering(eras, frozenset(clients), link=parts is None)
    records = None if parts is not None else Records(config, artefacts, secrets, gathering, options.plain_clients)
    work = Work(gathering, Outside(_Teller(sources, reporter), options.stops), None, records)
    work.over_frames(parts) if parts is not None else work.over_sources(sources, options.plain_clients)
    return gathering


def settings_of(config: Config, artefacts: Artefacts, options: Options) -> engine.EngineSettings:
    """The newest."""
    return _eras(config, artefacts, options).newest


def _eras(config: Config, artefacts: Artefacts, options: Options) -> Eras:
    return options.eras or Eras([engine.EngineSettings(config, artefacts)])


def _stretches(sources: Sequence[Source], config: Config, options: Options) -> list[FrameRange] | None:
    """By partition, then in the order of the sources; None if any of them holds raw records."""
    found: list[FrameRange] = []
    for source in sources:
        own = stretches(source, options.selection, config)
        if own is None:
            if options.selection.first is not None or options.selection.end is not None:
                raise SourceError(
                    f"{source.name}: --from and --to are offsets in `requests`, and these are raw records; give --since"
                    " and --until, or ?from=OFFSET&to=OFFSET in the address of a topic"
                )
            return None
        if options.plain_clients:
            raise SourceError(f"{source.name}: frames hold no client ids; --plain-clients needs the raw records")
        found += own
    return sorted(found, key=lambda stretch: stretch.partition)


class _Teller:
    """Pulses of one or more works as one line of progress: rows, rate, event time, alerts."""

    def __init__(self, sources: Sequence[Source], reporter: Reporter) -> None:
        sizes = [source.size for source in sources]
        known = [size for size in sizes if size is not None]
        name = sources[0].name if len(sources) == 1 else f"{len(sources)} sources"
        self._reporter = reporter
        self._advance: Advance = reporter.task(name, sum(known) if len(known) == len(sizes) else None)
        self._begun = time.monotonic()

    def __call__(self, pulse: Pulse) -> None:
        rate = pulse.rows / max(1e-3, time.monotonic() - self._begun)
        clock = "" if pulse.clock_ms is None else f" · {datetime.fromtimestamp(pulse.clock_ms / 1000, UTC):%F %H:%M}"
        self._reporter.tell(f"{_short(pulse.rows)} rows · {_short(rate)}/s{clock} · {_short(pulse.alerts)} alerts")
        self._advance(pulse.read)


def _short(number: float) -> str:
    """Three digits or four: a line has to hold all of it."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:.0f}"
