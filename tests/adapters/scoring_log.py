"""A second log format, of tests alone: one nested JSON object per line, as a scoring gateway might write it."""

from datetime import datetime

import msgspec

from streams.adapters.base import Adapter
from streams.adapters.json_shape import JsonShape
from streams.adapters.json_text import split
from streams.adapters.request import Identifier, Label, Output, Request, Time
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


def decode(value: bytes, headers: Headers, features: frozenset[str] = frozenset()) -> list[Request | Fault]:
    return [_request(SHAPE.decode(text, features)) for text in split(value)]


def _request(line: Line | Fault) -> Request | Fault:
    if isinstance(line, Fault):
        return line
    at = line.at.timestamp() if isinstance(line.at, datetime) else line.at
    output = Output(line.answer, line.p)
    return Request(at, line.call, line.caller.name, line.scored.model, line.scored.fields, output=output)


ADAPTER = Adapter("scoring-log", decode, split)
