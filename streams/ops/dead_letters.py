"""Dead letters read back: what was refused and why, and records sent again once they can be read.

A letter comes from the dead-letter topic, which holds the record, or from a replay's rejects.jsonl, which only says
where it stood. Delivery is at least once: a letter that is there twice is one.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from probewatch_door.record import Time
from streams.adapters import Formats
from streams.adapters.base import Adapter
from streams.adapters.request import Request
from streams.config.config import Config
from streams.history.base import RawBatch, Source, SourceError
from streams.history.kafka_source import KafkaSource
from streams.kafka import clients, topics
from streams.kafka.broker import probe
from streams.sketch.sketcher import RawRecord, Sketcher
from streams.wire.dead_letter import OMITTED_HEADER
from streams.wire.rejects import PREFIXES, REJECTS_FILE, WHOLE_RECORD, Record, Reject, refused

RETRIED_HEADER = "probewatch-retried"
"""Of a record without value in the dead-letter topic: the letter of this place was sent again."""

_reject = msgspec.json.Decoder(Reject)


class Letter(NamedTuple):
    """What was refused. record : as the topic of dead letters holds it; None if it must be looked up. time : of the
    letter, None if nobody tells."""

    reject: Reject
    record: Record | None
    time: datetime | None

    @property
    def place(self) -> str:
        """`gateway-logs[3]@18842#7`, of one row; without `#` of a whole record."""
        reject = self.reject
        row = "" if reject.index == WHOLE_RECORD else f"#{reject.index}"
        return f"{reject.topic}[{reject.partition}]@{reject.offset}{row}"


class Wanted(NamedTuple):
    """Which letters; "" and () for any. places : as Letter.place tells them, or their beginnings."""

    reason: str = ""
    field: str = ""
    topic: str = ""
    places: tuple[str, ...] = ()

    def takes(self, letter: Letter) -> bool:
        reject = letter.reject
        return (
            self.reason in ("", reject.reason)
            and self.field in ("", reject.field)
            and self.topic in ("", reject.topic)
            and (not self.places or letter.place.startswith(self.places))
        )


class DeadLetterGroup(msgspec.Struct, frozen=True):
    """Dead letters with one reason, field and topic. count : their number. first, last : times of the oldest and the
    newest, null if unknown. example : message of the newest."""

    reason: str
    field: str
    topic: str
    count: int
    first: Time | None
    last: Time | None
    example: str


RetryOutcome = Literal["sent", "would be sent", "refused", "missing"]


class Retried(msgspec.Struct, frozen=True):
    """Result of retrying one dead letter. did : "would be sent" on a dry run, "refused" if it still cannot be read,
    "missing" if its record was not found. detail : where it was sent, or why not."""

    place: str
    did: RetryOutcome
    detail: str


class DeadLetterLine(msgspec.Struct, frozen=True):
    """One dead letter. time : when it was written, null if unknown. record : the record as text, null if it was not
    found; only with --record."""

    place: str
    time: Time | None
    reason: str
    message: str
    record: str | msgspec.UnsetType | None = msgspec.UNSET


def line_of(letter: Letter, *, with_record: bool) -> DeadLetterLine:
    record: str | msgspec.UnsetType | None = msgspec.UNSET
    if with_record:
        value = letter.record.value if letter.record is not None else None
        record = None if value is None else value.decode("utf-8", "backslashreplace")
    return DeadLetterLine(letter.place, letter.time, letter.reject.reason, letter.reject.message, record)


def read_letters(place: Path | None, config: Config) -> list[Letter]:
    """Letters that were not sent again, by place. place : a replay's folder or its rejects.jsonl; None for the topic.

    Raises SourceError.
    """
    letters: dict[str, Letter] = {}
    gone: set[str] = set()
    if place is not None:
        file = place / REJECTS_FILE if place.is_dir() else place
        letters = {letter.place: letter for letter in _from_file(file)}
    else:
        source = KafkaSource(f"kafka://{config.kafka.bootstrap}/{config.topics.dlq}", config)
        for record in (record for records in source.messages() for record in records):
            headers = dict(record.headers)
            if RETRIED_HEADER in headers:
                gone.add(headers[RETRIED_HEADER].decode())
            else:
                for letter in _from_record(record, headers):
                    letters.setdefault(letter.place, letter)
    kept = (letter for name, letter in letters.items() if name not in gone)
    return sorted(kept, key=lambda letter: attrgetter("topic", "partition", "offset", "index")(letter.reject))


def _from_file(path: Path) -> Iterator[Letter]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    reject = _reject.decode(line)
                except msgspec.MsgspecError as error:
                    raise SourceError(f"{path}, line {number}: not a reject of `probewatch replay`: {error}") from error
                for row in reject.rows or (reject.index,):
                    yield Letter(msgspec.structs.replace(reject, index=row, rows=()), None, None)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}; `probewatch replay` writes {REJECTS_FILE}") from error


def _from_record(record: Any, headers: Mapping[str, bytes]) -> list[Letter]:
    """One for each row; nothing for what is no letter of ours."""
    try:
        rows = refused(headers, record.value)
    except (KeyError, ValueError, msgspec.MsgspecError):
        return []
    own = [header for header in record.headers if not header[0].startswith(PREFIXES)]
    time = datetime.fromtimestamp(record.timestamp / 1000, UTC) if record.timestamp >= 0 else None
    if OMITTED_HEADER in headers:
        return [Letter(reject, None, time) for reject, _ in rows]
    return [Letter(reject, Record(record.key, element, own), time) for reject, element in rows]


def grouped(letters: Iterable[Letter]) -> list[DeadLetterGroup]:
    """The largest group first."""
    groups: dict[tuple[str, str, str], list[Letter]] = {}
    for letter in letters:
        groups.setdefault((letter.reject.reason, letter.reject.field, letter.reject.topic), []).append(letter)
    found = []
    for about, members in groups.items():
        times = sorted(letter.time for letter in members if letter.time is not None)
        first, last = (times[0], times[-1]) if times else (None, None)
        found.append(DeadLetterGroup(*about, len(members), first, last, members[-1].reject.message))
    return sorted(found, key=lambda group: (-group.count, group.reason, group.field, group.topic))


def looked_up(letters: Sequence[Letter], sources: Sequence[Source], config: Config) -> list[Letter]:
    """The letters with their records, as far as sources (else the raw topics) still have them. Raises SourceError."""
    wanted: dict[tuple[str, int, int], list[Letter]] = {}
    for letter in letters:
        if letter.record is None:
            reject = letter.reject
            wanted.setdefault((reject.topic, reject.partition, reject.offset), []).append(letter)
    formats = Formats(config)
    complete: dict[str, Letter] = {}
    for source in [*sources, *(() if sources else _ranges(wanted, config))]:
        for batch in source.batches():
            if not isinstance(batch, RawBatch):
                raise SourceError(f"{source.name}: frames hold no records; name the raw topic or file")
            for record in batch.records:
                about = wanted.get((batch.topic, batch.partition, record.offset), ())
                for letter, element in zip(about, _elements(record, about, formats.of(batch.topic)), strict=True):
                    complete[letter.place] = letter._replace(record=element)
    return [complete.get(letter.place, letter) for letter in letters]


def _ranges(wanted: Iterable[tuple[str, int, int]], config: Config) -> Iterator[KafkaSource]:
    """Each raw partition from the first to the last offset that is wanted."""
    spans: dict[tuple[str, int], list[int]] = {}
    for topic, partition, offset in wanted:
        if topic in config.topics.raw:
            spans.setdefault((topic, partition), []).append(offset)
    for (topic, partition), offsets in spans.items():
        source = KafkaSource(f"kafka://{config.kafka.bootstrap}/{topic}", config)
        yield source.part(partition, min(offsets), max(offsets) + 1)


def _elements(record: RawRecord, letters: Sequence[Letter], adapter: Adapter) -> list[Record]:
    """What each of these letters, of this record, is about."""
    value, indexes = record.value, [letter.reject.index for letter in letters]
    if not indexes or value is None or WHOLE_RECORD in indexes:
        return [Record(record.key, value, record.headers)] * len(indexes)
    cut = adapter.elements(value)
    return [Record(record.key, cut[index], record.headers) for index in indexes]


def retry(letters: Sequence[Letter], config: Config, sketcher: Sketcher, *, dry: bool = False) -> list[Retried]:
    """Send what can be read now to the raw topic again, and note in the dead-letter topic that it was sent.

    letters : with their records. What was sent and not noted, because this was stopped, is sent again by the next call.
    Raises KafkaError, SendError.
    """
    ready: list[Letter] = []
    done: dict[str, Retried] = {}
    for letter in letters:
        problem = _problem(letter, config, sketcher)
        if problem is None:
            ready.append(letter)
        else:
            done[letter.place] = Retried(letter.place, *problem)
    targets = [_target(letter, sketcher.formats) for letter in ready]
    if not dry and ready:
        asyncio.run(_send(list(zip(ready, targets, strict=True)), config, sketcher.formats))
    for letter, (topic, partition) in zip(ready, targets, strict=True):
        where = topic if partition is None else f"{topic}[{partition}]"
        done[letter.place] = Retried(letter.place, "would be sent" if dry else "sent", where)
    return [done[letter.place] for letter in letters]


def _problem(letter: Letter, config: Config, sketcher: Sketcher) -> tuple[RetryOutcome, str] | None:
    """What keeps a letter from being sent, as (did, detail)."""
    reject, record = letter.reject, letter.record
    if record is None:
        return "missing", "its record is neither in the letter nor in the sources"
    adapter = sketcher.formats.of(reject.topic)
    if not sketcher.formats.topics(adapter):
        return "refused", f"no raw topic has the format of {reject.topic}, {adapter.name} (input.formats)"
    raw = RawRecord(reject.offset, record.value, record.key, record.headers, -1)
    refused = sketcher.frames(reject.topic, reject.partition, config.input.incarnation, [raw], 1).rejects
    return ("refused", refused[0].message) if refused else None


def _target(letter: Letter, formats: Formats) -> tuple[str, int | None]:
    """Topic and partition. All of a client's records belong in one partition; records from a file are partitioned by
    client id, in the first raw topic of their format."""
    topic = letter.reject.topic
    of_format = formats.topics(formats.of(topic))
    return (topic, letter.reject.partition) if topic in of_format else (of_format[0], None)


def _client_id(value: bytes | None, adapter: Adapter) -> bytes | None:
    """The client id of a record's first request."""
    items = (adapter.decode(element, (), frozenset()) for element in adapter.elements(value or b""))
    return next((item.client_id.encode() for item in items if isinstance(item, Request)), None)


async def _send(letters: Sequence[tuple[Letter, tuple[str, int | None]]], config: Config, formats: Formats) -> None:
    features = await probe(config.kafka)
    noted = (await topics.partition_counts(config, [config.topics.dlq])).get(config.topics.dlq, 0)
    producer = clients.producer(config, features, topics.dead_letter_bytes(config))
    await producer.start()
    try:
        for letter, (topic, partition) in letters:
            assert letter.record is not None
            key, value, headers = letter.record
            if partition is None and key is None:
                key = _client_id(value, formats.of(topic))
            await producer.send_and_wait(topic, value, key=key, partition=partition, headers=list(headers))
            if noted and partition is not None:
                note = [(RETRIED_HEADER, letter.place.encode())]
                await producer.send_and_wait(config.topics.dlq, b"", headers=note)
    finally:
        await producer.stop()
