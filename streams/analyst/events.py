"""Events read back: alerts, throttle records and drift records, from a replay's folder, a file, or the topics.

The kind of an event follows from its value, so a file may hold several kinds. Topics deliver at least once; readers get
each event once.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
import structlog

from detector.drift.records import DRIFT, DriftRecord
from detector.events.encode import moment
from detector.events.ocsf import CLASS_UID
from models.errors import UserError
from probewatch_door.record import Position, Time
from probewatch_door.record import Throttle as ThrottleRecord
from streams.config.config import Config

log = structlog.get_logger()

KAFKA = "kafka"
Kind = Literal["alert", "throttle", "drift"]
KINDS: tuple[Kind, ...] = ("alert", "throttle", "drift")
FILES: dict[Kind, str] = {"alert": "alerts.jsonl", "throttle": "throttle.jsonl", "drift": "drift.jsonl"}
POLL_MS = 500
REMEMBERED = 100_000
"""Ids that `follow` knows again: what is sent twice after a crash comes soon after."""

Place = Path | str | None
"""A replay's folder or one file of events; None or KAFKA for the configured topics."""

T = TypeVar("T")


class EventError(UserError, ValueError):
    """A value that is not an event or feedback record, or a place without any. Says where, and what was expected."""


class _Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The fields that all kinds of events have.

    uid : of this event; the same if it is delivered again. incident : finding_info.uid. time : on the client's clock.
    sequence : the decision's revision, which orders events of one time. client : the pseudonym, "" for an event about a
    model. detector : "person" for orders, "drift" for drift. level : 0 to 4. mode : "" for drift.
    """

    uid: str
    incident: str
    time: Time
    sequence: int = 0
    client: str = ""
    model: str
    detector: str
    level: int = 0
    mode: str = ""
    config_hash: str
    artefact_hash: str
    engine_version: str


class AlertFields(_Event, frozen=True, kw_only=True, gc=False):
    """The main fields of an alert (docs/formats/alerts.md).

    requests : request ids that it names, the deciding one first. trigger : null for drift. The statistic and its
    threshold are 0 for drift. budget, promised : shares of benign clients a day.
    """

    title: str
    message: str
    description: str
    update: bool
    severity: str
    client_class: str = ""
    process: str = ""
    decision_id: str = ""
    evidence_nats: float = 0.0
    threshold_nats: float = 0.0
    budget: float = 0.0
    promised: float = 0.0
    certified: bool = False
    certificate: str = ""
    requests: tuple[str, ...] = ()
    trigger: Position | None = None


class Alert(AlertFields, frozen=True, kw_only=True, gc=False):
    """An OCSF finding. raw : the message's value."""

    raw: bytes

    @property
    def record(self) -> dict[str, Any]:
        """The whole finding as JSON values; decoded on each call."""
        found: dict[str, Any] = msgspec.json.decode(self.raw)
        return found


class ThrottleEvent(_Event, frozen=True, kw_only=True, gc=False):
    """A throttle record (docs/formats/throttle.md). record : all its fields. raw : the message's value."""

    record: ThrottleRecord
    raw: bytes


class DriftEvent(_Event, frozen=True, kw_only=True, gc=False):
    """A drift record (docs/formats/drift.md). record : all its fields. raw : the message's value."""

    record: DriftRecord
    raw: bytes


Event = Alert | ThrottleEvent | DriftEvent


class Filter(NamedTuple):
    """What is wanted; all of it must hold. since <= time < until; level : at least this one; "" and None for any."""

    since: datetime | None = None
    until: datetime | None = None
    client: Collection[str] = ()
    model: str = ""
    detector: str = ""
    level: int = 0
    mode: str = ""
    incident: str = ""

    def takes(self, event: Event) -> bool:
        return (
            (self.since is None or event.time >= self.since)
            and (self.until is None or event.time < self.until)
            and (not self.client or event.client in self.client)
            and self.model in ("", event.model)
            and self.detector in ("", event.detector)
            and event.level >= self.level
            and self.mode in ("", event.mode)
            and self.incident in ("", event.incident)
        )


EVERYTHING = Filter()


class _Sniffed(msgspec.Struct):
    """Enough of any event to tell its kind."""

    schema: str = ""
    class_uid: int = 0


