"""The project's own log format, `probewatch.request/1`: an object, an array of objects, or NDJSON.

docs/formats/requests.md describes it.
"""

from functools import partial

from streams.adapters.base import Adapter
from streams.adapters.json_shape import JsonShape
from streams.adapters.json_text import UNREADABLE, count_elements, split
from streams.adapters.request import EXPECTED, Request
from streams.adapters.salvage import salvaged
from streams.adapters.scanner import Scanner
from streams.wire.rejects import Fault, Headers

SHAPE = JsonShape(Request, EXPECTED, table="features", items={"embedding": "a number", "embedding.data": "a number"})

decode_one = SHAPE.decode_one
elements = split


def decode(element: bytes, headers: Headers, features: frozenset[str] = frozenset()) -> Request | Fault:
    """One element of a message; a Fault if it names no client. Never raises."""
    try:
        return SHAPE.decode_one(element)
    except UNREADABLE as error:
        return salvaged(element, partial(SHAPE.explained, error, element, features))


ADAPTER = Adapter("native", decode, elements, count_elements, decode_one, Scanner)
