"""Messages to requests and faults, for a bounded price: no message costs more than its length pays for.

An ordinary record is decoded in a few nanoseconds a byte. What is expensive is a fault: an exception, its explanation,
a dead letter. So elements are counted before they are cut, and careful reading is rationed by bytes.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple, Protocol

from streams.adapters.base import Adapter
from streams.adapters.json_text import UNREADABLE
from streams.adapters.request import Request
from streams.config.config import Config
from streams.config.input import Input
from streams.kafka.skipped_batch import SkippedBatch
from streams.sketch.slow_path import Place
from streams.wire.rejects import WHOLE_RECORD, Fault, Headers

FAULTS_TOLD = 20
"""Faults of one message that are told one by one; the rest is told as a number."""

ELEMENT_BYTES = 32
"""Elements are this long on average, or the message is no log: a time, a client and a model alone take more."""

CAREFUL_BYTES = 256
"""Elements that the fast path does not take are read with care, at twenty times its price: as many as FAULTS_TOLD and
one more for each so many bytes of the message. Ordinary records are longer, so that all of theirs are read."""


SALVAGED_PARTS = 2
"""Of a record that is too long, the first so many times `input.max_record_bytes` are looked at."""


LOG_APPEND = 1
"""`timestamp_type` of a record that the broker stamped (message.timestamp.type=LogAppendTime)."""


class RawMessage(Protocol):
    """The attributes of a raw record that are read. aiokafka's ConsumerRecord has them: copying each costs 0.4 us."""

    @property
    def offset(self) -> int: ...

    @property
    def value(self) -> bytes | None: ...

    @property
    def headers(self) -> Headers: ...

    @property
    def timestamp(self) -> int: ...

    @property
    def timestamp_type(self) -> int | None: ...


def append_ms(record: RawMessage, limits: Input) -> int:
    """When the broker appended a record, ms since 1970; 0 if the producer set the time, or if it is none that a record
    may have (a broker without a clock)."""
    if record.timestamp_type != LOG_APPEND:
        return 0
    return record.timestamp if limits.earliest_ms <= record.timestamp < limits.latest_ms else 0


class DecodedRecords(NamedTuple):
    """requests, some of them Salvaged, and their places. faults : (offset, index, fault) of what names no client, or is
    too long.

    unread : (offset, index) of elements that the fast path did not take and that nobody explains.
    """

    requests: list[Request]
    places: list[Place]
    faults: list[tuple[int, int, Fault]]
    unread: list[tuple[int, int]]


class Refusal(NamedTuple):
    """What a dead letter says of some rows of one message. rows : all of them, where there are several."""

    offset: int
    row: int
    fault: Fault
    rows: tuple[int, ...] = ()


def read_records(
    records: Sequence[RawMessage], adapter: Adapter, config: Config, features: frozenset[str] = frozenset()
) -> DecodedRecords:
    """Decode records of one topic; `calibrate` reads history with it too.

    features : names of table fields that a Fault may contain.
    """
    read = DecodedRecords([], [], [], [])
    requests, places, _, _ = read
    decode_one, bytes_max = adapter.decode_one, config.input.max_record_bytes
    for record in records:
        value = record.value
        if decode_one is not None and value is not None and len(value) <= bytes_max:
            try:
                request = decode_one(value)
            except UNREADABLE:
                pass
            else:
                requests.append(request)
                places.append(Place(record.offset, 0, record.timestamp, append_ms(record, config.input)))
                continue
        _read_unusual(record, adapter, config.input, features, read)
    return read


