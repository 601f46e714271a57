"""The native format: all its forms read, bad elements kept apart from good ones."""

import base64
import json
import random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.encoders.embedding_reader import read_vectors
from streams.adapters import REGISTRY, native
from streams.adapters.json_shape import _PHRASES
from streams.adapters.json_text import NESTING_MAX, UNREADABLE, is_deep, split
from streams.adapters.request import EXPECTED, EmbeddingObject, Output, Request, Salvaged
from streams.wire.rejects import Fault
from tests import sketching

GOOD = [json.dumps(sketching.record(random.Random(n), n, "loan" if n % 2 else "faces")).encode() for n in range(6)]


def ids(value: bytes) -> list[str]:
    """Request ids, with * where something could not be read; in brackets the field for which an element is refused."""
    return [_id(item) for item in sketching.decoded(value)]


def _id(item: Request | Fault) -> str:
    if isinstance(item, Salvaged):
        return f"<{item.lost.field}>" if item.lost else f"{item.request_id}*"
    return f"<{item.field}>" if isinstance(item, Fault) else str(item.request_id)


def test_the_native_format_is_the_default() -> None:
    assert REGISTRY[0] is native.ADAPTER


def test_every_field_has_its_expectation() -> None:
    names = {name for name in Request.__struct_fields__}
    names |= {f"output.{name}" for name in Output.__struct_fields__}
    names |= {f"embedding.{name}" for name in EmbeddingObject.__struct_fields__}
    assert names == set(EXPECTED)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (GOOD[0], ["r-0"]),
        (b"  \r\n" + GOOD[0] + b"\n", ["r-0"]),
        (json.dumps(json.loads(GOOD[1]), indent=2).encode(), ["r-1"]),
        (b"[]", []),
        (b" [ ] ", []),
        (b"[" + GOOD[0] + b"]", ["r-0"]),
        (b"[" + b" ,\n".join(GOOD) + b"]", [f"r-{n}" for n in range(6)]),
        (json.dumps([json.loads(text) for text in GOOD], indent=1).encode(), [f"r-{n}" for n in range(6)]),
        (b"\n".join(GOOD), [f"r-{n}" for n in range(6)]),
        (b"\r\n".join(GOOD) + b"\r\n\r\n", [f"r-{n}" for n in range(6)]),
        (b"[1," + GOOD[0] + b',"a",[],' + GOOD[1] + b"]", ["<record>", "r-0", "<record>", "<record>", "r-1"]),
        (b"[" + GOOD[0] + b",NaN," + GOOD[1] + b"]", ["r-0", "<record>", "r-1"]),
        (b"[" + GOOD[0] + b",{'a':1}," + GOOD[1] + b"]", ["r-0", "<record>", "r-1"]),
        (b"[" + GOOD[0] + b',{"ts":"]],[\\"{"},' + GOOD[1] + b"] ", ["r-0", "<ts>", "r-1"]),
        (b"[" + GOOD[0] + b"," + GOOD[1], ["r-0", "r-1", "<record>"]),
        (b"[" + GOOD[0] + b",", ["r-0", "<record>"]),
        (b"[" + GOOD[0] + b"," + GOOD[1][:50], ["r-0", "<record>"]),
        (b"[" + GOOD[0] + b",," + GOOD[1] + b",]", ["r-0", "<record>", "r-1", "<record>"]),
        (b"[" + GOOD[0] + b"]]", ["r-0", "<record>"]),
        (b"[" + GOOD[0] + b"]\n[" + GOOD[1] + b"]", ["r-0", "r-1"]),
        (b"\n".join(b"[" + text + b"]" for text in GOOD), [f"r-{n}" for n in range(6)]),
        (b"[" + GOOD[0] + b"," + GOOD[1] + b"]\r\n" + GOOD[2] + b"\n[]\n", ["r-0", "r-1", "r-2"]),
        (b"[" + GOOD[0] + b"]\n[NaN," + GOOD[1] + b"]\n[" + GOOD[2], ["r-0", "<record>", "r-1", "r-2", "<record>"]),
        (b"\xef\xbb\xbf" + GOOD[0], ["r-0"]),
        (b"\xef\xbb\xbf[" + GOOD[0] + b"]", ["r-0"]),
        (b"\xef\xbb\xbf" + b"\r\n".join(GOOD[:2]), ["r-0", "r-1"]),
        (b"[", ["<record>"]),
        (GOOD[0] + b"\nnothing\n" + GOOD[1], ["r-0", "<record>", "r-1"]),
        (b"nothing\n" + GOOD[1], ["<record>", "r-1"]),
        (GOOD[0][:40] + b"\n" + GOOD[1] + b"\n" + GOOD[2][:-1], ["<record>", "r-1", "<record>"]),
        (json.dumps(json.loads(GOOD[1]), indent=2).encode()[:-1], ["<record>"]),
        (GOOD[0] + b"," + GOOD[1], ["r-0*"]),
        (GOOD[0] + b" " + GOOD[1], ["r-0*"]),
    ],
)
def test_forms(value: bytes, expected: list[str]) -> None:
    assert ids(value) == expected
    assert len(native.elements(value)) == len(expected)


