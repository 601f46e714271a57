"""The project's own log format, `probewatch.request/1`: an object, an array of objects, or NDJSON.

docs/formats/requests.md describes it.
"""

from functools import partial

from streams.adapters.base import Adapter
from streams.adapters.json_shape import JsonShape
from streams.adapters.json_text import UNREADABLE, split
from streams.adapters.request import EXPECTED, Request
from streams.adapters.salvage import salvaged
from streams.adapters.scanner import Scanner
from streams.wire.rejects import Fault, Headers

SHAPE = JsonShape(Request, EXPECTED, table="features", items={"embedding": "a number", "embedding.data": "a number"})

decode_one = SHAPE.decode_one
elements = split


def decode(value: bytes, headers: Headers, features: frozenset[str] = frozenset()) -> list[Request | Fault]:
    """Every element of a message, in order; one that names no client is a Fault in its place. Never raises."""
    return [_element(text, features) for text in split(value)]


def _element(text: bytes, features: frozenset[str]) -> Request | Fault:
    try:
        return SHAPE.decode_one(text)
    except UNREADABLE as error:
        return salvaged(text, partial(SHAPE.explained, error, text, features))


ADAPTER = Adapter("native", decode, elements, decode_one, Scanner)