class _Unmapped(msgspec.Struct):
    """Of an alert about a client, and of one about a model (which holds a drift record here)."""

    config_hash: str
    artefact_hash: str
    engine_version: str
    decision_id: str = ""
    level: int = 0
    mode: str = ""
    process: str = ""
    evidence_nats: float = 0.0
    threshold_nats: float = 0.0
    budget: float = 0.0
    promised: float = 0.0
    certified: bool = False
    certificate: str = ""


class _Resource(msgspec.Struct):
    uid: str
    role_id: int
    name: str = ""
    labels: tuple[str, ...] = ()


class _Evidence(msgspec.Struct):
    uid: str = ""
    data: dict[str, Any] = {}


class _Analytic(msgspec.Struct):
    name: str


class _FindingInfo(msgspec.Struct):
    uid: str
    title: str
    desc: str
    analytic: _Analytic


class _Metadata(msgspec.Struct):
    uid: str
    sequence: int = 0


class _Finding(msgspec.Struct):
    """What is read of an alert's value."""

    time: int
    activity_id: int
    severity: str
    message: str
    metadata: _Metadata
    finding_info: _FindingInfo
    resources: tuple[_Resource, ...]
    unmapped: _Unmapped
    evidences: tuple[_Evidence, ...] = ()


_sniff = msgspec.json.Decoder(_Sniffed)
_finding = msgspec.json.Decoder(_Finding)
_throttle = msgspec.json.Decoder(ThrottleRecord)
_drift = msgspec.json.Decoder(DriftRecord)


