"""The project's own log format, `probewatch.request/1`: an object, an array of objects, or NDJSON.

docs/formats/requests.md describes it.
"""

from collections.abc import Sequence

import msgspec

from streams.adapters.faults import blame
from streams.adapters.json_text import SHALLOW_BYTES, UNREADABLE, is_deep, split
from streams.adapters.request import Request
from streams.adapters.scanner import Scanner
from streams.wire.rejects import Fault, Headers

name = "native"
scanner = Scanner

_decode = msgspec.json.Decoder(Request).decode


def decode_one(value: bytes) -> Request:
    """The usual case, one object. Raises one of UNREADABLE for everything else, arrays among it."""
    if len(value) > SHALLOW_BYTES and is_deep(value):
        raise RecursionError
    return _decode(value)


def decode(value: bytes, headers: Headers, features: frozenset[str] = frozenset()) -> list[Request | Fault]:
    """Every element of a message, in order; a bad one is a Fault in its place. Never raises.

    features : table fields that a Fault may name.
    """
    return [_element(text, features) for text in split(value)]


def elements(value: bytes) -> Sequence[bytes]:
    """The texts that `decode` read, in the same order."""
    return split(value)


def _element(text: bytes, features: frozenset[str]) -> Request | Fault:
    try:
        return decode_one(text)
    except UNREADABLE:
        return blame(text, features)
