"""Plain records are read to the rows that the decoder gives, bit for bit; what it would refuse is never taken."""

import base64
import json
import random
import struct
from datetime import datetime
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.kernels.json.columns import read_times
from streams import adapters
from streams.adapters import native
from streams.adapters.base import Adapter
from streams.adapters.scanner import TS, Scanner
from streams.config.config import Config
from streams.sketch.identity import Identity
from streams.sketch.sketcher import Sketcher, SketchResult
from tests import sketching
from tests.malformed import KINDS
from tests.test_sketch import gather, mixed_records


def sketcher_of(adapter: Adapter) -> Sketcher:
    with patch.object(adapters, "REGISTRY", (adapter,)):
        return Sketcher(sketching.build_models(), Identity(sketching.SEED, "k1", sketching.SEED), Config())


BOTH = [sketcher_of(native.ADAPTER), sketcher_of(native.ADAPTER._replace(scanner=None))]


def both(values: list[bytes]) -> list[SketchResult]:
    """The same records, scanned where they are plain, and all decoded."""
    raws = [sketching.raw(offset, value) for offset, value in enumerate(values)]
    return [sketcher.frames("t", 0, "0", raws, 3) for sketcher in BOTH]


def agree(values: list[bytes]) -> None:
    scanned, decoded = both(values)
    assert gather([scanned]) == gather([decoded])


def plain(values: list[bytes]) -> list[bool]:
    taken: list[bool] = Scanner().scan(values, 1 << 20).plain.tolist()
    return taken


def text(**changes: Any) -> bytes:
    return json.dumps(sketching.record(random.Random(1), 1, "faces") | changes).encode()


def test_most_records_are_plain_and_both_ways_agree() -> None:
    values = mixed_records(3, 300)
    assert 60 < sum(plain(values)) < 200, "arrays and lines are left to the decoder"
    agree(values)
    agree([value for value, taken in zip(values, plain(values), strict=True) if taken])


OPTIONAL: dict[str, list[Any]] = {
    "ts": ["2025-02-28T23:59:59.5Z", "2024-02-29T00:00:00+05:30", "2025-02-29T00:00:00Z", "2025-03-01t00:00:00Z",
           "2025-03-01T10:00:00", "0001-01-01T00:00:00-23:59", 1e9, 1e300, -5, 1740823200.9995, 0.1, None],
    "client_id": ["", "Ü" * 256, "Ü" * 257, "x" * 512, "x" * 513, 'quote"d', "tab\t", "\udfff", "日本"],
    "request_id": ["Müller-☃", "", "\\"],
    "output": [None, {}, {"label": -0}, {"label": 10**17}, {"label": 10**18}, {"label": 2**63}, {"label": 1.0},
               {"label": "ü" * 128}, {"label": "ü" * 129}, {"label": "x" * 257}, {"score": -0.0}, {"score": 3.5e38},
               {"score": 1e-45}, {"scores": {"a": 1, "b": 2}}, {"scores": {}}, {"refused": True, "x": [{"y": [1, {}]}]},
               {"label": "", "refused": False, "score": None}, {"label": "a", "score": 1, "other": {"a": [[], {}]}}],
    "client_class": ["consumer", "broker", "system", "king", None, ""],
    "operation": ["explain", "classify", None, "explain\n"],
    "tokens_in": [0, 2**32 - 1, 2**32, -1, 1.5, None, -0.0],
    "embedding": [[0.0] * 64, [1e39] + [1.0] * 63, [1] * 63, [1] * 65, [], None, "", "AAAA", [-0.0, 0] + [1] * 62,
                  base64.b64encode(np.ones(64, "<f4").tobytes()).decode(), {"data": [1.0] * 64},
                  base64.b64encode(np.full(64, np.nan, "<f4").tobytes()).decode(), str([0.5] * 64), [1, "x"], [[1]],
                  base64.b64encode(np.zeros(64, "<f4").tobytes()).decode(), [1e-50] * 64],
    "features": [{}, None, {"a": [1]}, {"a": 10**30}, {"ü": "ü"}],
    "other": ["€", "\\\u2028\"", [[[]]], {"a": {"b": [True, False, None, 1e5, "x"]}}, 10**40, 1e308, "\x7f", -0.0],
}  # fmt: skip


@pytest.mark.parametrize("field", OPTIONAL)
def test_every_kind_of_value(field: str) -> None:
    for value in OPTIONAL[field]:
        agree([text(**{field: value})])
    agree([text(**{field: value}) for value in OPTIONAL[field]])


FEATURES: list[Any] = [
    {"income": 1.5, "term": 12, "purpose": "car", "owner": True},
    {"purpose": "never seen", "income": "text", "owner": "x"},
    {"purpose": 3, "term": None},
    {"purpose": True},
    {"purpose": None, "income": -0.0, "term": 1e22, "unknown": "x", "owner": 1},
    {"purpose": "ünï", "income": 123456789.123456789, "term": 0.1},
    {"unknown": {"a": 1}},
    {},
]


