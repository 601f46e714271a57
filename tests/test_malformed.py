"""Bad records of every kind among good ones: each is judged without what is bad, or held against its client, or gives a
reject that says where, what was expected and what came; nothing else is lost, and nothing planted leaks."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from models.rows import FLAG_UNREADABLE
from streams.adapters import native
from streams.config.config import Config
from streams.sketch.sketcher import RawRecord
from streams.wire.rejects import WHOLE_RECORD, Record, Reject, dead_letters
from tests import sketching
from tests.malformed import HELD, JUDGED, KINDS, LOST, PLANTED, Kind

CONFIG = Config(input={"max_record_bytes": 100_000})
INLINE = [kind for kind in KINDS if kind.inline]


class Message(NamedTuple):
    """value : one raw record. bad : index to kind. good : request ids."""

    value: bytes
    bad: dict[int, Kind]
    good: list[str]


class Maker:
    """Messages of all three forms. Texts are made once per kind: to make them takes longer than to read them."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._texts = {kind.name: [kind.make(self._rng) for _ in range(4)] for kind in KINDS}
        self._number = 0

    def good(self) -> tuple[str, bytes]:
        self._number += 1
        model = "faces" if self._number % 4 == 0 else "loan"
        return f"r-{self._number}", json.dumps(sketching.record(self._rng, self._number, model)).encode()

    def bad(self, kind: Kind) -> bytes:
        return self._rng.choice(self._texts[kind.name])

    def single(self, kind: Kind) -> Message:
        whole = kind.name == "record too large"
        return Message(self.bad(kind), {WHOLE_RECORD if whole else 0: kind}, [])

    def several(self, kinds: list[Kind], form: str) -> Message:
        """The bad ones with good ones before, between and after them."""
        texts, bad, good = [], {}, []
        for place, kind in enumerate([None, *kinds, None]):
            for name, text in [self.good()] if place % 2 == 0 else []:
                good.append(name)
                texts.append(text)
            if kind is not None:
                bad[len(texts)] = kind
                texts.append(self.bad(kind))
        if len(texts) == len(bad):
            raise AssertionError("no good neighbours")
        value = b"[" + b",".join(texts) + b"]" if form == "array" else b"\n".join(texts) + b"\n"
        return Message(value, bad, good)


def messages(total: int, seed: int) -> Iterator[Message]:
    maker, rng, made = Maker(seed), random.Random(seed), 0
    while made < total:
        message = maker.single(KINDS[made % len(KINDS)])
        if made % 3:
            kinds = rng.choices(INLINE, k=min(rng.randint(1, 12), total - made))
            message = maker.several(kinds, "array" if made % 3 == 1 else "lines")
        if len(message.value) > CONFIG.input.max_record_bytes and len(message.bad) > 1:
            continue
        made += len(message.bad)
        yield message


def said(reject: Reject, record: RawRecord) -> str:
    """Everything published about a reject, but for the record itself."""
    place = {record.offset: Record(record.key, record.value, record.headers)}
    [letter] = dead_letters([reject], place, native.elements)
    assert letter.headers[: len(record.headers)] == list(record.headers)
    added = letter.headers[len(record.headers) :]
    return " ".join([reject.message, repr(reject), *(name + text.decode() for name, text in added)])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_alone(kind: Kind) -> None:
    record = sketching.raw(18842, Maker(1).bad(kind))
    result = sketching.build_sketcher(CONFIG).frames("gateway-logs", 3, "0", [record], 12)
    flags = [int(flag) for frame in result.frames for flag in frame.rows.flags]
    assert bool(flags) == (kind.end != LOST) and len(flags) <= 1
    assert sum(result.unjudged.values()) == (kind.end == HELD)
    assert any(flag & FLAG_UNREADABLE for flag in flags) == (kind.end in (JUDGED, HELD))
    assert bool(result.rejects) == (kind.end in (HELD, LOST) or kind.name == "record too large")
    if kind.end == JUDGED:
        assert {name.partition("[")[0] for name in result.unread} >= {kind.field}
    for reject in result.rejects:
        assert reject.field == kind.field
        assert reject.message == f"gateway-logs[3]@18842: {kind.field}: expected {reject.expected}; got {reject.got}"
        assert reject.expected and reject.got and len(reject.message) < 300
        assert not [word for word in PLANTED if word in said(reject, record)]
    assert not [word for word in PLANTED if word in repr((result.unread, result.unjudged))]


@pytest.mark.parametrize("bad", [20_000, pytest.param(100_000, marks=pytest.mark.nightly)])
def test_bad_records_among_good_ones(bad: int) -> None:
    """100,000 nightly."""
    sketcher = sketching.build_sketcher(CONFIG)
    expected_bad: Counter[tuple[int, int, str]] = Counter()
    expected_good: list[str] = []
    found_bad: Counter[tuple[int, int, str]] = Counter()
    found_good: list[str] = []
    made = rows = 0
    batch: list[RawRecord] = []

    def flush() -> None:
        result = sketcher.frames("gateway-logs", 0, "0", batch, 12)
        found_bad.update((reject.offset, reject.index, reject.field) for reject in result.rejects)
        found_good.extend(sketching.request_ids(result.frames))
        text = " ".join(reject.message for reject in result.rejects)
        assert not [word for word in PLANTED if word in text]
        batch.clear()

    for offset, message in enumerate(messages(bad, seed=5)):
        made += len(message.bad)
        rows += sum(kind.end != LOST for kind in message.bad.values())
        letters = ((index, kind) for index, kind in message.bad.items() if kind.end in (HELD, LOST) or index < 0)
        expected_bad.update((offset, index, kind.field) for index, kind in letters)
        expected_good += message.good
        batch.append(sketching.raw(offset, message.value))
        if len(batch) == 500:
            flush()
    flush()
    assert made == bad and len(expected_good) > bad / 3
    assert found_bad == expected_bad
    good = set(expected_good)
    assert sorted(name for name in found_good if name in good) == sorted(expected_good)
    assert len(found_good) - len(expected_good) == rows