def _read_unusual(
    record: RawMessage, adapter: Adapter, limits: Input, features: frozenset[str], read: DecodedRecords
) -> None:
    """A record that is not one good object: several, faulty, too large or empty."""
    value = record.value or b""
    elements = _skipped(value, limits) if isinstance(value, SkippedBatch) else _cut(value, adapter, limits)
    if isinstance(elements, Fault):
        read.faults.append((record.offset, WHOLE_RECORD, elements))
        _read_head(record, value, WHOLE_RECORD, adapter, limits, features, read)
        return
    careful = FAULTS_TOLD + len(value) // CAREFUL_BYTES
    fast = adapter.decode_one if len(elements) > 1 else None
    for index, element in enumerate(elements):
        item: Request | Fault | None = None
        if len(element) > limits.max_record_bytes:
            item = _too_long("record", len(element), limits.max_record_bytes)
            _read_head(record, element, index, adapter, limits, features, read)
        elif fast is not None:
            try:
                item = fast(element)
            except UNREADABLE:
                careful -= 1
        if item is None and careful >= 0:
            item = adapter.decode(element, record.headers, features)
        if isinstance(item, Request):
            read.requests.append(item)
            read.places.append(Place(record.offset, index, record.timestamp, append_ms(record, limits)))
        elif item is None:
            read.unread.append((record.offset, index))
        else:
            read.faults.append((record.offset, index, item))


def _read_head(
    record: RawMessage,
    value: bytes,
    index: int,
    adapter: Adapter,
    limits: Input,
    features: frozenset[str],
    read: DecodedRecords,
) -> None:
    """What is too long has its letter; as far as its beginning tells, it also counts for its client."""
    head = value[: SALVAGED_PARTS * limits.max_record_bytes]
    if len(value) <= limits.max_record_bytes or adapter.number(head, 1) > 1:
        return
    request = adapter.decode(head, record.headers, features)
    if isinstance(request, Request):
        read.requests.append(request)
        read.places.append(Place(record.offset, index, record.timestamp, append_ms(record, limits)))


def _cut(value: bytes, adapter: Adapter, limits: Input) -> Sequence[bytes] | Fault:
    """A message's elements, or why it is refused as a whole. Elements are only made if they are few enough."""
    if len(value) > limits.max_message_bytes:
        return _too_long("message", len(value), limits.max_message_bytes)
    most = min(limits.max_rows, FAULTS_TOLD + len(value) // ELEMENT_BYTES)
    number = adapter.number(value, most)
    if number <= most:
        elements = adapter.elements(value)
        if len(elements) == 1 and len(value) > limits.max_record_bytes:
            return _too_long("record", len(value), limits.max_record_bytes)
        if len(elements) <= most:
            return elements
        number = len(elements)
    if number > limits.max_rows:
        return Fault("record", f"at most {limits.max_rows} rows (input.max_rows)", f"{number} rows", "size")
    return Fault("record", f"rows of {ELEMENT_BYTES} bytes or more", f"{number} rows in {len(value)} bytes", "size")


def _skipped(batch: SkippedBatch, limits: Input) -> Fault:
    got = f"offsets {batch.first} to {batch.last}, which were passed over"
    if batch.expands:
        return Fault(
            "record", f"a batch of at most {limits.max_batch_bytes} bytes (input.max_batch_bytes)", got, "size"
        )
    return Fault("record", "a batch that can be unpacked", got, "malformed")


def _too_long(what: str, length: int, most: int) -> Fault:
    return Fault("record", f"at most {most} bytes (input.max_{what}_bytes)", f"{length} bytes", "size")


def refusals(faults: Sequence[tuple[int, int, Fault]], unread: Sequence[tuple[int, int]]) -> Iterator[Refusal]:
    """Of a message FAULTS_TOLD faults, by index, and the rest as one, with its rows. A row has one fault."""
    first: dict[tuple[int, int], Fault] = {}
    for offset, index, fault in faults:
        first.setdefault((offset, index), fault)
    ordered = [(*place, fault) for place, fault in sorted(first.items(), key=itemgetter(0))]
    left = {offset: [index for _, index in group] for offset, group in groupby(unread, itemgetter(0))}
    for offset, group in groupby(ordered, itemgetter(0)):
        own = list(group)
        yield from (Refusal(*fault) for fault in own[:FAULTS_TOLD])
        left.setdefault(offset, []).extend(index for _, index, _ in own[FAULTS_TOLD:])
    for offset, rows in left.items():
        if rows:
            expected = f"at most {FAULTS_TOLD} faulty rows in a message"
            fault = Fault("record", expected, f"{len(rows)} more that could not be read", "many")
            yield Refusal(offset, min(rows), fault, tuple(sorted(rows)))