def test_text_inside_a_broken_element_never_becomes_a_record() -> None:
    """A log that cuts off long prompts lets its users write what follows: it must not speak for other clients."""
    forged = GOOD[3].decode()
    broken = json.dumps({"request_id": "x", "prompt": "},{" + forged + ",{"})
    for value in (f"[{broken[:-2]}]", f"[{broken[:-2]},{GOOD[0].decode()}]", broken[:-2], broken[1:]):
        assert "r-3" not in ids(value.encode())


FORGED = json.dumps({"ts": 1.0, "client_id": "victim", "model": "loan", "features": {"income": 1}})
FRAGMENTS = ['"', "\\", "{", "}", "[", "]", ",", ":", "\n", FORGED, '","client_id":"victim","x":"', "},{", "]\n[", "a"]
GENUINE = {"ts": 1.74e9, "client_id": "sender", "model": "loan", "features": {"income": 1}}
prompts = st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join)


@settings(max_examples=400, deadline=None)
@given(
    prompts, prompts, st.integers(0, 400), st.booleans(), st.sampled_from(["cut", "NaN", "array", "lines", "merged"])
)
def test_no_text_of_one_client_counts_for_another(one: str, other: str, place: int, first: bool, how: str) -> None:
    """Whatever users write, and however a log that escapes their quotes is broken: cut anywhere, with NaN, merged."""
    texts = [{"prompt": text} | GENUINE if first else GENUINE | {"prompt": text, "z": text} for text in (one, other)]
    written = [json.dumps(text).encode() for text in texts]
    cut = written[0][: place % len(written[0])]
    broken = {
        "cut": cut,
        "NaN": written[0].replace(b"1.74e9", b"NaN").replace(b"1740000000.0", b"NaN"),
        "array": b"[" + cut + b"," + written[1] + b"]",
        "lines": cut + b"\n" + written[1],
        "merged": cut + written[1],
    }[how]
    for item in sketching.decoded(broken):
        assert isinstance(item, Fault) or item.client_id == "sender"


def test_what_is_cut_counts_for_its_sender_where_it_is_named() -> None:
    whole = json.dumps(GENUINE | {"prompt": "long"}).encode()
    seen = {"fault": 0, "lost": 0, "judged": 0}
    for end in range(len(whole)):
        [item] = sketching.decoded(whole[:end])
        if isinstance(item, Fault):
            seen["fault"] += 1
        else:
            assert isinstance(item, Salvaged) and item.client_id == "sender" and item.unread == ("record",)
            seen["lost" if item.lost else "judged"] += 1
            assert item.lost or (item.features, item.ts) == ({"income": 1.0}, 1.74e9)
    assert min(seen.values()) > 10


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text(alphabet='[]{}",:\\ \na1', max_size=60).map(str.encode)))
def test_any_bytes_give_requests_or_faults(value: bytes) -> None:
    found = sketching.decoded(value)
    assert len(found) == len(native.elements(value))
    assert all(isinstance(item, Fault) for item in found)


JSON = st.recursive(st.none() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=12)


@settings(max_examples=200, deadline=None)
@given(st.lists(JSON, max_size=5))
def test_a_broken_array_splits_as_json_would(items: list[object]) -> None:
    whole = json.dumps([*items, "last"]).encode()
    assert [json.loads(text) for text in split(whole)] == [*items, "last"]
    assert [json.loads(text) for text in split(whole[:-1] + b",NaN]")][:-1] == [*items, "last"]