def test_every_kind_of_feature() -> None:
    bodies = [sketching.record(random.Random(1), 1) | {"features": features} for features in FEATURES]
    for body in bodies:
        agree([json.dumps(body).encode()])
    agree([json.dumps(body).encode() for body in bodies])
    names = [b'{"income":1,"income":2}', b'{"income":"x","income":2}', b'{"purpose":"car","purpose":null}', b'{"":1}']
    agree([json.dumps(bodies[0] | {"features": 7}).encode().replace(b"7", name) for name in names])


def test_what_no_decoder_takes_is_never_taken() -> None:
    rng = random.Random(4)
    for kind in KINDS:
        agree([kind.make(rng)])


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 30), edits=st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 255)), max_size=3))
def test_any_few_bytes_changed(seed: int, edits: list[tuple[int, int]]) -> None:
    value = bytearray(mixed_records(seed, 1)[0])
    for place, byte in edits:
        value[place % len(value)] = byte
    agree([bytes(value)])


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 5), place=st.integers(0, 5_000), token=st.sampled_from(
    [b" ", b"\n", b",", b"{", b"}", b"[", b"]", b'"', b"\\", b"\\u00e9", b"\\ud800", b"null", b"tru", b"1", b"-", b".",
     b"e9", b"\0", b"\xff", b"\xc3\xa9", b'"ts":1,', b":", b"0", b"\x0c", b"\xed\xa0\x80"])
)  # fmt: skip
def test_anything_put_in_or_cut_out(seed: int, place: int, token: bytes) -> None:
    value = mixed_records(seed, 1)[0]
    at = place % len(value)
    agree([value[:at] + token + value[at:]])
    agree([value[:at] + value[at + len(token) :]])


numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(-1e6, 1e6).map(repr),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**19), 10**19).map(str),
    st.tuples(st.integers(0, 10**19), st.integers(-70, 70)).map(lambda made: f"{made[0]}e{made[1]}"),
    st.tuples(st.integers(2**53, 2**54 - 1), st.integers(0, 9)).map(lambda made: str((2 * made[0] + 1) << made[1])),
    st.sampled_from(["-0", "-0.0", "-0e5", "0", "1E+05", "9007199254740993", "0.000001", "1e22", "1e23", "0e999"]),
)


@settings(max_examples=400)
@given(st.lists(numbers, min_size=1, max_size=20))
def test_numbers_are_rounded_as_floats_are(texts: list[str]) -> None:
    found = Scanner().scan([b'{"embedding":[%s]}' % text.encode() for text in texts], 1 << 20)
    for place, text in enumerate(texts):
        if found.plain[place]:
            value = found.pool[found.values.start[5, place]].item()
            assert struct.pack("d", value) == struct.pack("d", 0.0 if text == "-0" else float(text)), text
    assert not any(plain([b'{"embedding":[%s]}' % bad for bad in (b"01", b"1.", b".5", b"-", b"1e", b"+1", b"1e999")]))


def test_usual_numbers_are_plain() -> None:
    rng = random.Random(2)
    made = [rng.gauss(0, 1) * 10 ** rng.randint(-20, 20) for _ in range(2_000)]
    assert all(plain([b'{"x":%s}' % repr(number).encode() for number in made]))
    assert all(plain([b'{"x":%s}' % repr(float(np.float32(number))).encode() for number in made]))


@settings(max_examples=300)
@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), st.integers(0, 6), st.integers(-1439, 1439))
def test_times(when: datetime, decimals: int, offset: int) -> None:
    shown = when.isoformat(timespec="microseconds")[: 19 + (decimals and decimals + 1)]
    zone = f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02}:{abs(offset) % 60:02}" if offset else "Z"
    found = Scanner().scan([b'{"ts":"%s"}' % (shown + zone).encode()], 1 << 20)
    seconds = found.values.number[TS].copy()
    read_times(found.text, found.values.kind[TS], found.values.start[TS], found.values.end[TS], seconds)
    if 1700 <= when.year < 2250:
        assert not np.isnan(seconds[0])
    if not np.isnan(seconds[0]):
        assert seconds.tolist() == [datetime.fromisoformat(shown + zone).timestamp()]


def test_rows_of_both_ways_stand_in_raw_order() -> None:
    values = [text(request_id=f"r-{n}", client_id="one" if n % 3 else "o\ne") for n in range(40)]
    scanned, _ = both(values)
    for frame in scanned.frames:
        assert (np.diff(frame.rows.offset) > 0).all()
    assert sum(frame.rows.count for frame in scanned.frames) == 40
