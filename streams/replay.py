"""History through the live functions: the same sketcher, the same fold, the same events, without a broker.

Order inside a raw partition (a file, if records carry no Kafka position) is the order of the log. Clients that stand in
several raw partitions are replayed in the order of the sources; live that order was a race, so the summary counts them.

Drift of models is folded beside it. One file in order of time is followed as `link` would, and the population's shift
goes into the fold at once; of anything else windows close at the end, since sources may cover the same time one after
the other. Archives hold what `link` wrote, where windows closed and the shifts, and none is made again.
"""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace as with_fields
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from detector import __version__, drift, engine
from detector.config import Config
from detector.finding import LEVELS, Event
from detector.frame import CloseFrame, Frame, RowFrame, ShiftFrame
from detector.printable import json_bytes
from models.artefacts import Artefacts
from models.rows import CLASSES, U8, U32, U64
from streams.identity import Identity, former_of
from streams.progress import Reporter
from streams.rejects import Reject
from streams.secrets import Secrets
from streams.sketch import Sketcher
from streams.sources import FrameBatch, RawBatch, Source, SourceError

FILES = {"alert": "alerts.jsonl", "throttle": "throttle.jsonl", "drift": "drift.jsonl"}
REJECTS_FILE, SUMMARY_FILE = "rejects.jsonl", "summary.json"


class Outcome(NamedTuple):
    """What a replay found. events : ordered by (time_ms, id). summary : as in docs/replay.md."""

    events: list[Event]
    rejects: list[Reject]
    summary: dict[str, Any]


class NamingIdentity(Identity):
    """Keeps the name behind every client key, for `--plain-clients`."""

    def __init__(self, secrets: Secrets, registry: Iterable[str]) -> None:
        former = former_of(secrets, registry)
        super().__init__(secrets.pseudonym_key, secrets.key_id, secrets.projection_seed, former=former)
        self.names: dict[int, str] = {}

    def clients_of_utf8(self, client_ids: Sequence[bytes]) -> tuple[U64, U8]:
        keys, tails = super().clients_of_utf8(client_ids)
        self.names.update(zip(keys.tolist(), map(bytes.decode, client_ids), strict=True))
        return keys, tails


def replay(
    sources: Sequence[Source],
    config: Config,
    artefacts: Artefacts,
    secrets: Secrets,
    reporter: Reporter,
    *,
    plain_clients: bool = False,
) -> Outcome:
    """Read every source to its end and judge it. Raises SourceError."""
    begun = time.perf_counter()
    run = _Replay(config, artefacts, secrets, plain_clients, len(sources) == 1)
    for source in sources:
        for batch in source.batches(reporter.task(source.name, source.size)):
            run.add(batch, source)
    return run.outcome(time.perf_counter() - begun)