@pytest.mark.parametrize("depth", [1, NESTING_MAX - 1, NESTING_MAX, 900, 50_000])
def test_nesting_is_limited_wherever_the_caller_stands(depth: int) -> None:
    value = GOOD[0][:-1] + b',"x":' + b"[" * (depth - 1) + b'"]]]]"' + b"]" * (depth - 1) + b"}"
    assert is_deep(value) == (depth > NESTING_MAX)
    expected = ["r-0*"] if depth > NESTING_MAX else ["r-0"]
    assert ids(value) == ids(b"[" + value + b"]") == expected

    def deeper(calls: int) -> list[str]:
        return deeper(calls - 1) if calls else ids(value)

    assert deeper(300) == expected


def test_many_brackets_are_not_depth() -> None:
    chat = [{"role": "user", "content": "[[[{{{"}] * 2_000
    value = json.dumps(json.loads(GOOD[0]) | {"prompt": chat}).encode()
    assert not is_deep(value) and ids(value) == ["r-0"]


def test_each_phrase_of_msgspec_is_met() -> None:
    """What a fault says rests on how msgspec words its errors: a release that words them anew must fail here."""
    changes: list[dict[str, object]] = [
        {"client_id": ""}, {"client_id": "x" * 600}, {"tokens_in": -1}, {"tokens_in": 2**40},
        {"ts": "x"}, {"ts": "2025-01-01T00:00:00"}, {"client_class": "x"},
    ]  # fmt: skip
    texts = [json.dumps(json.loads(GOOD[0]) | change).encode() for change in changes]
    texts.append(GOOD[1].replace(b'"score": 0.', b'"score": 1e999, "x": 0.'))
    texts.append(GOOD[1].replace(b'"label": ', b'"label": 1' + b"0" * 5_000 + b', "x": '))
    met = set()
    for text in texts:
        with pytest.raises(msgspec.ValidationError) as caught:
            native.decode_one(text)
        met |= {phrase for phrase, _, _ in _PHRASES if str(caught.value).startswith(phrase)}
        fault = native.SHAPE.decode(text)
        assert isinstance(fault, Fault) and fault.got != "something else"
    assert met == {phrase for phrase, _, _ in _PHRASES}


def test_decode_one_raises_only_what_is_caught() -> None:
    for value in (b"", b"[]", b"\xff", b"{}", b'{"ts":"\xff"}', b"[" * 10_000, GOOD[0] + GOOD[1]):
        with pytest.raises(UNREADABLE):
            native.decode_one(value)


VECTOR = np.arange(1, 9, dtype="<f4") / 7
TEXT = base64.b64encode(VECTOR.tobytes()).decode()
FORMS = [
    VECTOR.tolist(),
    TEXT,
    json.dumps(VECTOR.tolist()),
    json.dumps(VECTOR.tolist(), separators=(",", ":")),
    {"data": TEXT},
    {"data": VECTOR.tolist()},
    {"model": "m", "dim": 8, "encoding": "base64", "dtype": "float32", "data": TEXT},
    {"model": "m", "dim": 8, "encoding": "float", "dtype": "float32", "data": VECTOR.tolist()},
]


@pytest.mark.parametrize("form", FORMS, ids=range(len(FORMS)))
def test_every_form_of_an_embedding_is_the_same_vector(form: object) -> None:
    read = msgspec.convert([form] * 3, list[list[float] | str | EmbeddingObject])
    for batch in (read, [*read, "no base64", VECTOR.tolist()]):
        vectors, faults = read_vectors(batch, 8)
        assert vectors.dtype == np.float32
        assert (vectors[:3] == VECTOR).all()
        assert {fault.row for fault in faults} == ({3} if len(batch) == 5 else set())


def test_brackets_that_close_what_was_never_opened_are_text() -> None:
    for value in (b']\n["\n{\n{', b"]]\n[\n{", b"}\n[{\n{", b"]\n[,\n{},\n{"):
        assert native.ADAPTER.number(value, 1) > 0
        assert native.ADAPTER.number(value, len(value) + 1) >= len(native.ADAPTER.elements(value)) > 0
