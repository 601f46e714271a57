"""Rejects, as values: position, field, what was expected, what kind of value came; never the value."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Literal, NamedTuple

import msgspec

Reason = Literal["size", "malformed", "nesting", "missing", "type", "range", "time", "input", "many", "internal"]
"""The closed list of reasons, a label of metrics."""

WHOLE_RECORD = -1
"""`index` of a fault that is not one row's: too large, too many rows, not JSON at all."""

Headers = Sequence[tuple[str, bytes]]

REJECTS_FILE = "rejects.jsonl"
"""Rejects of a replay or a calibration, one a line."""

KINDS_TOLD = 5
"""Kinds of rejects that a sentence names."""

PREFIXES = ("__streams.errors.", "probewatch-")
"""Prefixes of our headers. They are dropped from raw records: a dead letter that was sent again has them."""


FAULTS_HEADER = "probewatch-faults"
"""JSON: what is wrong with which rows of the record (Refused)."""

LENGTHS_HEADER = "probewatch-lengths"
"""JSON: lengths of the elements in the value, bytes, where it holds several; they are separated by line ends."""


class Fault(NamedTuple):
    """One fault of one row or record, before its position is known.

    field : a dotted name that this project gave, or "record". expected, got : phrases; they hold no text of the record.
    """

    field: str
    expected: str
    got: str
    reason: Reason


class Reject(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A row, or a whole record (index -1), that is not judged. Safe to log, count and publish as it stands.

    rows : all rows that it stands for, if it is about several of the record; index is the first of them.
    """

    topic: str
    partition: int
    offset: int
    index: int
    field: str
    expected: str
    got: str
    reason: Reason
    rows: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """Number of rows, or 1 for a whole record."""
        return len(self.rows) or 1

    @property
    def message(self) -> str:
        """`gateway-logs[3]@18842: embedding: expected 384 numbers (embedding.dim); got 383 of them`."""
        row = f"#{self.index}" if self.index > 0 else ""
        place = f"{self.topic}[{self.partition}]@{self.offset}{row}"
        return f"{place}: {self.field}: expected {self.expected}; got {self.got}"


def told(records: int, rejects: Iterable[Reject], unjudged: Mapping[str, int]) -> str:
    """`6,000 records: 858 rejected (ts: a time without an offset 858)`, the most frequent ones; "" if all were read.

    unjudged : rows by reason.
    """
    kinds: Counter[str] = Counter()
    for reject in rejects:
        kinds[f"{reject.field}: {reject.got}"] += reject.count
    parts = [f"{sum(counts.values()):,} {what} ({_most(counts)})" for what, counts in (
        ("rejected", kinds), ("not judged", Counter(unjudged) + Counter()),
    ) if counts]  # fmt: skip
    return f"{records:,} records: {'; '.join(parts)}" if parts else ""


def _most(counts: Mapping[str, int]) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{name} {count:,}" for name, count in ranked[:KINDS_TOLD]]
    return ", ".join([*shown, *(["…"] if len(ranked) > KINDS_TOLD else [])])


def by_reason(rejects: Iterable[Reject]) -> dict[str, int]:
    """How many rows, or whole records, each reason has."""
    counts: Counter[str] = Counter()
    for reject in rejects:
        counts[reject.reason] += reject.count
    return dict(sorted(counts.items()))


class DeadLetter(NamedTuple):
    """What the dead-letter topic holds of one record. Key, value and the leading headers are the raw record's own."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    rejects: Sequence[Reject]


class Record(NamedTuple):
    """The part of a raw record that a dead letter repeats."""

    key: bytes | None
    value: bytes | None
    headers: Headers


class Refused(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a letter's header FAULTS_HEADER says of a row, or of several: see Reject."""

    index: int
    field: str
    expected: str
    got: str
    reason: Reason
    rows: tuple[int, ...] = ()


_refused = msgspec.json.Decoder(tuple[Refused, ...])
_lengths = msgspec.json.Decoder(tuple[int, ...])


def dead_letters(
    rejects: Iterable[Reject], records: Mapping[int, Record], elements: Callable[[bytes], Sequence[bytes]]
) -> list[DeadLetter]:
    """A dead letter for each record. Of an array or NDJSON only the bad elements travel, one a line, so that sending
    them again does not double their neighbours: a letter is at most half as long again as its record, and some kB.

    rejects : of one raw partition, sorted by offset and index. records : by offset.
    elements : splits a value as the adapter does.
    """
    letters = []
    for offset, group in groupby(rejects, attrgetter("offset")):
        record, own = records[offset], list(group)
        headers = [header for header in record.headers if not header[0].startswith(PREFIXES)]
        value, lengths = record.value, None
        if value is not None and own[0].index != WHOLE_RECORD:
            cut = elements(value)
            bad = [cut[row] for row in _rows(own)]
            value, lengths = b"\n".join(bad), [len(element) for element in bad]
        letters.append(DeadLetter(record.key, value, [*headers, *_headers(own, lengths)], own))
    return letters


def _rows(rejects: Iterable[Reject | Refused]) -> list[int]:
    """Every row that they are about, in order."""
    return sorted(row for reject in rejects for row in reject.rows or (reject.index,))


def _headers(rejects: Sequence[Reject], lengths: Sequence[int] | None) -> list[tuple[str, bytes]]:
    """Header names follow KIP-1034 (Kafka Streams). Values are UTF-8 text, numbers too."""
    first, count = rejects[0], sum(reject.count for reject in rejects)
    told = [Refused(r.index, r.field, r.expected, r.got, r.reason, r.rows) for r in rejects]
    texts = {
        "__streams.errors.exception": f"probewatch.reject.{first.reason}",
        "__streams.errors.message": first.message if count == 1 else f"{first.message}; and {count - 1} more rows",
        "__streams.errors.topic": first.topic,
        "__streams.errors.partition": str(first.partition),
        "__streams.errors.offset": str(first.offset),
    }
    headers = [(name, text.encode()) for name, text in texts.items()]
    headers.append((FAULTS_HEADER, msgspec.json.encode(told)))
    if lengths is not None and len(lengths) > 1:
        headers.append((LENGTHS_HEADER, msgspec.json.encode(lengths)))
    return headers


def refused(headers: Mapping[str, bytes], value: bytes | None) -> list[tuple[Reject, bytes | None]]:
    """What `dead_letters` wrote: a reject for each row, with its element. Raises KeyError or ValueError for anything
    else, another program's letter for example."""
    topic = headers["__streams.errors.topic"].decode()
    partition, offset = (int(headers[f"__streams.errors.{name}"]) for name in ("partition", "offset"))
    told = _refused.decode(headers[FAULTS_HEADER])
    places = {row: place for place, row in enumerate(_rows(told))}
    elements = [value]
    if value is not None and LENGTHS_HEADER in headers:
        elements = list(_cut(value, _lengths.decode(headers[LENGTHS_HEADER])))
    if len(elements) != len(places):
        raise ValueError("as many lengths as rows")
    return [
        (Reject(topic, partition, offset, row, one.field, one.expected, one.got, one.reason), elements[places[row]])
        for one in told
        for row in one.rows or (one.index,)
    ]


def _cut(value: bytes, lengths: Iterable[int]) -> Iterator[bytes]:
    start = 0
    for length in lengths:
        yield value[start : start + length]
        start += length + 1
