"""Who is meant by an alert, a request or a client, and what history knows of it.

seek(what, ...)   -> Subject: the client's keys, and the row if one is meant
Reading(...)      -> frames of sources as replay folds them, counting clients along the way
stories(...)      -> the tracing fold over a reading
"""

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from detector.engine import EngineSettings
from detector.frame import Frame, RowFrame
from detector.trace import explanation
from detector.trace.trace import Trace, follow
from models.artefacts.store import Artefacts
from models.kernels.fold.client import DAY_MS
from models.pseudonym import client_of
from models.rows import CLASSES, distinct
from probewatch_door.record import Position
from streams.analyst.desk import ID_DIGITS_MIN
from streams.analyst.events import Alert, ThrottleEvent, read_events
from streams.analyst.events import Place as Where
from streams.config.config import Config
from streams.config.input import PSEUDONYM
from streams.explain.requests import Place, SideBySide, compared, open_raw, requests_at
from streams.history.archive import Archive, ArchiveError
from streams.history.base import FrameBatch, Source, SourceError
from streams.history.sources import ArchiveFolder, RecordFile
from streams.progress import Reporter
from streams.replay.summary import Summary
from streams.secrets.load import Secrets
from streams.sketch.identity import identities, identity_of
from streams.sketch.sketcher import Sketcher

_EVENT_ID = re.compile(rf"[0-9a-f]{{{ID_DIGITS_MIN},32}}")


class ExplainTarget(NamedTuple):
    """keys : of the client, one for each pseudonym key in use. place : the row that is meant, if one is. request_id :
    or its id. model : "" for any."""

    keys: frozenset[int]
    place: Position | None = None
    request_id: str = ""
    model: str = ""


class HistoryContext(NamedTuple):
    """What is needed to read a history as `judge` does."""

    sources: Sequence[Source]
    config: Config
    artefacts: Artefacts
    secrets: Secrets
    reporter: Reporter


def seek(what: str, history: HistoryContext, events: Where) -> ExplainTarget:
    """What a person wrote: the beginning of the id of an event, incident or decision, a pseudonym, a request id, or a
    client id.

    events : where events stand, asked for their ids only. Raises SourceError if nothing in the history is called so.
    """
    if PSEUDONYM.fullmatch(what):
        return ExplainTarget(frozenset((client_of(what),)))
    if _EVENT_ID.fullmatch(what):
        found = _in_events(what, history, events)
        if found is not None:
            return found
    found = _in_requests(what, history)
    if found is None:
        raise SourceError(
            f"{what}: neither a request nor a client of this history, nor an event of {events or 'the topics'};"
            " `probewatch alerts` lists events, --events names the folder of a replay"
        )
    return found


def _in_events(what: str, history: HistoryContext, place: Where) -> ExplainTarget | None:
    """The newest event whose id, incident or decision begins so. Raises SourceError if several incidents do."""
    chosen: dict[str, ExplainTarget] = {}
    for event in read_events(place, history.config):
        if not isinstance(event, Alert | ThrottleEvent):
            continue
        ids = event.uid, event.incident, _decision_of(event)
        if any(one.startswith(what) for one in ids):
            if not event.client:
                raise SourceError(f"{what}: it is about all of model {event.model}, not about one client")
            trigger = event.trigger if isinstance(event, Alert) else event.record.trigger
            chosen[event.incident] = ExplainTarget(keys_of(event.client, history.secrets), trigger, model=event.model)
    if len(chosen) > 1:
        raise SourceError(f"{what}: {len(chosen)} incidents have an id that begins so; give more of it")
    return next(iter(chosen.values()), None)


def _decision_of(event: Alert | ThrottleEvent) -> str:
    return event.decision_id if isinstance(event, Alert) else event.uid


def keys_of(client: str, secrets: Secrets) -> frozenset[int]:
    """Of a pseudonym, or of a client id under every key in use."""
    if PSEUDONYM.fullmatch(client):
        return frozenset((client_of(client),))
    return frozenset(identity.client(client)[0] for identity in identities(secrets))


def _in_requests(what: str, history: HistoryContext) -> ExplainTarget | None:
    """A request of this id, else a client; read until the request is met."""
    keys = keys_of(what, history.secrets)
    wanted, letters, client = np.fromiter(keys, np.uint64), what.encode(), False
    for archive in _archives(history):
        with _readable():
            found = archive.request(what)
            client = client or archive.holds(keys)
        if found is not None:
            key, model = found
            return ExplainTarget(frozenset((key,)), None, what, model)
    others = [source for source in history.sources if not isinstance(source, ArchiveFolder)]
    for frame in Reading(history._replace(sources=others), f"looking for {what}").frames():
        if not isinstance(frame, RowFrame):
            continue
        if letters in frame.rows.id_bytes.tobytes():
            for row in range(frame.rows.count):
                if frame.rows.request_id(row) == what:
                    return ExplainTarget(frozenset((int(frame.rows.client[row]),)), None, what, frame.model)
        client = client or bool(np.isin(wanted, frame.rows.client).any())
    return ExplainTarget(keys) if client else None


def _archives(history: HistoryContext) -> list[Archive]:
    return [source.archive for source in history.sources if isinstance(source, ArchiveFolder)]


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except ArchiveError as error:
        raise SourceError(str(error)) from error


