"""The contract of a log format: what its file in this folder declares as `ADAPTER`."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from streams.adapters.request import Request
from streams.adapters.scanner import Scanner
from streams.wire.rejects import Fault, Headers

Decode = Callable[[bytes, Headers, frozenset[str]], Request | Fault]


def whole(value: bytes) -> Sequence[bytes]:
    """The elements of a format whose messages hold one request each."""
    return (value,)


def one(value: bytes, enough: int) -> int:
    """Their number."""
    return 1


class Adapter(NamedTuple):
    """One log format. `input.formats` names the format of a raw topic.

    `decode` and `elements` never raise, whatever the bytes. Nothing that a client may send hides it: where the client
    can be named, the result is a request without what cannot be read (`Salvaged`), and only else a Fault. A Fault names
    a field of the format, never a value from the record. Results depend on the arguments alone: no clock, no files, no
    state. `tests/adapters/test_conformance.py` checks all of this for every adapter of the registry.

    Example, a format of one JSON object per message:

        class Line(Struct):
            at: float
            user: Identifier
            request: Identifier
            answer: Label | None = None

        SHAPE = JsonShape(Line, {"at": "a number", "user": "a string", "request": "a string", "answer": "a string"})

        def decode(element: bytes, headers: Headers, features: frozenset[str]) -> Request | Fault:
            line = SHAPE.decode(element, features)
            if isinstance(line, Fault):
                found = members(element)
                known = {"ts": "at", "client_id": "user", "request_id": "request"}
                texts = {name: found.values[own] for name, own in known.items() if own in found.values}
                return request_of(texts | {"model": b'"chat"'}, lambda: line, is_whole=found.is_whole)
            return Request(line.at, line.user, "chat", line.request, output=Output(label=line.answer))

        ADAPTER = Adapter("chat-log", decode)
    """

    name: str
    """What `input.formats` calls it: lower-case letters, digits and hyphens."""

    decode: Decode
    """(element, headers, features) to a Request or Fault. Never raises.

    element : one of `elements`, at most `input.max_record_bytes` long; empty if the message has no value.
    headers : of the Kafka message, name and bytes; empty if it comes from a file. Not trusted.
    features : names of table fields that a Fault may contain. Every other name inside a record comes from the log.
    """

    elements: Callable[[bytes], Sequence[bytes]] = whole
    """The parts of a message that hold one request each, in order; `(value,)` where they are not cut. Never raises.

    A dead letter carries only the bad elements of a message. Each element, sent as a message of its own, must decode to
    the same result again.
    """

    number: Callable[[bytes, int], int] = one
    """(value, enough) to the number of elements, without making them; only a bound where it is not above `enough`."""

    decode_one: Callable[[bytes], Request] | None = None
    """Optional fast path for a good element. Returns what `decode` returns for it, and raises one of
    json_text.UNREADABLE for every other one. A format whose messages are cut should have it: of the elements that it
    does not take, `decode` only gets as many as the length of the message pays for (`streams/sketch/elements.py`)."""

    scanner: Callable[[], Scanner] | None = None
    """Optional fast path for many messages at once, without an object for each; only for formats whose good messages
    are JSON objects with the members of `Request`. Returns what `decode` returns for each message that it takes."""
