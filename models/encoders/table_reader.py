"""Features as logs write them, to numbers: before anything is scaled or hashed."""

import hashlib
import json
import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from models.encoders.base import EncodingFault, Flags
from models.kernels.json.columns import hash_number, hash_text, intern, place_names, read_fields
from models.kernels.json.scan import ObjectMembers
from models.rows import F64, I32, I64, U8, U64


class Unread(NamedTuple):
    """The text of a value that is no number, string, true, false or null, or that cannot be read."""

    text: str


Value = float | int | str | bool | Unread | None

UNSEEN_CODE = float(1 << 20)
"""An unknown category is read as this plus its digest."""

FOREIGN_MAX = 32
"""Members of one object that are no field's and that are read without a Python object; rows with more take that way."""

_NUMBER = re.compile(r"\s*[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?\s*", re.ASCII)
_WORD = (1 << 64) - 1


class ReadRows(NamedTuple):
    """plain : (n, f), see TableReader.read. rest : (n,) hash of what is no field's or cannot be read, 0 for nothing."""

    plain: F64
    rest: U64


def number_of(value: object) -> float:
    """A number, or a text that holds one; NaN for anything else, and for what no finite 64-bit float holds."""
    if isinstance(value, str):
        if _NUMBER.fullmatch(value) is None:
            return math.nan
    elif not isinstance(value, bool | int | float):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


WHOLE_MAX = float(1 << 53)


def category_text(value: object) -> str:
    """A value as the name of a category: 5017, 5017.0 and "5017" are one, and so are true and "true".

    Text stays as it is.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and abs(value) < WHOLE_MAX and value.is_integer():
        return str(int(value))
    return str(value)


def derive(seed: bytes, *purpose: bytes) -> bytes:
    """32 bytes for one purpose, made from the projection secret."""
    return hashlib.blake2b(b"/".join(purpose), key=seed[:64], digest_size=32).digest()


class TableReader:
    """names : (f,) the fields. categories : (f,) known categories by rank, or None for a field of numbers.

    seed : the projection secret; an unknown category has the same digest in every reader of it.
    """

    def __init__(self, names: Sequence[str], categories: Sequence[Sequence[str] | None], seed: bytes) -> None:
        self.names = names
        self._codes = [
            None if known is None else {name: float(code) for code, name in enumerate(known)} for known in categories
        ]
        self._key = derive(seed, b"unseen")
        self._salt = np.uint64(int.from_bytes(derive(seed, b"rest")[:8], "big"))
        self._known_names = frozenset(names)
        self._number_fields: list[int] = [j for j, codes in enumerate(self._codes) if codes is None]
        self._number_names = [names[j] for j in self._number_fields]
        self._pick = _picker(self._number_names)
        self._pack = struct.Struct(f"<{len(self._number_names)}d").pack
        letters = [name.encode("utf-8", "surrogatepass") for name in names]
        self._letters: U8 = np.frombuffer(b"".join(letters), np.uint8)
        self._letters_start: I64 = np.cumsum([0, *map(len, letters)], dtype=np.int64)
        self._slots: I32 = np.full(4 << len(names).bit_length(), -1, np.int32)
        place_names(self._letters, self._letters_start, self._slots)
        self._expected: I32 = np.full(4 * len(names) + 16, -1, np.int32)
        self._numeric: U8 = np.array([codes is None for codes in self._codes], np.uint8)
        self._foreign: U64 = np.empty(FOREIGN_MAX, np.uint64)

    def read(self, inputs: Sequence[Mapping[str, Value]], faults: list[EncodingFault]) -> ReadRows:
        """Numbers as they are, also those in quotes, true as 1, categories as rank or digest, NaN for missing ones and
        for those that cannot be read, which `faults` names."""
        plain = np.empty((len(inputs), len(self.names)))
        rest = np.zeros(len(inputs), np.uint64)
        bad: dict[int, dict[str, str]] = {}
        plain[:, self._number_fields] = self._numbers(inputs, bad)
        for j, name in enumerate(self.names):
            codes = self._codes[j]
            if codes is not None:
                plain[:, j] = self._categories([row.get(name) for row in inputs], codes, name, bad)
        for row, mapping in enumerate(inputs):
            if row in bad or not mapping.keys() <= self._known_names:
                rest[row] = self._rest(mapping, bad.get(row, {}), row, faults)
        return ReadRows(plain, rest)

    def read_members(self, text: U8, begin: I32, end: I32, members: ObjectMembers) -> tuple[ReadRows, Flags]:
        """The same for n scanned objects with members begin[i] to end[i], and (n,) where it equals what `read` gives
        without a fault: not where a category holds a number."""
        n, shape = len(begin), (len(begin), len(self.names))
        plain, start, stop = np.empty(shape), np.empty(shape, np.int32), np.empty(shape, np.int32)
        rest, clean = np.empty(n, np.uint64), np.empty(n, np.uint8)
        read_fields(
            text, begin, end, members, self._letters, self._letters_start, self._slots, self._expected,
            self._numeric, self._salt, self._foreign, plain, start, stop, rest, clean,
        )  # fmt: skip
        good: Flags = clean > 0
        for j, codes in enumerate(self._codes):
            if codes is not None:
                good &= np.isnan(plain[:, j])
                self._place_texts(text, start[:, j], stop[:, j], codes, plain[:, j])
        return ReadRows(plain, rest), good

    def _place_texts(self, text: U8, start: I32, stop: I32, codes: Mapping[str, float], column: F64) -> None:
        rows = np.flatnonzero(stop >= 0)
        start, stop = start[rows], stop[rows]
        texts = Interned.of(text, start, stop)
        values = [codes[name] if name in codes else UNSEEN_CODE + self.digest(name) for name in texts.names]
        column[rows] = np.array(values, np.float64)[texts.code]

    def digest(self, category: str) -> int:
        """32 bits, keyed."""
        text = category.encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(text, key=self._key, digest_size=4).digest(), "big")

    def _categories(
        self, column: Sequence[Value], codes: Mapping[str, float], name: str, bad: dict[int, dict[str, str]]
    ) -> list[float]:
        try:
            plain = list(map(codes.get, column))  # type: ignore[arg-type]  # values that are no strings are not in it
        except TypeError:  # a list or an object
            plain = [None] * len(column)
        found = []
        for row, code in enumerate(plain):
            value = column[row]
            text = _unread(value) if code is None else None
            if text is not None:
                bad.setdefault(row, {})[name] = text
            found.append(code if code is not None else self._category(None if text is not None else value, codes))
        return found

    def _category(self, value: Value, codes: Mapping[str, float]) -> float:
        if value is None:
            return math.nan
        name = category_text(value)
        return codes[name] if name in codes else UNSEEN_CODE + self.digest(name)

    def _numbers(self, inputs: Sequence[Mapping[str, Value]], bad: dict[int, dict[str, str]]) -> F64:
        """(n, number fields), NaN where one is missing. Whole rows at once where every field holds a number: 0.5 us for
        23 fields, where a list and an array per field take 3. `pack` takes neither strings nor None."""
        packed, careful = [], set()
        for row, mapping in enumerate(inputs):
            try:
                packed.append(self._pack(*self._pick(mapping)))
            except (KeyError, struct.error, OverflowError):
                careful.add(row)
                packed.append(self._pack(*self._one_by_one(mapping, row, bad)))
        table: F64 = np.frombuffer(b"".join(packed), "<f8").reshape(len(inputs), len(self._number_names)).copy()
        for row in np.flatnonzero(~np.isfinite(table).all(axis=1)).tolist():
            if row not in careful:
                table[row] = self._one_by_one(inputs[row], row, bad)
        return table

    def _one_by_one(self, mapping: Mapping[str, Value], row: int, bad: dict[int, dict[str, str]]) -> list[float]:
        numbers = []
        for name in self._number_names:
            value = mapping.get(name)
            number = number_of(value)
            if math.isnan(number) and value is not None:
                bad.setdefault(row, {})[name] = value if isinstance(value, str) else _unread(value) or str(value)
            numbers.append(number)
        return numbers

    def _rest(self, mapping: Mapping[str, Value], bad: Mapping[str, str], row: int, faults: list[EncodingFault]) -> int:
        """Hash of what is no field's and of what cannot be read of fields (`bad`), in any order; tells what cannot."""
        faults += [EncodingFault(row, f"features.{name}", "a finite number or text", "something else") for name in bad]
        foreign = [name for name in mapping if name not in self._known_names]
        texts = {name: text for name in foreign if (text := _unread(mapping[name])) is not None}
        if texts:
            faults.append(EncodingFault(row, "features", "numbers, strings, booleans and nulls", "something else"))
        found: dict[str, Value] = {name: mapping[name] for name in foreign if mapping[name] is not None}
        found.update(texts)
        found.update(bad)
        if len(foreign) > FOREIGN_MAX:
            return int(_hashed(json.dumps(found, sort_keys=True), self._salt))
        total = 0
        for name, value in found.items():
            key = _hashed(name, self._salt)
            total += int(_hashed(value, key) if isinstance(value, str) else hash_number(number_of(value), key))
        return total & _WORD


