"""Scanner of many native messages at once, as columns. Unusual messages are left to the decoder."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.kernels.json import scan
from models.kernels.json.scan import Keys, ObjectMembers, Values
from models.rows import F64, U8
from streams.adapters.request import Output, Request

(TS, CLIENT_ID, MODEL, REQUEST_ID, FEATURES, EMBEDDING, OUTPUT, CLIENT_CLASS, OPERATION, TOKENS_IN, TOKENS_OUT) = range(
    11
)
LABEL, SCORE, SCORES, REFUSED = range(11, 15)
"""Rows of the columns: a request's fields in their order, then those of its output."""

FIELDS = Request.__struct_fields__
"""Names of the first eleven."""

MARGIN = 9
"""NULs behind the text: the scanner looks at eight bytes at once."""


class Scanned(NamedTuple):
    """n messages. plain : (n,) bool, whether a message was read; for the others the columns mean nothing.

    text : all of them, one behind the other. values : (15, n) each. members, pool : what objects and arrays hold.
    """

    text: U8
    plain: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
    values: Values
    members: ObjectMembers
    pool: F64


class Scanner:
    """Keeps its memory between calls: what a call returned is overwritten by the next one."""

    def __init__(self) -> None:
        self._capacity = 0
        self._members = _members(0)
        self._pool: F64 = np.empty(0)

    def scan(self, messages: Sequence[bytes], most: int) -> Scanned:
        """A message is plain if it is one object of at most `most` bytes, without escapes in what is read of it. What
        is plain decodes, and to these values."""
        n = len(messages)
        lengths = np.fromiter(map(len, messages), np.int64, n)
        if n and lengths.max() > most:
            messages = [b"" if len(message) > most else message for message in messages]
            lengths[lengths > most] = 0
        text = np.frombuffer(b"\0".join(messages) + b"\0" * MARGIN, np.uint8)
        begin = np.zeros(n + 1, np.int64)
        np.cumsum(lengths + 1, out=begin[1:])
        self._grow(len(text))
        values = Values(
            np.zeros((15, n), np.uint8), np.empty((15, n), np.int32), np.empty((15, n), np.int32), np.empty((15, n))
        )
        state = np.empty(n, np.uint8)
        scan.scan_records(text, begin, _REQUEST, _OUTPUT, OUTPUT, values, self._members, self._pool, state)
        for place in np.flatnonzero(state == 2).tolist():
            state[place] = _is_unicode(messages[place])
        return Scanned(text, state > 0, values, self._members, self._pool)

    def _grow(self, length: int) -> None:
        if length > self._capacity:
            self._capacity = length + length // 4
            self._members = _members(self._capacity // 5 + 1)  # the shortest member is `"":0,`
            self._pool = np.empty(self._capacity // 2 + 1)  # the shortest number is `0,`


def _members(count: int) -> ObjectMembers:
    places = (np.empty(count, np.int32) for _ in range(4))
    key, key_end, start, end = places
    return ObjectMembers(key, key_end, np.empty(count, np.uint8), start, end, np.empty(count))


def _is_unicode(message: bytes) -> bool:
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True


def _keys(names: Sequence[str], kinds: Sequence[Sequence[int]]) -> Keys:
    letters = [name.encode() for name in names]
    starts = np.cumsum([0, *map(len, letters)])
    allowed = np.array([sum(1 << kind for kind in some) for some in kinds], np.int64)
    rng = np.random.default_rng(0)
    while True:  # until no two names share a slot
        mix = rng.integers(1, scan.KEY_SLOTS, 3)
        places = [
            (len(word) * int(mix[0]) + word[0] * int(mix[1]) + word[-1] * int(mix[2])) % scan.KEY_SLOTS
            for word in letters
        ]
        if len(set(places)) == len(names):
            break
    slots = np.full(scan.KEY_SLOTS, -1, np.int64)
    slots[places] = np.arange(len(names))
    return Keys(np.frombuffer(b"".join(letters), np.uint8), starts.astype(np.int64), slots, allowed, mix)


_NAME, _ANY_NAME = (scan.TEXT,), (scan.NULL, scan.TEXT)
_ID = (scan.TEXT, scan.WHOLE)
_COUNT = (scan.NULL, scan.WHOLE)
_REQUEST = _keys(
    Request.__struct_fields__,
    (
        (scan.TEXT, scan.WHOLE, scan.NUMBER), _ID, _NAME, (scan.NULL, *_ID),
        (scan.NULL, scan.OBJECT), (scan.NULL, scan.TEXT, scan.NUMBERS), (scan.NULL, scan.OBJECT),
        _ANY_NAME, _ANY_NAME, _COUNT, _COUNT,
    ),
)  # fmt: skip
_OUTPUT = _keys(
    Output.__struct_fields__,
    (
        (scan.NULL, scan.TEXT, scan.WHOLE), (scan.NULL, scan.WHOLE, scan.NUMBER), (scan.NULL,),
        (scan.NULL, scan.TRUE, scan.FALSE),
    ),
)  # fmt: skip
