"""Rejects, as values: position, field, what was expected, what kind of value came; never the value."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Literal, NamedTuple

import msgspec

Reason = Literal["size", "malformed", "nesting", "missing", "type", "range", "time", "input"]
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


class Fault(NamedTuple):
    """One fault of one row or record, before its position is known.

    field : a dotted name that this project gave, or "record". expected, got : phrases; they hold no text of the record.
    """

    field: str
    expected: str
    got: str
    reason: Reason


class Reject(msgspec.Struct, frozen=True, gc=False):
    """A row, or a whole record (index -1), that is not judged. Safe to log, count and publish as it stands."""

    topic: str
    partition: int
    offset: int
    index: int
    field: str
    expected: str
    got: str
    reason: Reason

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
    kinds = Counter(f"{reject.field}: {reject.got}" for reject in rejects)
    parts = [f"{sum(counts.values()):,} {what} ({_most(counts)})" for what, counts in (
        ("rejected", kinds), ("not judged", Counter(unjudged) + Counter()),
    ) if counts]  # fmt: skip
    return f"{records:,} records: {'; '.join(parts)}" if parts else ""


def _most(counts: Mapping[str, int]) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{name} {count:,}" for name, count in ranked[:KINDS_TOLD]]
    return ", ".join([*shown, *(["…"] if len(ranked) > KINDS_TOLD else [])])


class DeadLetter(NamedTuple):
    """One record for the dead-letter topic. Key, value and the leading headers are the raw record's own."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    reject: Reject


class Record(NamedTuple):
    """The part of a raw record that a dead letter repeats."""

    key: bytes | None
    value: bytes | None
    headers: Headers


def dead_letters(
    rejects: Iterable[Reject], records: Mapping[int, Record], elements: Callable[[bytes], Sequence[bytes]]
) -> list[DeadLetter]:
    """A dead letter for each reject. Of an array or NDJSON only the bad element travels, so that sending it again
    does not double its neighbours, and a record of 10,000 bad rows is not written 10,000 times.

    rejects : of one raw partition, sorted by offset. records : by offset.
    elements : splits a value as the adapter does.
    """
    letters = []
    for offset, group in groupby(rejects, attrgetter("offset")):
        record = records[offset]
        own = [header for header in record.headers if not header[0].startswith(PREFIXES)]
        pieces: Sequence[bytes] | None = None
        for reject in group:
            value = record.value
            if reject.index != WHOLE_RECORD and value is not None:
                pieces = elements(value) if pieces is None else pieces
                value = pieces[reject.index]
            letters.append(DeadLetter(record.key, value, [*own, *_headers(reject)], reject))
    return letters


def _headers(reject: Reject) -> list[tuple[str, bytes]]:
    """Header names follow KIP-1034 (Kafka Streams). Values are UTF-8 text, numbers too."""
    names = {
        "__streams.errors.exception": f"probewatch.reject.{reject.reason}",
        "__streams.errors.message": reject.message,
        "__streams.errors.topic": reject.topic,
        "__streams.errors.partition": str(reject.partition),
        "__streams.errors.offset": str(reject.offset),
        "probewatch-index": str(reject.index),
        "probewatch-field": reject.field,
    }
    return [(name, text.encode()) for name, text in names.items()]
