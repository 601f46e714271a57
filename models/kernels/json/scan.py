"""JSON objects to columns: many texts in one walk, no Python object for any value.

Reads what is plain and refuses everything else, never the other way round: a record that is refused here may be good,
one that is taken is one that a strict decoder takes, with the same values. Texts stand one behind the other, each
followed by a NUL, which is in no JSON: no loop has to look where its text ends.
"""

from typing import NamedTuple

import numpy as np

from models.kernels.jit import kernel
from models.kernels.json.decimals import MINUS, NINE, ZERO, read_decimal
from models.kernels.numbers import HIGHS, ONES, byte_at, bytes_equal, word_at, zero_bits_below
from models.rows import F64, I32, I64, U8

ABSENT, NULL, TRUE, FALSE, WHOLE, NUMBER, TEXT, ESCAPED, NUMBERS, OBJECT = range(10)
"""What a value is. WHOLE : a number without point and power. TEXT : without escapes and pure ASCII or not (`wide`).
NUMBERS : an array of numbers; start and end are places in the pool. OBJECT : of plain values; places among members."""

DEPTH_MAX = 60
KEY_SLOTS = 64
QUOTE, BACKSLASH, OPEN, CLOSE, OPEN_LIST, CLOSE_LIST, COMMA, COLON, LOWER_U = b'"\\{}[],:u'
SPACES = np.uint64(32)
ASCII_END = 128

_HEX = np.zeros(256, np.uint8)
_HEX[list(b"0123456789abcdefABCDEF")] = 1
_ESCAPE = np.zeros(256, np.uint8)
_ESCAPE[list(b'"\\/bfnrt')] = 1
_NULL, _TRUE, _FALSE = (np.frombuffer(word, np.uint8) for word in (b"null", b"true", b"false"))


class Keys(NamedTuple):
    """The keys of an object that are looked for. letters : one behind the other; key k owns start[k]:start[k + 1].

    slots : (KEY_SLOTS,) hash of a key -> its number, -1 for none. allowed : (k,) bit mask of kinds. mix : of the hash.
    """

    letters: U8
    start: I64
    slots: I64
    allowed: I64
    mix: I64


class Values(NamedTuple):
    """What was found in n records at k keys, all (k, n). For texts, start and end are places in the text."""

    kind: U8
    start: I32
    end: I32
    number: F64


class ObjectMembers(NamedTuple):
    """Members of objects, one behind the other. key, key_end : places in the text; the others as in Values."""

    key: I32
    key_end: I32
    kind: U8
    start: I32
    end: I32
    number: F64


@kernel
def scan_records(
    text: U8, begin: I64, keys: Keys, output_keys: Keys, output: int, values: Values, members: ObjectMembers, pool: F64,
    state: U8,
) -> None:  # fmt: skip
    """Read n records in place.

    text : every record is followed by NUL, the last one by nine
    begin : (n + 1,) record i is text[begin[i]:begin[i + 1] - 1]
    output : the key of `keys` whose object is read by `output_keys`, whose values follow those of `keys`
    values : kind 0 throughout   members, pool : long enough for all members and numbers that the text may hold
    state : (n,) 0 refused, 1 read, 2 read and not pure ASCII
    """
    member, number = 0, 0
    for i in range(len(begin) - 1):
        at, wide = begin[i], 0
        state[i] = 0
        at = skip_space(text, at)
        if byte_at(text, at) != OPEN:
            continue
        at = skip_space(text, at + 1)
        while byte_at(text, at) == QUOTE:
            first = at + 1
            close, flags = string_end(text, first)
            if close < 0 or flags & 1:
                at = -1
                break
            wide |= flags
            at = skip_space(text, close + 1)
            if byte_at(text, at) != COLON:
                at = -1
                break
            at = skip_space(text, at + 1)
            key = find_key(text, first, close, keys)
            if key < 0:
                at, flags = skip_value(text, at)
            elif values.kind[key, i] != ABSENT:
                at = -1
            elif key == output and byte_at(text, at) == OPEN:
                values.kind[key, i] = OBJECT
                at, flags = read_output(text, at, i, len(keys.allowed), output_keys, values)
            else:
                at, flags, member, number = read_value(text, at, i, key, keys, values, members, member, pool, number)
            wide |= flags
            if at < 0:
                break
            at = skip_space(text, at)
            if byte_at(text, at) != COMMA:
                break
            at = skip_space(text, at + 1)
            if byte_at(text, at) != QUOTE:
                at = -1
                break
        if at < 0 or byte_at(text, at) != CLOSE:
            continue
        at = skip_space(text, at + 1)
        if at == begin[i + 1] - 1:
            state[i] = 2 if wide & 2 else 1


@kernel
def skip_space(text: U8, at: int) -> int:
    while byte_at(text, at) == 32 or byte_at(text, at) == 10 or byte_at(text, at) == 13 or byte_at(text, at) == 9:
        at += 1
    return at


