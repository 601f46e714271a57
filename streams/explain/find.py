"""Finds what `probewatch explain` is asked about in a history, and traces it.

find_target -> ExplainTarget   which client and which row an id, a pseudonym or a client id means
trace       -> TracedDecision  the client's rows folded as `judge` folds them, with the evidence after each
explain     -> Telling         the explanation as plain values (detector/trace/explanation.py)
side_by_side -> SideBySide     the raw requests, field by field (requests.py)
"""

import contextlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from detector.engine import EngineSettings
from detector.frame import Frame, RowFrame
from detector.trace import explanation
from detector.trace.trace import Trace, follow
from models.artefacts.store import Artefacts
from models.kernels.fold.client import DAY_MS
from models.pseudonym import client_of
from models.rows import CLASSES, I64, U64, Rows, distinct
from probewatch_door.record import Position
from streams.analyst.events import Alert, ThrottleEvent, read_events
from streams.analyst.events import Place as Where
from streams.analyst.index import ID_DIGITS_MIN
from streams.config.config import Config
from streams.config.input import PSEUDONYM
from streams.explain.requests import Place, SideBySide, compared, open_raw, requests_at
from streams.history.archive import Archive, ArchiveError
from streams.history.base import FrameBatch, Source, SourceError
from streams.history.sources import ArchiveFolder, RecordFile
from streams.progress import Reporter
from streams.secrets.load import Secrets
from streams.sketch.identity import identity_of, pseudonyms_of
from streams.sketch.sketcher import Sketcher

PENDING_ROWS = 500_000
"""Rows are counted in batches: counting each frame for itself would cost more than reading it."""

_EVENT_ID = re.compile(rf"[0-9a-f]{{{ID_DIGITS_MIN},32}}")


class ExplainTarget(NamedTuple):
    """What to explain. keys : of the client, one for each pseudonym key in use. position, request_id : of the row,
    if one is meant. model : "" for any."""

    keys: frozenset[int]
    position: Position | None = None
    request_id: str = ""
    model: str = ""


class HistoryContext(NamedTuple):
    """Everything needed to read a history as `judge` does."""

    sources: Sequence[Source]
    config: Config
    artefacts: Artefacts
    secrets: Secrets
    reporter: Reporter


def find_target(name: str, history: HistoryContext, events: Where) -> ExplainTarget:
    """The client or row of that name.

    name : the beginning of the id of an alert, incident or decision; a pseudonym; a request id; a client id
    events : where alerts and decisions are looked up
    Raises SourceError if neither the events nor the history know the name.
    """
    if PSEUDONYM.fullmatch(name):
        return ExplainTarget(frozenset((client_of(name),)))
    target = _in_events(name, history, events) if _EVENT_ID.fullmatch(name) else None
    target = target or _in_history(name, history)
    if target is None:
        raise SourceError(
            f"{name}: not a request or client of this history, nor an event of {events or 'the topics'};"
            " `probewatch alerts` lists events, --events names the folder of a replay"
        )
    return target


def _in_events(name: str, history: HistoryContext, place: Where) -> ExplainTarget | None:
    """The newest event whose id, incident or decision starts with `name`. Raises SourceError for several incidents."""
    targets: dict[str, ExplainTarget] = {}
    for event in read_events(place, history.config):
        if not isinstance(event, Alert | ThrottleEvent):
            continue
        if any(uid.startswith(name) for uid in (event.uid, event.incident, _decision_of(event))):
            if not event.client:
                raise SourceError(f"{name}: the event is about all of model {event.model}, not about one client")
            trigger = event.trigger if isinstance(event, Alert) else event.record.trigger
            targets[event.incident] = ExplainTarget(keys_of(event.client, history.secrets), trigger, model=event.model)
    if len(targets) > 1:
        raise SourceError(f"{name}: ambiguous, {len(targets)} incidents have an id that starts so; give more digits")
    return next(iter(targets.values()), None)


def _decision_of(event: Alert | ThrottleEvent) -> str:
    return event.decision_id if isinstance(event, Alert) else event.uid