class Interned(NamedTuple):
    """n texts as numbers. names : distinct texts. code : (n,) index into names. first : one row of each."""

    names: list[str]
    code: I32
    first: I32

    @staticmethod
    def of(text: U8, start: I32, end: I32) -> "Interned":
        """The texts text[start:end], which are Unicode."""
        n = len(start)
        code, first = np.empty(n, np.int32), np.empty(n, np.int32)
        slots = np.full(4 << n.bit_length(), -1, np.int32)
        count = intern(text, np.ascontiguousarray(start), np.ascontiguousarray(end), slots, code, first)
        first = first[:count]
        spans = zip(start[first].tolist(), end[first].tolist(), strict=True)
        return Interned([text[a:b].tobytes().decode() for a, b in spans], code, first)


def _picker(names: Sequence[str]) -> Callable[[Mapping[str, Value]], Sequence[Value]]:
    """Several values of a mapping in one call in C. `itemgetter` gives a bare value for one name and refuses none."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda mapping: [mapping[name] for name in names]


def _unread(value: Any) -> str | None:
    """The text of a value that cannot be read, None for every other one."""
    if value is None or isinstance(value, str) or (type(value) is float and math.isfinite(value)):
        return None
    if isinstance(value, Unread):
        return value.text
    if not math.isnan(number_of(value)):
        return None
    return json.dumps(value, default=str, sort_keys=True) if isinstance(value, list | dict) else str(value)


def _hashed(text: str, salt: np.uint64) -> np.uint64:
    try:
        letters = text.encode()
    except UnicodeEncodeError:
        letters = text.encode("utf-16-le", "surrogatepass")
    return np.uint64(hash_text(np.frombuffer(letters, np.uint8), 0, len(letters), salt))
