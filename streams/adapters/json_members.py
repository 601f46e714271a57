"""The members of a JSON object whose text may be broken: read up to the first place that is no JSON, never beyond it.

What a user sent stands inside strings, with its quotes escaped, and cannot become a member: a member begins with a
quoted name outside of every string. What lies behind the first broken place might be inside a string after all, and is
not read (docs/adr/0019-salvage.md).
"""

import json
import re
from typing import NamedTuple

import msgspec
import numpy as np

from streams.adapters.json_text import UNREADABLE, is_deep, structure

MEMBERS_MAX = 4_096
"""Members of one object that are read; what follows is not."""

_SPACE = b" \t\r\n"
_COMMA, _COLON, _OPEN = b",:{"
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_STRINGS = rb'"(?:[^"\\]++|\\.)*+"'
_FLAT = rb'[\[{](?:[^"\\\[\]{}]++|' + _STRINGS + rb")*+[\]}]"
_NESTED = rb'[\[{](?:[^"\\\[\]{}]++|' + _STRINGS + rb"|" + _FLAT + rb")*+[\]}]"
_SCALAR = rb'[^\s"\\\[\]{},:]++'
_MEMBER = re.compile(
    rb"[ \t\r\n]*+(" + _STRINGS + rb")[ \t\r\n]*+:[ \t\r\n]*+("
    + _STRINGS + rb"|" + _NESTED + rb"|" + _SCALAR + rb")[ \t\r\n]*+([,}])",
    re.DOTALL,
)  # fmt: skip
"""A member and what follows it, if its value nests at most twice."""

_VALUE = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[^\s"\[\]{},:]++|[\[{].*[\]}]', re.DOTALL)
_WHOLE = re.compile(r"-?\d++(?:\.0++)?")

_text = msgspec.json.Decoder(str).decode
_raw_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Members(NamedTuple):
    """values : JSON text by name; the last of several of one name. is_whole : nothing is broken or left over."""

    values: dict[str, bytes]
    is_whole: bool


def members(text: bytes) -> Members:
    """Members of the object that `text` holds, as far as it can be read; values need not be JSON. Never raises.

    Of broken text, a value counts only where a comma or the closing bracket follows it: it may have been cut.
    """
    if not is_deep(text):
        try:
            return Members({name: bytes(value) for name, value in _raw_members(text).items()}, True)
        except UNREADABLE:
            pass
    return _broken_members(text.lstrip(_SPACE))


def _broken_members(body: bytes) -> Members:
    if body[:1] != b"{":
        return Members({}, False)
    return _shallow_members(body) or _any_members(body)


def _shallow_members(body: bytes) -> Members | None:
    """The usual case, a tenth of the price: only a value is no JSON, such as NaN. None if there is more to it."""
    values: dict[str, bytes] = {}
    place = 1
    for _ in range(MEMBERS_MAX):
        found = _MEMBER.match(body, place)
        if found is None:
            return Members(values, False) if values and body[place:].strip(_SPACE) == b"}" else None
        values[text_in(found[1])] = found[2]
        place = found.end()
        if found[3] == b"}":
            return Members(values, not body[place:].strip(_SPACE))
    return None


def _any_members(body: bytes) -> Members:
    values: dict[str, bytes] = {}
    letters, depth = structure(body)
    ends = np.flatnonzero(depth <= 0)
    end = int(ends[0]) if len(ends) else len(body)
    is_closed = body[end : end + 1] == b"}"
    outside = depth[:end] == 1
    commas = np.flatnonzero(outside & (letters[:end] == _COMMA))
    colons = np.flatnonzero(outside & (letters[:end] == _COLON))
    cuts = commas[:MEMBERS_MAX].tolist()
    if is_closed and len(cuts) < MEMBERS_MAX:
        cuts.append(end)
    if not cuts:
        return Members(values, False)
    if len(cuts) == 1 and not body[1:end].strip(_SPACE):
        return Members(values, not body[end + 1 :].strip(_SPACE))
    firsts = np.append(colons, len(body))[np.searchsorted(colons, np.array([0, *cuts[:-1]], np.int64))].tolist()
    start = 1
    for cut, colon in zip(cuts, firsts, strict=True):
        name, value = body[start:colon].strip(_SPACE), body[colon + 1 : cut].strip(_SPACE)
        if colon > cut or not _STRING.fullmatch(name) or not _VALUE.fullmatch(value):
            return Members(values, False)
        values[text_in(name)] = value
        start = cut + 1
    return Members(values, is_closed and start > end and not body[end + 1 :].strip(_SPACE))


def strict_text(value: bytes) -> str | None:
    """A JSON string; None for anything else, and for what is no Unicode."""
    try:
        return _text(value)
    except UNREADABLE:
        return None


def text_in(value: bytes) -> str:
    """The text of a JSON string, however broken: bytes that are no UTF-8 and halves of surrogate pairs stay what they
    are, and a string whose escapes are wrong is its raw text."""
    strict = strict_text(value)
    if strict is not None:
        return strict
    raw = value.decode("utf-8", "surrogateescape")
    try:
        return str(json.loads(raw, strict=False))
    except (ValueError, RecursionError):
        return raw[1:-1]


def whole_in(text: str) -> str | None:
    """The digits of a whole number in JSON, 12 and 12.0 alike; None for other text."""
    return text.partition(".")[0] if _WHOLE.fullmatch(text) else None