@kernel
def string_end(text: U8, at: int) -> tuple[int, int]:
    """Place of the quote that ends the string whose text begins at `at`, or -1; and 1 for escapes + 2 for non-ASCII."""
    flags = 0
    while True:
        word = word_at(text, at)
        stops = bytes_equal(word, QUOTE) | bytes_equal(word, BACKSLASH) | ((word - ONES * SPACES) & ~word & HIGHS)
        stops |= word & HIGHS
        if stops == 0:
            at += 8
            continue
        at += zero_bits_below(stops) >> 3
        c = byte_at(text, at)
        if c == QUOTE:
            return at, flags
        if c >= ASCII_END:
            flags |= 2
            at += 1
        elif c == BACKSLASH:
            flags |= 1
            c = byte_at(text, at + 1)
            if _ESCAPE[c]:
                at += 2
            elif c == LOWER_U and is_scalar(text, at + 2):
                at += 6
            else:
                return -1, flags
        else:
            return -1, flags


@kernel
def is_scalar(text: U8, at: int) -> bool:
    """Four hexadecimal digits that are no half of a surrogate pair."""
    for place in range(at, at + 4):
        if not _HEX[byte_at(text, place)]:
            return False
    return not (
        (byte_at(text, at) == 68 or byte_at(text, at) == 100) and byte_at(text, at + 1) >= 56
    )  # D or d, then 8 to F


@kernel
def find_key(text: U8, start: int, end: int, keys: Keys) -> int:
    """Number of the key that text[start:end] is, or -1."""
    length = end - start
    if length == 0:
        return -1
    slot = (length * keys.mix[0] + byte_at(text, start) * keys.mix[1] + byte_at(text, end - 1) * keys.mix[2]) & (
        KEY_SLOTS - 1
    )
    key = keys.slots[slot]
    if key < 0 or keys.start[key + 1] - keys.start[key] != length:
        return -1
    for place in range(length):
        if keys.letters[keys.start[key] + place] != byte_at(text, start + place):
            return -1
    return int(key)


@kernel
def read_value(
    text: U8, at: int, i: int, key: int, keys: Keys, values: Values, members: ObjectMembers, member: int, pool: F64,
    number: int,
) -> tuple[int, int, int, int]:  # fmt: skip
    """A value of record i into `values`; the place behind it or -1, its flags, and how full members and pool are."""
    c = byte_at(text, at)
    flags = 0
    if c == OPEN_LIST:
        values.start[key, i] = number
        at, number = read_numbers(text, at + 1, pool, number)
        values.end[key, i] = number
        kind = NUMBERS
    elif c == OPEN:
        values.start[key, i] = member
        at, flags, member = read_members(text, at + 1, members, member)
        values.end[key, i] = member
        kind = OBJECT
    else:
        at, flags, kind, start, end, value = read_scalar(text, at)
        values.start[key, i], values.end[key, i], values.number[key, i] = start, end, value
    values.kind[key, i] = kind
    if not (keys.allowed[key] >> kind) & 1:
        at = -1
    return at, flags, member, number


@kernel
def read_scalar(text: U8, at: int) -> tuple[int, int, int, int, int, float]:
    """Place behind it or -1, flags, kind, start and end of its text, and its value as a number."""
    c = byte_at(text, at)
    if c == QUOTE:
        close, flags = string_end(text, at + 1)
        kind = ESCAPED if flags & 1 else TEXT
        return (close + 1 if close >= 0 else -1), flags, kind, at + 1, close, 0.0
    if c == MINUS or ZERO <= c <= NINE:
        found = read_decimal(text, at)
        return found.end, 0, (WHOLE if found.whole else NUMBER), at, found.end, found.value
    if is_word(text, at, _NULL):
        return at + 4, 0, NULL, at, at, 0.0
    if is_word(text, at, _TRUE):
        return at + 4, 0, TRUE, at, at, 1.0
    if is_word(text, at, _FALSE):
        return at + 5, 0, FALSE, at, at, 0.0
    return -1, 0, ABSENT, at, at, 0.0


@kernel
def is_word(text: U8, at: int, word: U8) -> bool:
    for place in range(len(word)):  # noqa: SIM110  # kernels have no generators
        if byte_at(text, at + place) != word[place]:
            return False
    return True


@kernel
def read_numbers(text: U8, at: int, pool: F64, number: int) -> tuple[int, int]:
    """An array of numbers, behind its bracket, into the pool; the place behind it, or -1."""
    at = skip_space(text, at)
    if byte_at(text, at) == CLOSE_LIST:
        return at + 1, number
    while True:
        found = read_decimal(text, at)
        if found.end < 0:
            return -1, number
        pool[number] = found.value
        number += 1
        at = found.end
        if byte_at(text, at) != COMMA:
            at = skip_space(text, at)
            if byte_at(text, at) == CLOSE_LIST:
                return at + 1, number
            if byte_at(text, at) != COMMA:
                return -1, number
        at += 1
        if byte_at(text, at) <= 32:
            at = skip_space(text, at)