def decode_event(value: bytes) -> Event:
    """The event in a message or line. Raises EventError, and quotes nothing of it."""
    try:
        sniffed = _sniff.decode(value)
        if sniffed.class_uid == CLASS_UID:
            return _alert(value)
        if sniffed.schema == "probewatch.throttle/1":
            return _of_throttle(value)
        if sniffed.schema == "probewatch.drift/1":
            return _of_drift(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise EventError(f"no event of ours: {type(error).__name__} while reading it") from error
    raise EventError("no event of ours: neither an OCSF finding nor a throttle or drift record")


def _alert(value: bytes) -> Alert:
    found = _finding.decode(value)
    info, unmapped = found.finding_info, found.unmapped
    by_role = {resource.role_id: resource for resource in found.resources}
    actor, target = by_role.get(2, _Resource("", 2)), by_role.get(1, _Resource("", 1))
    place = next((evidence.data for evidence in found.evidences if "rows_seen" in evidence.data), None)
    requests = tuple(evidence.uid for evidence in found.evidences if evidence.uid)
    trigger = None
    if place is not None:
        trigger = msgspec.convert({**place, "request_id": found.evidences[0].uid}, Position)
    client_class = next((label.removeprefix("class:") for label in actor.labels if label.startswith("class:")), "")
    return Alert(
        uid=found.metadata.uid,
        incident=info.uid,
        time=moment(found.time),
        client=actor.uid,
        model=target.name,
        detector=info.analytic.name,
        raw=value,
        title=info.title,
        message=found.message,
        description=info.desc,
        update=found.activity_id == 2,
        severity=found.severity,
        client_class=client_class,
        sequence=found.metadata.sequence,
        requests=requests,
        trigger=trigger,
        **msgspec.structs.asdict(unmapped),
    )


def _of_throttle(value: bytes) -> ThrottleEvent:
    record = _throttle.decode(value)
    return ThrottleEvent(
        uid=record.decision_id,
        incident=record.finding_uid,
        time=record.issued_at,
        sequence=record.revision,
        client=record.client,
        model=record.model,
        detector=record.reason,
        level=record.level,
        mode=record.mode,
        config_hash=record.config_hash,
        artefact_hash=record.artefact_hash,
        engine_version=record.engine_version,
        raw=value,
        record=record,
    )


def _of_drift(value: bytes) -> DriftEvent:
    record = _drift.decode(value)
    return DriftEvent(
        uid=f"{record.drift_id}:{record.state}",
        incident=record.drift_id,
        time=record.until,
        client=record.client or "",
        model=record.model,
        detector=DRIFT,
        config_hash=record.config_hash,
        artefact_hash=record.artefact_hash,
        engine_version=record.engine_version,
        raw=value,
        record=record,
    )


def read_events(
    place: Place, config: Config, wanted: Filter = EVERYTHING, kinds: Collection[Kind] = KINDS
) -> Iterator[Event]:
    """Each event once, in order of time, revision and id. Raises EventError, SourceError if a topic cannot be read.

    A value that is not an event is skipped with a warning in a topic; in a file it is an error.
    """
    found = _in_topics(config, kinds) if place in (None, KAFKA) else _in_files(Path(str(place)), kinds)
    chosen = {event.uid: event for event in found if wanted.takes(event) and _kind(event) in kinds}
    yield from sorted(chosen.values(), key=order)


def order(event: Event) -> tuple[datetime, int, str]:
    """A lift falls at the time of what it takes back."""
    return event.time, event.sequence, event.uid


def _kind(event: Event) -> Kind:
    return "alert" if isinstance(event, Alert) else "throttle" if isinstance(event, ThrottleEvent) else "drift"


def _in_files(place: Path, kinds: Collection[Kind]) -> Iterator[Event]:
    yield from read_lines(event_files(place, kinds), decode_event)


def event_files(place: Path, kinds: Collection[Kind] = KINDS) -> list[Path]:
    """The files of these kinds in a replay's folder; a file stands for itself. Raises EventError if there is none."""
    if not place.is_dir():
        if place.is_file():
            return [place]
        raise EventError(f"{place}: no such file or folder; `probewatch replay SOURCE --out {place}` fills one")
    files = [place / FILES[kind] for kind in KINDS if kind in kinds and (place / FILES[kind]).is_file()]
    if not files:
        names = ", ".join(FILES[kind] for kind in KINDS if kind in kinds)
        raise EventError(f"{place}: expected {names} as `probewatch replay` writes them; none is there")
    return files


def read_lines(files: Iterable[Path], decode: Callable[[bytes], T]) -> Iterator[T]:
    """Each line decoded; blank ones are passed over. Raises EventError with file and line."""
    for path in files:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not (text := line.strip()):
                    continue
                try:
                    yield decode(text)
                except EventError as error:
                    raise EventError(f"{path}:{number}: {error}") from error


def _topics(config: Config, kinds: Collection[Kind]) -> list[str]:
    names: dict[Kind, str] = {
        "alert": config.topics.alerts,
        "throttle": config.topics.throttle,
        "drift": config.topics.drift,
    }
    return [names[kind] for kind in KINDS if kind in kinds]


def _in_topics(config: Config, kinds: Collection[Kind]) -> Iterator[Event]:
    from streams.history.kafka_source import KafkaSource  # only this needs a client library

    for topic in _topics(config, kinds):
        for records in KafkaSource(f"kafka://{config.kafka.bootstrap}/{topic}", config).messages():
            for record in records:
                event = _of_record(record)
                if event is not None:
                    yield event


def _of_record(record: Any) -> Event | None:
    """None for a value that is not an event: a foreign value must not hide the events of the topic from analysts."""
    try:
        return decode_event(record.value or b"")
    except EventError as error:
        log.warning("passed over", at=f"{record.topic}[{record.partition}]@{record.offset}", error=str(error))
        return None


async def follow(
    config: Config, wanted: Filter = EVERYTHING, kinds: Collection[Kind] = KINDS, *, past: bool = False
) -> AsyncIterator[Event]:
    """Each event once as topics get it, for ever; with `past` all that they hold comes first. Raises KafkaError."""
    from aiokafka import TopicPartition

    from streams.kafka import clients, topics
    from streams.kafka.broker import log_ends, probe

    features = await probe(config.kafka)
    counts = await topics.partition_counts(config, _topics(config, kinds))
    seen: dict[str, None] = {}
    async with clients.reader(config) as consumer:
        places = [TopicPartition(name, number) for name, count in counts.items() for number in range(count)]
        ends = await log_ends(consumer, places, features)
        consumer.assign(places)
        for place in places:
            await consumer.seek_to_beginning(place) if past else consumer.seek(place, ends[place])
        while True:
            for records in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                for event in map(_of_record, records):
                    if event is not None and event.uid not in seen and wanted.takes(event):
                        seen[event.uid] = None
                        if len(seen) > REMEMBERED:
                            del seen[next(iter(seen))]
                        yield event


def now() -> datetime:
    return datetime.now(UTC)
