"""Structure of JSON text that may be broken: nesting depth, elements of arrays, lines of NDJSON."""

import re
from collections.abc import Sequence
from itertools import pairwise

import msgspec
import numpy as np

from models.rows import I32, U8

NESTING_MAX = 500
"""Deeper values are rejected. Decoders recurse, and Python's limit of 1,000 calls counts the caller's stack too:
without a limit of our own, far below it, the same record could pass in a replay and fail live."""

SHALLOW_BYTES = 2 * NESTING_MAX
"""JSON up to this length cannot nest too deep: a level takes two brackets. Broken text may lack half of them."""

_STEP = np.zeros(256, np.int8)
_STEP[[ord("["), ord("{")]] = 1
_STEP[[ord("]"), ord("}")]] = -1
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_START = re.compile(rb"[ \t\r\n]*+(.?)", re.DOTALL)
_BLANK_LINES = re.compile(rb"\n[ \t\r\n]*\n")
_COMMA, _BRACKET = b",["
_CONTENT = bytes(set(range(256)) - set(b'[]{}",'))
"""Everything in JSON but its structure."""

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Everything that msgspec raises for a value that it cannot decode."""

_raw = msgspec.json.Decoder(msgspec.Raw)
_raw_list = msgspec.json.Decoder(list[msgspec.Raw])


def is_deep(value: bytes) -> bool:
    """Whether the text nests deeper than NESTING_MAX. Costs nothing for short text, little for text with few brackets.

    `replace` finds single bytes with memchr: 0.3 us for 1.5 kB, where `count` takes 1.7 us.
    """
    if len(value) <= NESTING_MAX:
        return False
    if 2 * len(value) - len(value.replace(b"[", b"")) - len(value.replace(b"{", b"")) <= NESTING_MAX:
        return False
    return int(structure(value)[1].max()) > NESTING_MAX


def split(value: bytes) -> Sequence[bytes]:
    """A message's elements: of an array its items, of NDJSON its lines, else the message itself.

    A line may hold an array too. Never raises. Where a bracket or quote is missing, the element that lacks it takes the
    rest of the array with it: to look for the next beginning inside it would let text that a user sent pose as a record
    of somebody else.
    """
    value = value.removeprefix(BYTE_ORDER_MARK)
    start = _START.match(value)
    if start is not None and start[1] == b"[":
        whole = _items(value)
        if whole is not None:
            return whole
    lines = [line for line in _squeezed(value).split(b"\n") if line.strip(_SPACE)]
    if _is_lines(lines):
        return [element for line in lines for element in (_split_array(line) if line[:1] == b"[" else (line,))]
    return _split_broken_array(value) if start is not None and start[1] == b"[" else [value]


def _is_lines(lines: Sequence[bytes]) -> bool:
    """NDJSON, though perhaps with bad lines: several begin an object, or one is complete. Indented JSON is neither.

    Behind a first line that begins an array, every line must begin one or an object, and one array must be complete.
    """
    if len(lines) < 2:
        return False
    if lines[0].lstrip(_SPACE)[:1] == b"[":
        arrays = (line for line in lines if line[:1] == b"[")
        return all(line[:1] in b"[{" for line in lines) and any(map(is_json, arrays))
    starts = [line for line in lines if line.startswith(b"{")]
    return len(starts) > 1 or any(map(is_json, starts))


def count_elements(value: bytes, enough: int) -> int:
    """How many elements `split` would make, without making them: a bound, and about right if above `enough`.

    A nanosecond a byte: half a million zeros in a megabyte would take fifty times as long to cut.
    """
    value = value.removeprefix(BYTE_ORDER_MARK)
    bound = value.count(b",") + 2 * value.count(b"\n") + 2
    if bound <= enough:
        return bound
    start = _START.match(value)
    if start is None or start[1] != b"[":
        return _lines(value) if _are_objects(value) else 1
    first, every = _inside(value)
    if first == every:
        return first
    text = _squeezed(value)
    lines = text.count(b"\n")
    return max(every, lines + 1) if lines and lines == text.count(b"\n[") + text.count(b"\n{") else first + 1


def _squeezed(value: bytes) -> bytes:
    return _BLANK_LINES.sub(b"\n", value).strip(b"\r\n")


def _lines(value: bytes) -> int:
    """Elements of NDJSON that begins with an object."""
    text = _squeezed(value)
    lines = text.count(b"\n") + 1
    return lines if b"\n[" not in text else max(lines, _inside(text)[1])


def _are_objects(value: bytes) -> bool:
    """_is_lines, of text that does not begin with an array."""
    first = 0 if value.startswith(b"{") else value.find(b"\n{") + 1
    if b"\n" not in value or not value.startswith(b"{", first):
        return False
    return b"\n{" in value[first:] or is_json(value[first:].partition(b"\n")[0])


def _inside(value: bytes) -> tuple[int, int]:
    """Elements of the first value at the top level, and of all of them; an object is one, and so is other text."""
    if b"\\" in value:
        value = value.replace(b"\\\\", b"").replace(b'\\"', b"")
    text, depth = structure(value.translate(None, _CONTENT))
    opened = np.flatnonzero((depth == 1) & (_STEP[text] == 1))
    if not len(opened):
        return 1, 1
    commas = np.flatnonzero((depth == 1) & (text == _COMMA))
    of = np.searchsorted(opened, commas) - 1
    elements = 1 + np.bincount(of[text[opened][of] == _BRACKET], minlength=len(opened))
    return int(elements[0]), int(elements.sum())


def is_json(text: bytes) -> bool:
    """Whether the text is one JSON value, not too deep."""
    if is_deep(text):
        return False
    try:
        _raw.decode(text)
    except UNREADABLE:
        return False
    return True


def _split_array(value: bytes) -> Sequence[bytes]:
    whole = _items(value)
    return _split_broken_array(value) if whole is None else whole


def _items(value: bytes) -> Sequence[bytes] | None:
    """The items of a whole array."""
    try:
        return [bytes(raw) for raw in _raw_list.decode(value)]
    except UNREADABLE:
        return None


def _split_broken_array(value: bytes) -> Sequence[bytes]:
    """By commas at the first level. What stands behind the end, or an end that is missing, is one more element, a bad
    one: so that it is reported, and alone."""
    text, depth = structure(value)
    first = value.index(b"[") + 1
    ends = np.flatnonzero(depth[first:] <= 0)
    end = first + int(ends[0]) if len(ends) else len(value)
    commas = first + np.flatnonzero((text[first:end] == ord(",")) & (depth[first:end] == 1))
    cuts = [first - 1, *commas.tolist(), end]
    elements = [value[a + 1 : b].strip(_SPACE) for a, b in pairwise(cuts)]
    rest = value[end + 1 :].strip(_SPACE)
    if rest or (not len(ends) and is_json(elements[-1])):
        elements.append(rest)
    return elements


def structure(value: bytes) -> tuple[U8, I32]:
    """The text with strings blanked, and the nesting depth after each byte; (len(value),) each."""
    if b"\\" in value:
        value = value.replace(b"\\\\", b"  ").replace(b'\\"', b"  ")
    text = np.frombuffer(value, np.uint8)
    inside = np.bitwise_xor.accumulate((text == ord('"')).view(np.uint8))
    text = np.where(inside == 1, np.uint8(0), text)
    return text, np.cumsum(_STEP[text], dtype=np.int32)


def is_unicode(text: str) -> bool:
    """Whether the text holds no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
