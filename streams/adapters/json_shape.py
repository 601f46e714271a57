"""JSON elements of one shape: to objects or to faults. Decoders' own messages may quote a record, a Fault may not."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any, Generic, TypeVar

import msgspec

from streams.adapters.json_text import NESTING_MAX, SHALLOW_BYTES, UNREADABLE, is_deep, is_unicode
from streams.wire.rejects import Fault

T = TypeVar("T", bound=msgspec.Struct)

JSON_EXPECTED = "JSON: an object, an array of objects, or one object a line"
NOT_DOCUMENTED = "another value"

LENIENT_BYTES = 2**16
"""Longer broken text is explained by the place where it breaks: Python's reader makes an object for every value."""

CONTAINER_BYTES = 64
"""So is text with more objects and arrays than one for each so many bytes: they make the garbage collector run."""

LEAF_BYTES = 16
"""Of dense text only so many values are looked at for one that has no place in JSON: one for each so many bytes."""

_PATH = re.compile(r" - at `\$\.?([^`]*)`\Z")
_STEP = re.compile(r"[^.\[\]]+|\[\d+\]")
_MISSING = re.compile(r"Object missing required field `([^`]+)`")
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

_members = msgspec.json.Decoder(dict[str, Any]).decode


class _NotFinite:
    """NaN or Infinity in the text: not JSON, but Python's encoder writes them."""


class JsonShape(Generic[T]):
    """The shape of a JSON format's elements: decodes them, and explains those that do not decode.

    shape : msgspec Struct of an element; members that it does not declare are skipped. Members of JSON objects that are
        declared as `dict` have names from the log.
    expected : dotted name of each member, as in the text, to what it may be. A Fault names these and no other members.
    table : dotted name of the object of model features, whose known members a Fault may name; "" if there is none.
    items : dotted name of a list to what its items may be, where that differs.
    """

    def __init__(
        self, shape: type[T], expected: Mapping[str, str], table: str = "", items: Mapping[str, str] | None = None
    ) -> None:
        self._decode = msgspec.json.Decoder(shape).decode
        self._expected = expected
        self._table = table
        self._items = items or {}

    def decode_one(self, text: bytes) -> T:
        """A good element. Raises one of UNREADABLE for every other one."""
        if len(text) > SHALLOW_BYTES and is_deep(text):
            raise RecursionError
        return self._decode(text)

    def decode(self, text: bytes, features: Collection[str] = ()) -> T | Fault:
        """An element, or what is wrong with it. Never raises.

        features : names of members of `table` that a Fault may contain.
        """
        try:
            return self.decode_one(text)
        except UNREADABLE as error:
            return self.explained(error, text, features)

    def explained(self, error: Exception, text: bytes, features: Collection[str]) -> Fault:
        """What is wrong with an element for which `decode_one` raised this error. Never raises."""
        if not text.strip():
            return Fault("record", JSON_EXPECTED, "nothing", "malformed")
        if is_deep(text):
            return Fault("record", f"at most {NESTING_MAX} levels of nesting", "more", "nesting")
        if isinstance(error, msgspec.ValidationError):
            return self._invalid(str(error), text, features)
        return self._malformed(error, text, features)

    def _invalid(self, message: str, text: bytes, features: Collection[str]) -> Fault:
        """From msgspec's message: it names declared members and kinds of JSON, but may quote a value."""
        path = _PATH.search(message)
        steps = _STEP.findall(path[1]) if path is not None else []
        missing = _MISSING.match(message)
        if missing is not None:
            field = _dotted([*steps, missing[1]])
            return Fault(field, self._expectation(field), "nothing", "missing")
        if not steps:
            return Fault("record", "an object", _kind(message), "type")
        field, name = _dotted(steps), _dotted(steps, indexed=True)
        expected = self._expectation(field, is_item=steps[-1].startswith("["))
        for beginning, got, reason in _PHRASES:
            if message.startswith(beginning):
                return Fault(name, expected, got, reason)  # type: ignore[arg-type]
        if field == self._table and message.count("[...]"):
            kinds = "a number, a string, true, false or null"
            return Fault(self._feature(text, features), kinds, _kind(message), "type")
        return Fault(name, expected, _kind(message), "type")

    def _expectation(self, field: str, *, is_item: bool = False) -> str:
        expected = self._expected.get(field, NOT_DOCUMENTED)
        return self._items.get(field, expected) if is_item else expected

    def _feature(self, text: bytes, features: Collection[str]) -> str:
        """The first member of the table that is no scalar, if its name is known; else the table."""
        try:
            inner: Any = _members(text)
        except UNREADABLE:
            return self._table
        for step in self._table.split("."):
            inner = inner.get(step) if isinstance(inner, dict) else None
        table = inner if isinstance(inner, dict) else {}
        wrong = (name for name, value in table.items() if isinstance(value, list | dict))
        return next((f"{self._table}.{name}" for name in wrong if name in features), self._table)

    def _malformed(self, error: Exception, text: bytes, features: Collection[str]) -> Fault:
        """Not JSON; where Python's lenient reader copes, the field can be named: NaN, or bytes that are not UTF-8."""
        lenient: object = None
        try:
            if len(text) <= LENIENT_BYTES and text.count(b"[") + text.count(b"{") <= 64 + len(text) // CONTAINER_BYTES:
                lenient = json.loads(text.decode("utf-8", "surrogateescape"), parse_constant=lambda _: _NotFinite)
        except (ValueError, RecursionError):
            pass
        for field, value in islice(self._leaves(lenient, features), 64 + len(text) // LEAF_BYTES):
            if value is _NotFinite:
                return Fault(field, "a finite number", "NaN or infinity", "malformed")
            if isinstance(value, str) and not is_unicode(value):
                return Fault(field, "UTF-8", "text that is not Unicode", "malformed")
        at = _BYTE.search(str(error)) if isinstance(error, msgspec.DecodeError) else None
        if at is not None:
            return Fault("record", JSON_EXPECTED, f"other text from byte {at[1]} on", "malformed")
        got = "text that is not Unicode" if isinstance(error, UnicodeDecodeError) else "text that ends too early"
        return Fault("record", JSON_EXPECTED, got, "malformed")

    def _leaves(self, record: object, features: Collection[str]) -> Iterator[tuple[str, object]]:
        """Every key and value below a record, with the innermost declared member that holds it, or "record"."""
        pending: list[tuple[str, object]] = [("record", record)]
        while pending:
            field, value = pending.pop()
            yield field, value
            if isinstance(value, dict):
                for name, inner in value.items():
                    path = name if field == "record" else f"{field}.{name}"
                    is_named = path in self._expected or (field == self._table and name in features)
                    place = path if is_named else field
                    pending += [(place, name), (place, inner)]
            elif isinstance(value, list):
                pending += [(field, inner) for inner in value]


def _dotted(steps: list[str], *, indexed: bool = False) -> str:
    """`messages[0].role`, or without its indices `messages.role`."""
    kept = steps if indexed else [step for step in steps if not step.startswith("[")]
    return ".".join(kept).replace(".[", "[")


def _kind(message: str) -> str:
    got = _GOT.search(message)
    return _KINDS.get(got[1], "something else") if got is not None else "something else"