def write(outcome: Outcome, out: Path) -> None:
    """The events by kind (FILES), rejects.jsonl, then summary.json; each appears complete or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    for kind, name in FILES.items():
        _write_lines(out / name, (event.value for event in outcome.events if event.kind == kind))
    _write_lines(out / REJECTS_FILE, map(json_bytes, outcome.rejects))
    _write_lines(out / SUMMARY_FILE, [msgspec.json.format(msgspec.json.encode(outcome.summary), indent=2)])


def _write_lines(path: Path, lines: Iterable[bytes]) -> None:
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("wb") as file:
        file.writelines(line + b"\n" for line in lines)
    unfinished.replace(path)


class _Replay:
    """State of one replay: partitions of the fold as `judge` has them, and what is counted along the way."""

    def __init__(
        self, config: Config, artefacts: Artefacts, secrets: Secrets, plain_clients: bool, follow: bool
    ) -> None:
        self._config = config
        self._artefacts = artefacts
        self._settings = engine.EngineSettings(config, artefacts)
        self._identity = NamingIdentity(secrets, config.input.registry)
        self._plain_clients = plain_clients
        self._sketcher = Sketcher(artefacts, self._identity, config)
        self._states: dict[int, engine.PartitionState] = {}
        self._link = drift.LinkState(drift.Settings.of(config, artefacts))
        self._follow = follow
        self._closed_by_link = False
        self._written: Counter[int] = Counter()
        self._kinds: set[type[FrameBatch] | type[RawBatch]] = set()
        self._events: list[Event] = []
        self._rejects: list[Reject] = []
        self._unjudged: Counter[str] = Counter()
        self._records = 0
        self._census = _Census()

    def add(self, batch: RawBatch | FrameBatch, source: Source) -> None:
        self._kinds.add(type(batch))
        if len(self._kinds) > 1:
            raise SourceError(f"{source.name}: records and frames cannot be replayed together; their positions differ")
        if isinstance(batch, FrameBatch):
            if self._plain_clients:
                raise SourceError(f"{source.name}: frames hold no client ids; --plain-clients needs the raw records")
            self._records += len(batch.frames) + len(batch.rejects)
            self._rejects += batch.rejects
            self._step(batch.frames)
        else:
            self._add_raw(batch, source)

    def _add_raw(self, batch: RawBatch, source: Source) -> None:
        incarnation, partitions = self._config.input.incarnation, self._config.topics.partitions
        result = self._sketcher.frames(batch.topic, batch.partition, incarnation, batch.records, partitions)
        self._records += len(batch.records)
        self._rejects += result.rejects
        self._unjudged.update(result.unjudged)
        names = self._identity.names if self._plain_clients else {}
        self._step([self._placed(frame, names) for frame in result.frames])
        if self._follow and batch.topic == source.name:
            self._close()

    def _placed(self, frame: RowFrame, names: dict[int, str]) -> RowFrame:
        """The frame with the next offset of its partition, as if it had been written to `requests`."""
        return with_fields(frame, offset=self._next(frame.partition), names=names)

    def _next(self, partition: int) -> int:
        self._written[partition] += 1
        return self._written[partition] - 1

    def _spread(self, frame: ShiftFrame | CloseFrame) -> None:
        """Into every partition, as `link` writes it."""
        for partition in range(self._config.topics.partitions):
            self._step([with_fields(frame, partition=partition, offset=self._next(partition))])

    def _step(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            state = self._states.get(frame.partition)
            if state is None:
                state = self._states[frame.partition] = engine.open_partition(self._settings, frame.partition)
            self._events += engine.step(state, frame)
            drift.step(self._link, frame)
            self._closed_by_link |= isinstance(frame, CloseFrame)
            if isinstance(frame, RowFrame):
                self._census.add(frame)

    def _close(self) -> None:
        """Close windows of drift. Of frames, those and only those that `link` has closed, if there was one."""
        raw, until_ms = RawBatch in self._kinds, drift.due(self._link)
        if until_ms is not None and raw:
            self._spread(CloseFrame(-1, -1, until_ms))
        elif until_ms is not None and not self._closed_by_link:
            self._link.cuts = dict.fromkeys(range(self._config.topics.partitions), until_ms)
        closed = drift.close(self._link)
        self._events += closed.events
        if raw:
            for shift in {shift.space: shift for shift in closed.shifts}.values():
                self._spread(shift)

    def outcome(self, seconds: float) -> Outcome:
        self._close()
        events = sorted(self._events, key=lambda event: (event.time_ms, event.id))
        rejects = Counter(reject.reason for reject in self._rejects)
        unknown = sum(state.unjudged for state in self._states.values())
        decided = [(event.client_key, _decided.decode(event.value)) for event in events if event.kind == "throttle"]
        summary = {
            "records": self._records,
            "rows": self._census.rows,
            "rejects": dict(sorted(rejects.items())),
            "unjudged": dict(sorted((self._unjudged + Counter(unknown_space=unknown)).items())),
            "skipped_rows": sum(state.skipped for state in self._states.values()),
            "evicted_clients": sum(state.evicted for state in self._states.values()),
            "clients": self._census.clients,
            "clients_in_several_raw_partitions": self._census.scattered,
            "classes": self._census.by_class(decided),
            "alerts": sum(event.kind == "alert" for event in events),
            "drifts": sum(event.kind == "drift" for event in events),
            "throttles": _by_level_and_reason(decision for _, decision in decided),
            "certified": bool(decided) and all(decision.certified for _, decision in decided),
            "cold": False,
            "config_hash": self._config.hash,
            "artefact_hash": self._artefacts.hash,
            "engine_version": __version__,
            "seconds": round(seconds, 3),
            "rows_per_s": round(self._census.rows / seconds) if seconds else 0,
        }
        return Outcome(events, sorted(self._rejects, key=attrgetter("topic", "partition", "offset", "index")), summary)


class _Decided(msgspec.Struct):
    """What the summary needs of a throttle record."""

    level: int
    reason: str
    certified: bool


_decided = msgspec.json.Decoder(_Decided)


def _by_level_and_reason(decisions: Iterable[_Decided]) -> dict[str, dict[str, int]]:
    counted = Counter((decision.level, decision.reason) for decision in decisions)
    table: dict[str, dict[str, int]] = {}
    for (level, reason), count in sorted(counted.items()):
        table.setdefault(LEVELS[level], {})[reason] = count
    return table


class _Census:
    """Who was there. One unique() a frame, so that a row costs no Python."""

    def __init__(self) -> None:
        self.rows = 0
        self._rows_by_class = np.zeros(len(CLASSES), np.int64)
        self._clients: list[U64] = []
        self._sources: list[U32] = []
        self._classes: list[U8] = []

    def add(self, frame: RowFrame) -> None:
        rows = frame.rows
        clients, first = np.unique(rows.client, return_index=True)
        self.rows += len(rows.client)
        self._rows_by_class += np.bincount(rows.klass, minlength=len(CLASSES))
        self._clients.append(clients)
        self._sources.append(rows.source[first])
        self._classes.append(rows.klass[first])

    def _distinct(self) -> dict[int, int]:
        """Client key to the class it was first seen in."""
        if not self._clients:
            return {}
        clients, first = np.unique(np.concatenate(self._clients), return_index=True)
        return dict(zip(clients.tolist(), np.concatenate(self._classes)[first].tolist(), strict=True))

    @property
    def clients(self) -> int:
        return len(self._distinct())

    @property
    def scattered(self) -> int:
        """Clients whose records stand in more than one raw partition."""
        if not self._clients:
            return 0
        pairs = np.unique(np.stack([np.concatenate(self._clients), np.concatenate(self._sources)], axis=1), axis=0)
        return int(np.count_nonzero(np.unique(pairs[:, 0], return_counts=True)[1] > 1))

    def by_class(self, decided: Iterable[tuple[int, _Decided]]) -> dict[str, dict[str, int]]:
        """For each class: clients, rows, and how many clients ever reached each rung, itself or a higher one."""
        class_of = self._distinct()
        counts = Counter(class_of.values())
        table = {
            name: {"clients": counts[index], "rows": int(self._rows_by_class[index]), **dict.fromkeys(LEVELS[1:], 0)}
            for index, name in enumerate(CLASSES)
        }
        highest: dict[int, int] = {}
        for client, decision in decided:
            highest[client] = max(decision.level, highest.get(client, 0))
        for client, top in highest.items():
            for level in LEVELS[1 : top + 1]:
                table[CLASSES[class_of[client]]][level] += 1
        return table
