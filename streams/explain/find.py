"""Finds what `probewatch explain` is asked about in a history, and traces it.

find_target -> ExplainTarget   which client and which row an id, a pseudonym or a client id means
trace       -> TracedDecision  the client's rows folded as `judge` folds them, with the evidence after each
explain     -> Telling         the explanation as plain values (detector/trace/explanation.py)
side_by_side -> SideBySide     the raw requests, field by field
"""

import contextlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import msgspec
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
from streams.adapters import Formats
from streams.adapters.base import Adapter
from streams.adapters.json_text import UNREADABLE
from streams.adapters.request import Request
from streams.analyst.events import Alert, ThrottleEvent, read_events
from streams.analyst.events import Place as Where
from streams.analyst.index import ID_DIGITS_MIN
from streams.config.config import Config
from streams.config.input import PSEUDONYM
from streams.history.archive import Archive, ArchiveError
from streams.history.base import FrameBatch, RawBatch, Source, SourceError
from streams.history.sources import ArchiveFolder, RecordFile, open_sources
from streams.progress import Reporter
from streams.secrets.load import Secrets
from streams.sketch.identity import identity_of, pseudonyms_of
from streams.sketch.sketcher import RawRecord, Sketcher

CELL_CHARS = 60
NUMBERS_SHOWN = 8
PENDING_ROWS = 500_000
"""Rows are counted in batches: counting each frame for itself would cost more than reading it."""

_EVENT_ID = re.compile(rf"[0-9a-f]{{{ID_DIGITS_MIN},32}}")


class Place(NamedTuple):
    """Where a row came from. source : "topic[3]"."""

    source: str
    offset: int
    index: int  # type: ignore[assignment]  # as in Rows


class FieldDifference(msgspec.Struct, frozen=True):
    """One field of several requests. values : in their order, null where one lacks it. differs : from the first's."""

    field: str
    values: tuple[str | None, ...]
    differs: tuple[bool, ...]


class SideBySide(msgspec.Struct, frozen=True):
    """Requests of one client. rows_seen : which of its rows they are, the explained one first."""

    rows_seen: tuple[int, ...]
    fields: tuple[FieldDifference, ...]


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
        uids = (event.uid, event.incident, event.decision_id if isinstance(event, Alert) else "")
        if any(uid.startswith(name) for uid in uids):
            if not event.client:
                raise SourceError(f"{name}: the event is about all of model {event.model}, not about one client")
            trigger = event.trigger if isinstance(event, Alert) else event.record.trigger
            targets[event.incident] = ExplainTarget(keys_of(event.client, history.secrets), trigger, model=event.model)
    if len(targets) > 1:
        raise SourceError(f"{name}: ambiguous, {len(targets)} incidents have an id that starts so; give more digits")
    return next(iter(targets.values()), None)


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
        return self._clients[day * len(CLASSES) + client_class]

    def _flush(self) -> None:
        if not self._pending:
            return
        client = np.concatenate([rows.client for rows in self._pending])
        days = np.concatenate([rows.time_ms for rows in self._pending]) // DAY_MS
        classes = np.concatenate([rows.client_class for rows in self._pending]).astype(np.int64)
        groups: I64 = days * len(CLASSES) + np.minimum(classes, len(CLASSES) - 1)
        for group in np.unique(groups).tolist():
            self._clients[group] = distinct(np.concatenate([self._clients[group], client[groups == group]]))
        self._pending, self._rows = [], 0


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


def requests_at(
    places: Collection[Place], sources: Sequence[Source], config: Config, reporter: Reporter
) -> dict[Place, dict[str, str]]:
    """Fields of the requests at these places, as text, as far as the sources have them. Raises SourceError."""
    wanted: dict[tuple[str, int], list[Place]] = defaultdict(list)
    for place in places:
        wanted[place.source, place.offset].append(place)
    formats = Formats(config)
    requests: dict[Place, dict[str, str]] = {}
    for source in sources:
        for batch in source.batches(reporter.task(f"reading requests: {source.name}", source.size)):
            if not isinstance(batch, RawBatch):
                raise SourceError(f"{source.name}: frames hold no inputs; --raw takes raw records")
            name = f"{batch.topic}[{batch.partition}]"
            for record in batch.records:
                for place in wanted.get((name, record.offset), ()):
                    requests[place] = _fields(record, place.index, formats.of(batch.topic))
            if len(requests) == len(places):
                return requests
    return requests


def open_raw(specs: Sequence[str], places: Collection[Place], config: Config) -> list[Source]:
    """Sources of raw records. Of a topic given without a range only the stretch that holds the places is read."""
    opened: list[Source] = []
    for spec in specs:
        if spec.startswith("kafka://") and "?" not in spec:
            topic = spec.rstrip("/").rpartition("/")[2]
            opened += open_sources([f"{spec}?{span}" for span in _spans(topic, places)], config)
        else:
            opened += open_sources([spec], config)
    return opened


def _spans(topic: str, places: Collection[Place]) -> Iterator[str]:
    offsets: dict[str, list[int]] = defaultdict(list)
    for place in places:
        name, _, partition = place.source.rstrip("]").rpartition("[")
        if name == topic:
            offsets[partition].append(place.offset)
    for partition, there in sorted(offsets.items()):
        yield f"from={min(there)}&to={max(there) + 1}&partition={partition}"


def _fields(record: RawRecord, index: int, adapter: Adapter) -> dict[str, str]:
    """Every member of the request's JSON under its dotted name, read or not; of other text, the fields of Request."""
    elements = adapter.elements(record.value or b"")
    if index >= len(elements):
        return {}
    try:
        members = msgspec.json.decode(elements[index])
    except UNREADABLE:
        request = adapter.decode(elements[index], record.headers, frozenset())
        known = msgspec.to_builtins(request) if isinstance(request, Request) else {}
        members = {name: value for name, value in known.items() if value is not None}
    return dict(_flat(members)) if isinstance(members, dict) else {}


def _flat(members: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in members.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        elif name != "_kafka":
            yield f"{above}{name}", _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list) and len(value) > NUMBERS_SHOWN:
        return f"{len(value):,} values"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= CELL_CHARS else f"{text[: CELL_CHARS - 1]}…"


def compared(requests: Sequence[dict[str, str]]) -> tuple[FieldDifference, ...]:
    """Every field that one of them has, those that differ first."""
    names = list(dict.fromkeys(name for request in requests for name in request))
    rows = [(name, tuple(request.get(name) for request in requests)) for name in names]
    found = [FieldDifference(name, values, tuple(value != values[0] for value in values)) for name, values in rows]
    return tuple(sorted(found, key=lambda field: not any(field.differs)))