@kernel
def read_members(text: U8, at: int, members: ObjectMembers, member: int) -> tuple[int, int, int]:
    """An object of plain values, behind its bracket, into `members`; the place behind it or -1, and flags."""
    wide = 0
    at = skip_space(text, at)
    if byte_at(text, at) == CLOSE:
        return at + 1, 0, member
    while byte_at(text, at) == QUOTE:
        close, flags = string_end(text, at + 1)
        if close < 0 or flags & 1:
            return -1, 0, member
        wide |= flags
        members.key[member], members.key_end[member] = at + 1, close
        at = skip_space(text, close + 1)
        if byte_at(text, at) != COLON:
            return -1, 0, member
        at, flags, kind, start, end, value = read_scalar(text, skip_space(text, at + 1))
        if at < 0 or kind == ESCAPED:
            return -1, 0, member
        wide |= flags
        members.kind[member], members.start[member], members.end[member] = kind, start, end
        members.number[member] = value
        member += 1
        at = skip_space(text, at)
        if byte_at(text, at) == CLOSE:
            return at + 1, wide, member
        if byte_at(text, at) != COMMA:
            return -1, 0, member
        at = skip_space(text, at + 1)
    return -1, 0, member


@kernel
def read_output(text: U8, at: int, i: int, column: int, keys: Keys, values: Values) -> tuple[int, int]:
    """The object at `at` by `keys`, into the values of record i from `column` on; place behind it or -1, flags."""
    wide = 0
    at = skip_space(text, at + 1)
    if byte_at(text, at) == CLOSE:
        return at + 1, 0
    while byte_at(text, at) == QUOTE:
        first = at + 1
        close, flags = string_end(text, first)
        if close < 0 or flags & 1:
            return -1, 0
        wide |= flags
        at = skip_space(text, close + 1)
        if byte_at(text, at) != COLON:
            return -1, 0
        at = skip_space(text, at + 1)
        key = find_key(text, first, close, keys)
        if key < 0:
            at, flags = skip_value(text, at)
        elif values.kind[column + key, i] != ABSENT:
            return -1, 0
        else:
            at, flags, kind, start, end, value = read_scalar(text, at)
            values.kind[column + key, i], values.number[column + key, i] = kind, value
            values.start[column + key, i], values.end[column + key, i] = start, end
            if not (keys.allowed[key] >> kind) & 1:
                return -1, 0
        if at < 0:
            return -1, 0
        wide |= flags
        at = skip_space(text, at)
        if byte_at(text, at) == CLOSE:
            return at + 1, wide
        if byte_at(text, at) != COMMA:
            return -1, 0
        at = skip_space(text, at + 1)
    return -1, 0


@kernel
def skip_value(text: U8, at: int) -> tuple[int, int]:
    """The place behind any value that nests at most DEPTH_MAX deep, or -1, and flags."""
    depth, lists, wide = 0, np.uint64(0), 0  # lists : bit d tells whether level d is one
    while True:
        c = byte_at(text, at)
        if c in (OPEN, OPEN_LIST):
            depth += 1
            if depth > DEPTH_MAX:
                return -1, 0
            lists = (lists << np.uint64(1)) | np.uint64(c == OPEN_LIST)
            at = skip_space(text, at + 1)
            if byte_at(text, at) == (CLOSE_LIST if c == OPEN_LIST else CLOSE):
                at += 1
                depth -= 1
                lists >>= np.uint64(1)
            elif c == OPEN_LIST:
                continue
            else:
                at, flags = skip_key(text, at)
                wide |= flags
                if at < 0:
                    return -1, 0
                continue
        else:
            at, flags, _, _, _, _ = read_scalar(text, at)
            wide |= flags
            if at < 0:
                return -1, 0
        while depth > 0:  # a value ends here: close what closes
            at = skip_space(text, at)
            is_list = lists & np.uint64(1)
            if byte_at(text, at) == COMMA:
                at = skip_space(text, at + 1)
                if not is_list:
                    at, flags = skip_key(text, at)
                    wide |= flags
                    if at < 0:
                        return -1, 0
                break
            if byte_at(text, at) != (CLOSE_LIST if is_list else CLOSE):
                return -1, 0
            at += 1
            depth -= 1
            lists >>= np.uint64(1)
        if depth == 0:
            return at, wide


@kernel
def skip_key(text: U8, at: int) -> tuple[int, int]:
    """The place of the value behind the key at `at`, or -1, and flags."""
    if byte_at(text, at) != QUOTE:
        return -1, 0
    close, flags = string_end(text, at + 1)
    if close < 0:
        return -1, 0
    at = skip_space(text, close + 1)
    if byte_at(text, at) != COLON:
        return -1, 0
    return skip_space(text, at + 1), flags