def keys_of(client: str, secrets: Secrets) -> frozenset[int]:
    """Keys of a pseudonym, or of a client id under every pseudonym key in use."""
    return frozenset(map(client_of, pseudonyms_of(client, secrets)))


def _in_history(name: str, history: HistoryContext) -> ExplainTarget | None:
    """The request with this id, else the client; reading stops at the request."""
    keys = keys_of(name, history.secrets)
    wanted, letters, is_client = np.fromiter(keys, np.uint64), name.encode(), False
    for archive in _archives(history):
        with _source_errors():
            request = archive.request(name)
            is_client = is_client or archive.holds(keys)
        if request is not None:
            key, model = request
            return ExplainTarget(frozenset((key,)), None, name, model)
    others = [source for source in history.sources if not isinstance(source, ArchiveFolder)]
    for frame in read_frames(history._replace(sources=others), f"looking for {name}"):
        if not isinstance(frame, RowFrame):
            continue
        if letters in frame.rows.id_bytes.tobytes():
            for row in range(frame.rows.count):
                if frame.rows.request_id(row) == name:
                    return ExplainTarget(frozenset((int(frame.rows.client[row]),)), None, name, frame.model)
        is_client = is_client or bool(np.isin(wanted, frame.rows.client).any())
    return ExplainTarget(keys) if is_client else None


def _archives(history: HistoryContext) -> list[Archive]:
    return [source.archive for source in history.sources if isinstance(source, ArchiveFolder)]


@contextlib.contextmanager
def _source_errors() -> Iterator[None]:
    try:
        yield
    except ArchiveError as error:
        raise SourceError(str(error)) from error


def read_frames(history: HistoryContext, task: str, clients: Collection[int] = ()) -> Iterator[Frame]:
    """Frames of a history, in the order and with the offsets that a replay gives them. Raises SourceError.

    clients : archives yield rows of these clients only; empty for all
    Raw records yield no shifts of populations: shifts affect drift records of a client, but no decision.
    """
    sources, config, artefacts, secrets, reporter = history
    sketcher = Sketcher(artefacts, identity_of(secrets, config.input.registry), config)
    written: Counter[int] = Counter()
    for source in sources:
        advance = reporter.task(f"{task}: {source.name}", source.size)
        batches = source.batches if not isinstance(source, ArchiveFolder) else partial(source.about, clients)
        for batch in batches(advance):
            if isinstance(batch, FrameBatch):
                yield from batch.frames
                continue
            sketched = sketcher.frames(
                batch.topic, batch.partition, config.input.incarnation, batch.records, config.topics.partitions
            )
            for frame in sketched.frames:
                yield replace(frame, offset=written[frame.partition])
                written[frame.partition] += 1


