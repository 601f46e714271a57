"""Several processes, one partition each at a time, and one for `link`: the same bytes as one process.

The findings of a finished partition are kept in a file, under a fingerprint of all that they depend on, until the
replay as a whole is written. A second run of a replay that was stopped takes them over.
"""

import multiprocessing
import queue
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event as StopEvent
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

import msgspec
import numpy as np
import zstandard

from detector import __version__, engine
from models.artefacts.store import load_artefacts
from models.hashes import short_hash
from streams import files
from streams.config.config import Config
from streams.history.archive import Archive
from streams.history.base import Source, SourceError
from streams.history.sources import ArchiveFolder
from streams.replay.fold import Findings, Fold
from streams.replay.inputs import Plan, frame_ranges
from streams.replay.link import ReplayedLink
from streams.replay.outcome import Outcome, outcome
from streams.replay.run import StoppedError, Watch, progress_line, read_frames
from streams.replay.selection import Selection
from streams.replay.settings_changes import SettingsHistory, Switch
from streams.secrets.load import Secrets, trusted_keys

LINK = "link"
FOLDER = "unfinished"

ProgressQueue: TypeAlias = "Queue[tuple[str, int, int, int, int | None] | None]"
"""Name of a task, then what run.Tell takes; None at the end."""


class _Shared(NamedTuple):
    """What every process needs: the plan, with folders in place of artefacts. keep_in : for finished partitions."""

    sources: Sequence[Source]
    configs: Sequence[Config]
    folders: Sequence[Path]
    switches: Mapping[int, Sequence[Switch]]
    secrets: Secrets
    selection: Selection
    keep_in: Path | None


def replay(plan: Plan, folders: Sequence[Path], count: int, out: Path) -> Outcome:
    """`run.replay` in several processes.

    folders : of the artefacts of each of plan.settings. count : processes. out : finished partitions are kept below it
    if all sources are archives (a topic grows, so partitions of two runs may not fit together).

    Raises SourceError for raw records; StoppedError once every process has stopped.
    """
    begun = time.perf_counter()
    ranges = frame_ranges(plan)
    if ranges is None:
        raise SourceError(
            f"{plan.sources[0].name}: --jobs needs frames; raw records are read in one order, by one process"
        )
    archives = [source.archive for source in plan.sources if isinstance(source, ArchiveFolder)]
    keep_in = out / FOLDER / _fingerprint(plan, archives) if len(archives) == len(plan.sources) else None
    forget(out, but=keep_in)
    configs = [cast(Config, each.config) for each in plan.settings.settings]
    shared = _Shared(
        list(plan.sources), configs, folders, plan.settings.switches, plan.secrets, plan.selection, keep_in
    )
    names = [LINK, *(str(number) for number in sorted({part.partition for part in ranges}))]
    return outcome(_in_processes(shared, names, count, plan), plan.settings, time.perf_counter() - begun)


def forget(out: Path, but: Path | None = None) -> None:
    """Remove the finished partitions of stopped replays, except those in one folder."""
    for path in sorted((out / FOLDER).glob("*/*")):
        if path.parent != but:
            path.unlink()
    for folder in [*sorted((out / FOLDER).glob("*")), out / FOLDER]:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def kept(out: Path) -> int:
    """How many finished partitions the next run can take over."""
    return sum(path.stem != LINK for path in (out / FOLDER).glob("*/*.zst"))


def _fingerprint(plan: Plan, archives: Sequence[Archive]) -> str:
    """Of everything that findings depend on."""
    parts = (
        [(archive.folder.name, archive.manifest, archive.size) for archive in archives],
        [(each.config.hash, each.artefacts.hash) for each in plan.settings.settings],
        plan.settings.switches, plan.config.topics.partitions, plan.config.state.blocks,
        plan.selection._replace(clients=frozenset()), sorted(plan.selection.clients), __version__,
    )  # fmt: skip
    return short_hash(repr(parts).encode(), 32)


def _in_processes(shared: _Shared, names: Sequence[str], count: int, plan: Plan) -> Findings:
    spawn = multiprocessing.get_context("spawn")
    progress: ProgressQueue = spawn.Queue()
    stop = spawn.Event()
    listener = threading.Thread(target=_listen, args=(progress, plan, stop), daemon=True)
    with ProcessPoolExecutor(count, spawn, _begin, (shared, progress, stop)) as pool:
        listener.start()
        tasks = [pool.submit(_run_task, name) for name in names]
        try:
            return _joined(tasks, stop)
        finally:
            stop.set()
            progress.put(None)
            listener.join()


