"""From a failed decode to a Fault. Slow and careful: decoders' own messages may quote a record, ours may not."""

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from streams.adapters.json_text import NESTING_MAX, UNREADABLE, is_deep
from streams.adapters.request import EXPECTED, Request
from streams.wire.rejects import Fault

JSON_EXPECTED = "JSON: an object, an array of objects, or one object a line"

_PATH = re.compile(r" - at `\$\.?([^`]*)`\Z")
_STEP = re.compile(r"[a-z_]+|\[\d+\]")
_MISSING = re.compile(r"Object missing required field `([a-z_]+)`")
_GOT = re.compile(r", got `([a-z]+)`(?: - at |\Z)")
_BYTE = re.compile(r"\(byte (\d+)\)\Z")
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "null": "null",
    "object": "an object",
    "array": "an array",
}
_PHRASES = (
    ("Expected `str` of length >=", "an empty one", "range"),
    ("Expected `str` of length <=", "a longer one", "range"),
    ("Expected `int` >=", "a smaller number", "range"),
    ("Expected `int` <=", "a larger number", "range"),
    ("Number out of range", "a number beyond 64-bit floats", "range"),
    ("Integer value out of range", "a larger number", "range"),
    ("Invalid RFC3339", "another string", "type"),
    ("Expected `datetime` with a timezone", "a time without an offset", "type"),
    ("Invalid enum value", "another string", "type"),
)
"""Beginnings of msgspec's messages, what they say about the value, and the reason. Tested one by one."""

_decode = msgspec.json.Decoder(Request).decode
_feature_names = msgspec.json.Decoder(dict[str, Any]).decode


class _NotFinite:
    """Where the text said NaN or Infinity, which JSON does not know and Python's encoder writes all the same."""


def blame(text: bytes, features: Collection[str] = ()) -> Fault:
    """The fault of an element that does not decode to a Request.

    features : names of table fields that may be named in a fault; others come from the log and stay out.
    """
    if not text.strip():
        return Fault("record", JSON_EXPECTED, "nothing", "malformed")
    if is_deep(text):
        return Fault("record", f"at most {NESTING_MAX} levels of nesting", "more", "nesting")
    try:
        _decode(text)
    except msgspec.ValidationError as error:
        return _invalid(str(error), text, features)
    except UNREADABLE as error:
        return _malformed(error, text, features)
    raise AssertionError("only what does not decode is blamed")


def _invalid(message: str, text: bytes, features: Collection[str]) -> Fault:
    """msgspec's message names our fields and JSON's kinds, but quotes a wrong client class: it is never passed on."""
    path = _PATH.search(message)
    steps = _STEP.findall(path[1]) if path is not None else []
    field = ".".join(step for step in steps if not step.startswith("["))
    missing = _MISSING.match(message)
    if missing is not None:
        field = f"{field}.{missing[1]}" if field else missing[1]
        return Fault(field, EXPECTED[field], "nothing", "missing")
    if not field:
        return Fault("record", "an object", _kind(message), "type")
    index = next((step for step in steps if step.startswith("[")), "")
    expected = "a number" if index and field.startswith("embedding") else EXPECTED[field]
    for beginning, got, reason in _PHRASES:
        if message.startswith(beginning):
            return Fault(field + index, expected, got, reason)  # type: ignore[arg-type]
    if field == "features" and message.count("[...]"):
        return Fault(_feature(text, features), "a number, a string, true, false or null", _kind(message), "type")
    return Fault(field + index, expected, _kind(message), "type")


def _kind(message: str) -> str:
    got = _GOT.search(message)
    return _KINDS.get(got[1], "something else") if got is not None else "something else"


def _feature(text: bytes, known: Collection[str]) -> str:
    try:
        found = _feature_names(text).get("features")
    except UNREADABLE:
        return "features"
    wrong = (name for name, value in found.items() if isinstance(value, list | dict)) if isinstance(found, dict) else ()
    return next((f"features.{name}" for name in wrong if name in known), "features")


def _malformed(error: Exception, text: bytes, features: Collection[str]) -> Fault:
    """Not JSON; but where Python's lenient reader copes, the field can be named: NaN, or bytes that are not UTF-8."""
    try:
        lenient = json.loads(text.decode("utf-8", "surrogateescape"), parse_constant=lambda _: _NotFinite)
    except (ValueError, RecursionError):
        lenient = None
    for field, value in _leaves(lenient, features):
        if value is _NotFinite:
            return Fault(field, "a finite number", "NaN or infinity", "malformed")
        if isinstance(value, str) and not _is_unicode(value):
            return Fault(field, "UTF-8", "text that is not Unicode", "malformed")
    at = _BYTE.search(str(error)) if isinstance(error, msgspec.DecodeError) else None
    if at is not None:
        return Fault("record", JSON_EXPECTED, f"other text from byte {at[1]} on", "malformed")
    got = "text that is not Unicode" if isinstance(error, UnicodeDecodeError) else "text that ends too early"
    return Fault("record", JSON_EXPECTED, got, "malformed")


def _leaves(record: object, features: Collection[str]) -> Iterator[tuple[str, object]]:
    """Every key and value below a record, with the innermost field known to us that holds it, or "record"."""
    pending: list[tuple[str, object]] = [("record", record)]
    while pending:
        field, value = pending.pop()
        yield field, value
        if isinstance(value, dict):
            for name, inner in value.items():
                path = name if field == "record" else f"{field}.{name}"
                known = path in EXPECTED or (field == "features" and name in features)
                place = path if known else field
                pending += [(place, name), (place, inner)]
        elif isinstance(value, list):
            pending += [(field, inner) for inner in value]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
