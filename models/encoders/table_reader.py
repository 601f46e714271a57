"""Features as logs write them, to numbers: before anything is scaled or hashed."""

import hashlib
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from models.encoders.base import EncodingFault, Flags
from models.kernels.json.columns import intern, place_names, read_fields
from models.kernels.json.scan import ObjectMembers
from models.rows import F64, I32, I64, U8

Value = float | int | str | bool | None

UNSEEN_CODE = float(1 << 20)
"""An unknown category is read as this plus its digest."""


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

    def read(self, inputs: Sequence[Mapping[str, Value]], faults: list[EncodingFault]) -> F64:
        """(n, f): numbers as they are, true as 1, categories as rank or digest, NaN for missing or bad ones. Unknown
        fields are ignored."""
        raw = np.empty((len(inputs), len(self.names)))
        raw[:, self._number_fields] = self._numbers(inputs, faults)
        for j, name in enumerate(self.names):
            codes = self._codes[j]
            if codes is not None:
                raw[:, j] = self._categories([row.get(name) for row in inputs], codes)
        return raw

    def read_members(self, text: U8, begin: I32, end: I32, members: ObjectMembers) -> tuple[F64, Flags]:
        """The same for n scanned objects with members begin[i] to end[i]. (n, f), and (n,) where it equals what `read`
        gives: not where a field of numbers holds text, nor where a category holds a number."""
        shape = len(begin), len(self.names)
        plain, start, stop = np.empty(shape), np.empty(shape, np.int32), np.empty(shape, np.int32)
        read_fields(
            text, begin, end, members, self._letters, self._letters_start, self._slots, self._expected,
            plain, start, stop,
        )  # fmt: skip
        clean: Flags = np.logical_not((stop[:, self._number_fields] >= 0).any(axis=1))
        for j, codes in enumerate(self._codes):
            if codes is not None:
                clean &= np.isnan(plain[:, j])
                self._place_texts(text, start[:, j], stop[:, j], codes, plain[:, j])
        return plain, clean

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

    def _categories(self, column: Sequence[Value], codes: Mapping[str, float]) -> list[float]:
        plain = list(map(codes.get, column))  # type: ignore[arg-type]  # values that are no strings are not in it
        return [self._category(column[row], codes) if code is None else code for row, code in enumerate(plain)]

    def _category(self, value: Value, codes: Mapping[str, float]) -> float:
        if value is None:
            return math.nan
        name = str(value)
        return codes[name] if name in codes else UNSEEN_CODE + self.digest(name)

    def _numbers(self, inputs: Sequence[Mapping[str, Value]], faults: list[EncodingFault]) -> F64:
        """(n, number fields), NaN where one is missing. Whole rows at once where every field holds a number: 0.5 us for
        23 fields, where a list and an array per field take 3. `pack` takes neither strings nor None."""
        packed, careful = [], set()
        for row, mapping in enumerate(inputs):
            try:
                packed.append(self._pack(*self._pick(mapping)))
            except (KeyError, struct.error, OverflowError):
                careful.add(row)
                packed.append(self._pack(*self._one_by_one(mapping, row, faults)))
        table: F64 = np.frombuffer(b"".join(packed), "<f8").reshape(len(inputs), len(self._number_names)).copy()
        for row in np.flatnonzero(~np.isfinite(table).all(axis=1)).tolist():
            if row not in careful:
                table[row] = self._one_by_one(inputs[row], row, faults)
        return table

    def _one_by_one(self, mapping: Mapping[str, Value], row: int, faults: list[EncodingFault]) -> list[float]:
        return [self._number(mapping.get(name), row, name, faults) for name in self._number_names]

    def _number(self, value: Any, row: int, name: str, faults: list[EncodingFault]) -> float:
        if value is None:
            return math.nan
        if isinstance(value, bool | int | float):
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if math.isfinite(number):
                return number
            faults.append(
                EncodingFault(row, f"features.{name}", "a finite number", "NaN, infinity or beyond 64-bit floats")
            )
        else:
            faults.append(EncodingFault(row, f"features.{name}", "a number", f"a {_kind(value)}"))
        return math.nan


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


def _kind(value: object) -> str:
    names: dict[type, str] = {str: "string", list: "list", dict: "object"}
    return names.get(type(value), type(value).__name__)
