"""A second log format, of tests alone: one nested JSON object per line, as a scoring gateway might write it."""

from datetime import datetime

import msgspec

from streams.adapters.base import Adapter
from streams.adapters.json_members import members
from streams.adapters.json_shape import JsonShape
from streams.adapters.json_text import count_elements, split
from streams.adapters.request import Identifier, Label, Output, Request, Time
from streams.adapters.salvage import request_of
from streams.wire.rejects import Fault, Headers


class Caller(msgspec.Struct):
    name: Identifier


class Scored(msgspec.Struct):
    model: Identifier
    fields: dict[str, float | str | bool | None]


class Line(msgspec.Struct, rename={"answer": "class"}):
    at: Time | float
    call: Identifier
    caller: Caller
    scored: Scored
    p: float
    answer: Label | None = None


SHAPE = JsonShape(
    Line,
    {
        "at": "an RFC 3339 time with an offset, or seconds since 1970",
        "call": "a string",
        "caller": "an object",
        "caller.name": "a string",
        "scored": "an object",
        "scored.model": "a string",
        "scored.fields": "an object of numbers, strings, booleans and nulls",
        "p": "a number",
        "class": "a string",
    },
    table="scored.fields",
)


def decode(element: bytes, headers: Headers, features: frozenset[str] = frozenset()) -> Request | Fault:
    line = SHAPE.decode(element, features)
    if isinstance(line, Fault):
        return _salvaged(element, line)
    at = line.at.timestamp() if isinstance(line.at, datetime) else line.at
    output = Output(line.answer, line.p)
    return Request(at, line.caller.name, line.scored.model, line.call, line.scored.fields, output=output)


def _salvaged(text: bytes, fault: Fault) -> Request | Fault:
    """The same members under the names of Request's fields."""
    whole = members(text)
    caller, scored = (members(whole.values.get(name, b"")) for name in ("caller", "scored"))
    answer = b",".join(
        b'"%b":%b' % (name, whole.values[own])
        for name, own in ((b"label", "class"), (b"score", "p"))
        if own in whole.values
    )
    texts = {
        "ts": whole.values.get("at"),
        "request_id": whole.values.get("call"),
        "client_id": caller.values.get("name"),
        "model": scored.values.get("model"),
        "features": scored.values.get("fields"),
        "output": b"{%b}" % answer,
    }
    known = {name: value for name, value in texts.items() if value is not None}
    return request_of(known, lambda: fault, is_whole=whole.is_whole and caller.is_whole and scored.is_whole)


ADAPTER = Adapter("scoring-log", decode, split, count_elements)
