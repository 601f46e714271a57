"""The project's own log format, `probewatch.request/1`: an object, an array of objects, or NDJSON.

docs/formats/requests.md describes it.
"""

from streams.adapters.base import Adapter
from streams.adapters.json_shape import JsonShape
from streams.adapters.json_text import split
from streams.adapters.request import EXPECTED, Request
from streams.adapters.scanner import Scanner
from streams.wire.rejects import Fault, Headers

SHAPE = JsonShape(Request, EXPECTED, table="features", items={"embedding": "a number", "embedding.data": "a number"})

decode_one = SHAPE.decode_one
elements = split


def decode(value: bytes, headers: Headers, features: frozenset[str] = frozenset()) -> list[Request | Fault]:
    """Every element of a message, in order; a bad one is a Fault in its place. Never raises."""
    return [SHAPE.decode(text, features) for text in split(value)]


ADAPTER = Adapter("native", decode, elements, decode_one, Scanner)