class ClientCounter:
    """Distinct clients by day and class."""

    def __init__(self) -> None:
        self._clients: dict[int, U64] = defaultdict(lambda: np.zeros(0, np.uint64))
        self._pending: list[Rows] = []
        self._rows = 0

    def counted(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The same frames; counts their rows along the way."""
        for frame in frames:
            if isinstance(frame, RowFrame):
                self._pending.append(frame.rows)
                self._rows += frame.rows.count
                if self._rows >= PENDING_ROWS:
                    self._flush()
            yield frame

    def clients(self, day: int, client_class: int) -> U64:
        """Clients of a class with a row on a day, counted from 1970; rising."""
        self._flush()
        return self._clients[_group(day, client_class)]

    def _flush(self) -> None:
        if not self._pending:
            return
        client = np.concatenate([rows.client for rows in self._pending])
        days = np.concatenate([rows.time_ms for rows in self._pending]) // DAY_MS
        classes = np.concatenate([rows.client_class for rows in self._pending]).astype(np.int64)
        groups: I64 = _group(days, np.minimum(classes, len(CLASSES) - 1))
        for group in np.unique(groups).tolist():
            self._clients[group] = distinct(np.concatenate([self._clients[group], client[groups == group]]))
        self._pending, self._rows = [], 0


def _group(day: Any, client_class: Any) -> Any:
    return day * len(CLASSES) + client_class


class TracedDecision(NamedTuple):
    """A client's trace, and the row in it to explain. clients : clients of its class on that day."""

    trace: Trace
    row: int
    clients: int


def trace(target: ExplainTarget, history: HistoryContext) -> TracedDecision:
    """Trace the target's client, at the row that is meant, else at its last decision, else at its last row.

    Raises SourceError if the history has no row of the client, or not the one that is meant.
    """
    settings = EngineSettings(history.config, history.artefacts)
    counter = ClientCounter()
    frames = counter.counted(read_frames(history, "tracing the client", target.keys))
    traces = [traced for traced in follow(settings, frames, target.keys).values() if target.model in ("", traced.model)]
    if not traces:
        raise SourceError("this history has no judged row of that client; name the history that the alert came from")
    chosen = max(traces, key=lambda traced: (len(traced.findings), traced.rows.count))
    row = row_of(chosen, target)
    day, client_class = int(chosen.rows.time_ms[row]) // DAY_MS, CLASSES.index(chosen.client_class)
    clients = [counter.clients(day, client_class)]
    with _source_errors():
        for archive in _archives(history):
            clients.append(archive.clients_between(day * DAY_MS, (day + 1) * DAY_MS, client_class))
    return TracedDecision(chosen, row, len(distinct(np.concatenate(clients))))


def row_of(traced: Trace, target: ExplainTarget) -> int:
    """The row of the target, by its place in the trace. Raises SourceError if it is not there."""
    rows = traced.rows
    if target.request_id:
        places = [row for row in range(rows.count) if rows.request_id(row) == target.request_id]
        return _first(places, f"request {target.request_id}")
    if target.position is not None:
        at = target.position
        wanted = at.source, at.offset, at.index
        places = [row for row in range(rows.count) if _position(traced, row) == wanted]
        return _first(places, f"row {at.source}@{at.offset}")
    decided = [decision.at for decision in traced.findings if decision.at >= 0]
    return decided[-1] if decided else rows.count - 1


def _first(places: Sequence[int], name: str) -> int:
    if not places:
        raise SourceError(f"{name}: not in this history; name the history that it came from")
    return places[0]


def _position(traced: Trace, row: int) -> Place:
    return Place(traced.sources[row], int(traced.rows.offset[row]), int(traced.rows.index[row]))


def explain(traced: TracedDecision, history: HistoryContext) -> explanation.Telling:
    """The explanation as plain values, with the hashes of the configuration and artefacts in use."""
    artefact = history.artefacts.models[traced.trace.model]
    provenance = EngineSettings(history.config, history.artefacts).provenance
    return explanation.tell(traced.trace, artefact, traced.row, provenance, traced.clients)


class ExplainOutput(explanation.Telling, frozen=True, kw_only=True):
    """A decision explained. requests : the request and the nearest earlier ones, null without raw records."""

    requests: SideBySide | None


def side_by_side(traced: TracedDecision, history: HistoryContext, raw: Sequence[str]) -> SideBySide | None:
    """The explained request and the nearest earlier ones, field by field; None without raw records.

    raw : sources of raw records; by default the history's own files, if they hold raw records. Raises SourceError.
    """
    rows = [traced.row, *explanation.nearest_rows(traced.trace, traced.row)]
    at = {row: _position(traced.trace, row) for row in rows}
    places = set(at.values())
    opened: list[Source] = [source for source in history.sources if isinstance(source, RecordFile)]
    if raw:
        opened = open_raw(raw, places, history.config)
    requests = requests_at(places, opened, history.config, history.reporter) if opened else {}
    shown = [row for row in rows if at[row] in requests]
    if traced.row not in shown:
        return None
    seen = tuple(int(traced.trace.rows_seen[row]) for row in shown)
    return SideBySide(seen, compared([requests[at[row]] for row in shown]))