class Reading:
    """One reading of a history, as frames in the order and with the offsets that replay gives them.

    Shifts of populations are not made from raw records: they move no decision, only what is said of a client's drift.
    clients : archives are asked for their rows only, and the summary holds nobody else of them; empty for all.
    """

    def __init__(self, history: HistoryContext, doing: str, clients: Collection[int] = ()) -> None:
        self._history = history
        self._doing = doing
        self._clients = clients
        self.summary = Summary()

    def frames(self) -> Iterator[Frame]:
        """Raises SourceError."""
        sources, config, artefacts, secrets, reporter = self._history
        sketcher = Sketcher(artefacts, identity_of(secrets, config.input.registry), config)
        written: Counter[int] = Counter()
        for source in sources:
            advance = reporter.task(f"{self._doing}: {source.name}", source.size)
            batches = source.batches if not isinstance(source, ArchiveFolder) else partial(source.about, self._clients)
            for batch in batches(advance):
                if isinstance(batch, FrameBatch):
                    yield from map(self._counted, batch.frames)
                    continue
                found = sketcher.frames(
                    batch.topic, batch.partition, config.input.incarnation, batch.records, config.topics.partitions
                )
                for frame in found.frames:
                    yield self._counted(replace(frame, offset=written[frame.partition]))
                    written[frame.partition] += 1

    def _counted(self, frame: Frame) -> Frame:
        if isinstance(frame, RowFrame):
            self.summary.add(frame)
        return frame


class DecisionExplanation(NamedTuple):
    """A story, the place of the row it is told about, and how many clients of its class were there that day."""

    story: Trace
    row: int
    clients: int


def told(subject: ExplainTarget, history: HistoryContext) -> DecisionExplanation:
    """The subject's story: of the row that is meant, else of where its last decision fell, else of its last row.

    Raises SourceError if this history has no row of the client, or not the one that is meant.
    """
    settings = EngineSettings(history.config, history.artefacts)
    reading = Reading(history, "following the client", subject.keys)
    found = [
        story
        for story in follow(settings, reading.frames(), subject.keys).values()
        if subject.model in ("", story.model)
    ]
    if not found:
        raise SourceError("this history has no judged row of that client; name the one that the alert came from")
    story = max(found, key=lambda one: (len(one.findings), one.rows.count))
    row = row_of(story, subject)
    return DecisionExplanation(
        story, row, _there(history, reading.summary, int(story.rows.time_ms[row]) // DAY_MS, story.client_class)
    )


def _there(history: HistoryContext, summary: Summary, day: int, name: str) -> int:
    """How many clients of a class were there on a day, since 1970."""
    found = [summary.clients_on(day, name)]
    with _readable():
        for archive in _archives(history):
            found.append(archive.clients_between(day * DAY_MS, (day + 1) * DAY_MS, CLASSES.index(name)))
    return len(distinct(np.concatenate(found)))


def row_of(story: Trace, subject: ExplainTarget) -> int:
    if subject.request_id:
        return _first(
            story, "request", subject.request_id, lambda row: story.rows.request_id(row) == subject.request_id
        )
    if subject.place is not None:
        at = subject.place
        offset = f"{at.source}@{at.offset}"
        return _first(story, "row", offset, lambda row: _stands_at(story, row, at))
    ruled = [fallen.at for fallen in story.findings if fallen.at >= 0]
    return ruled[-1] if ruled else story.rows.count - 1


def _first(story: Trace, kind: str, name: str, test: Callable[[int], bool]) -> int:
    rows: Iterable[int] = (row for row in range(story.rows.count) if test(row))
    found = next(iter(rows), None)
    if found is None:
        raise SourceError(f"{kind} {name} is not in this history; name the one that it came from")
    return found


def _stands_at(story: Trace, row: int, at: Position) -> bool:
    rows = story.rows
    return (story.sources[row], int(rows.offset[row]), int(rows.index[row])) == (at.source, at.offset, at.index)


class Explanation(explanation.Telling, frozen=True, kw_only=True):
    """A decision explained. requests : the request and the nearest earlier ones, null without raw records."""

    requests: SideBySide | None


def tell(found: DecisionExplanation, history: HistoryContext) -> explanation.Telling:
    """As plain values. The hashes are those of the configuration and the artefacts that it was told with."""
    artefact = history.artefacts.models[found.story.model]
    provenance = EngineSettings(history.config, history.artefacts).provenance
    return explanation.tell(found.story, artefact, found.row, provenance, found.clients)


def side_by_side(found: DecisionExplanation, history: HistoryContext, raw: Sequence[str]) -> SideBySide | None:
    """The request that is told about and the nearest earlier ones, field by field; None where nobody may read them.

    raw : sources of raw records; without any the history's own files, if they hold such. Raises SourceError.
    """
    story = found.story
    rows = [found.row, *explanation.nearest_rows(story, found.row)]
    at = {row: Place(story.sources[row], int(story.rows.offset[row]), int(story.rows.index[row])) for row in rows}
    places = set(at.values())
    opened: list[Source] = [source for source in history.sources if isinstance(source, RecordFile)]
    if raw:
        opened = open_raw(raw, places, history.config)
    requests = requests_at(places, opened, history.reporter) if opened else {}
    shown = [row for row in rows if at[row] in requests]
    if found.row not in shown:
        return None
    seen = tuple(int(story.rows_seen[row]) for row in shown)
    return SideBySide(seen, compared([requests[at[row]] for row in shown]))