def _joined(tasks: Sequence["Future[Findings]"], stop: StopEvent) -> Findings:
    """In the order of the tasks, whichever is finished first."""
    for task in as_completed(tasks):
        if (error := task.exception()) is not None:
            stop.set()
            if isinstance(error, BrokenProcessPool):
                raise SourceError("--jobs: a process was killed, perhaps for lack of memory; give fewer") from error
            raise error
    whole = tasks[0].result()
    for task in tasks[1:]:
        whole.join(task.result())
    return whole


def _listen(progress: ProgressQueue, plan: Plan, stop: StopEvent) -> None:
    """Reports the progress of all tasks as one, and passes on the request to stop."""
    tell = progress_line(plan)
    latest: dict[str, tuple[int, int, int | None]] = {}
    while (entry := _next(progress, plan.stops, stop)) is not None:
        name, read, rows, alerts, clock_ms = entry
        latest[name] = rows, alerts, clock_ms
        clocks = [clock for _, _, clock in latest.values() if clock is not None]
        # The task of `link` reads again what the others read, and folds no rows.
        tell(
            0 if name == LINK else read,
            sum(rows for rows, _, _ in latest.values()),
            sum(alerts for _, alerts, _ in latest.values()),
            min(clocks, default=None),
        )


def _next(
    progress: ProgressQueue, stops: Callable[[], bool], stop: StopEvent
) -> tuple[str, int, int, int, int | None] | None:
    while True:
        if stops():
            stop.set()
        try:
            return progress.get(timeout=0.1)
        except queue.Empty:
            continue


class _Process(NamedTuple):
    """What a process of the pool keeps between tasks."""

    plan: Plan
    keep_in: Path | None
    progress: ProgressQueue
    stop: StopEvent


_process: list[_Process] = []


def _begin(shared: _Shared, progress: ProgressQueue, stop: StopEvent) -> None:
    """Once in each process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process hears it, and sets `stop`
    settings = [
        engine.EngineSettings(config, load_artefacts(folder, shared.secrets.projection_seed, trusted_keys(config)))
        for config, folder in zip(shared.configs, shared.folders, strict=True)
    ]
    plan = Plan(
        shared.sources, shared.configs[-1], settings[-1].artefacts, shared.secrets, shared.selection,
        changes=SettingsHistory(settings, shared.switches),
    )  # fmt: skip
    _process.append(_Process(plan, shared.keep_in, progress, stop))


def _run_task(name: str) -> Findings:
    """The clients of one partition, or all folds of `link`."""
    plan, keep_in, progress, stop = _process[0]
    path = None if keep_in is None else keep_in / f"{name}.zst"
    if path is not None and (finished := _load(path)) is not None:
        progress.put((name, 0, finished.rows, finished.alerts, finished.clock_ms))
        return finished
    if stop.is_set():
        raise StoppedError
    findings = Findings()
    fold = (ReplayedLink if name == LINK else Fold)(plan.settings, plan.selection, findings)
    ranges = [part for part in frame_ranges(plan) or () if name in (LINK, str(part.partition))]
    watch = Watch(findings, lambda *state: progress.put((name, *state)), stop.is_set)
    read_frames(ranges, [fold], watch)
    fold.finish()
    if path is not None:
        _store(path, findings)
    return findings


def _store(path: Path, findings: Findings) -> None:
    packed = msgspec.msgpack.encode(findings, enc_hook=_packed_array)
    files.write(path, zstandard.ZstdCompressor(write_checksum=True).compress(packed))


def _load(path: Path) -> Findings | None:
    """None for a file that is missing or damaged: the partition is folded again."""
    try:
        packed = zstandard.ZstdDecompressor().decompress(path.read_bytes())
        return msgspec.msgpack.decode(packed, type=Findings, dec_hook=_unpacked_array)
    except (FileNotFoundError, zstandard.ZstdError, msgspec.MsgspecError):
        return None


def _packed_array(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        raise NotImplementedError
    return value.dtype.str, value.shape, value.tobytes()


def _unpacked_array(kind: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return Counter(value)
    dtype, shape, content = value
    return np.frombuffer(content, dtype).reshape(shape)
