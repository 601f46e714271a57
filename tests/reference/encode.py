"""The encoders written again for reading: one input at a time, dictionaries, Python's own integers."""

import hashlib
import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WORD = (1 << 64) - 1
UNSEEN = 1 << 20
MANY = 32
"""Members that are no field's; more of them are hashed as one text."""
NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)


@dataclass
class Code:
    """An encoded input; None in its place for one that cannot be encoded. is_read : nothing in it is unreadable."""

    values: list[int]
    fields: list[int]
    surprisal: list[int]
    offgrid: int
    exact: int
    is_read: bool = True
    odd: int = 0


def mix64(word: int) -> int:
    """The finaliser of SplitMix64."""
    word = (word + 0x9E3779B97F4A7C15) & WORD
    word = ((word ^ word >> 30) * 0xBF58476D1CE4E5B9) & WORD
    word = ((word ^ word >> 27) * 0x94D049BB133111EB) & WORD
    return word ^ word >> 31


def derive(seed: bytes, *purpose: bytes) -> bytes:
    return hashlib.blake2b(b"/".join(purpose), key=seed, digest_size=32).digest()


def bits_of(number: float, kind: str) -> int:
    """A float's bits as an integer; kind: "d" or "f"."""
    return int.from_bytes(struct.pack(f">{kind}", number), "big")


def readable(value: Any) -> bool:
    """Whether a value is a text, or a number that floats hold, or nothing."""
    if value is None or isinstance(value, str):
        return True
    try:
        return isinstance(value, bool | int | float) and math.isfinite(float(value))
    except OverflowError:
        return False


def quantise(number: float) -> int:
    """1/2048 units; Python rounds half to even too."""
    return max(-32_767, min(32_767, round(number * 2048.0)))


@dataclass
class Column:
    """What was fitted of one field. surprisals : value -> 1/16 nat. step : 0 none, -1 categories."""

    name: str
    categories: Sequence[str]
    centre: float
    scale: float
    step: float
    low: float
    high: float
    required: bool
    surprisals: Mapping[float, int]
    unknown: int
    missing: int


class SlowTable:
    """columns : as fitted. order, rotation : the secret order of the fields and the rows of their rotation."""

    def __init__(
        self, columns: Sequence[Column], order: list[int], rotation: list[list[float]], seed: bytes, present_min: int
    ) -> None:
        self.columns, self.order, self.rotation, self.seed = columns, order, rotation, seed
        self.present_min = present_min
        self.salts = [
            int.from_bytes(derive(seed, b"field", column.name.encode())[:8], "big") for column in columns
        ]  # fmt: skip

    def encode(self, row: Mapping[str, Any]) -> Code:
        numbers = [self.number(column, row.get(column.name)) for column in self.columns]
        fields, surprisal, standard, offgrid, exact, odd = [], [], [], 0, self.rest(row), 0
        for place, (column, number) in enumerate(zip(self.columns, numbers, strict=True)):
            if number is None:
                hashed = mix64(self.salts[place] ^ 0x5BD1E9955BD1E995)
                surprisal.append(column.missing)
                standard.append(0.0)
                is_odd = column.required
            else:
                hashed = mix64(self.salts[place] ^ mix64(bits_of(number, "d")))
                is_odd = not column.low <= number <= column.high
                if column.categories and number >= UNSEEN:
                    surprisal.append(self.unseen(column))
                    standard.append(((int(number) - UNSEEN) % 7 - 3) * 0.6)
                else:
                    surprisal.append(column.surprisals.get(number, column.unknown))
                    standard.append(self.shorten((number - column.centre) / column.scale))
                    offgrid |= self.off_grid(number, column.step) << min(place, 31)
            odd |= is_odd << min(place, 31)
            fields.append(hashed & 0xFFFF)
            exact = mix64(exact ^ hashed)
        is_read = not any(map(self.is_unread, self.columns, (row.get(column.name) for column in self.columns)))
        is_read &= all(readable(value) for value in row.values())
        if sum(number is not None for number in numbers) < self.present_min:
            none = [0] * len(self.columns)
            return Code(none, none, none, 0, exact, is_read)
        return Code(self.rotate(standard), fields, surprisal, offgrid, exact, is_read, odd)

    def number(self, column: Column, value: Any) -> float | None:
        """A value as a float; None if there is none, or none that can be read."""
        if value is None or not readable(value):
            return None
        if column.categories:
            name = self.name(value)
            if name in column.categories:
                return float(column.categories.index(name))
            key = derive(self.seed, b"unseen")
            return float(
                UNSEEN + int.from_bytes(hashlib.blake2b(name.encode(), key=key, digest_size=4).digest(), "big")
            )
        try:
            number = float(value) if not isinstance(value, str) or NUMBER.fullmatch(value) else math.nan
        except OverflowError:
            return None
        return number + 0.0 if math.isfinite(number) else None  # -0.0 is 0.0

    def is_unread(self, column: Column, value: Any) -> bool:
        return value is not None and self.number(column, value) is None

    def rest(self, row: Mapping[str, Any]) -> int:
        """A sum over what belongs to no field, and over what cannot be read."""
        columns = {column.name: column for column in self.columns}
        salt = int.from_bytes(derive(self.seed, b"rest")[:8], "big")
        if sum(name not in columns for name in row) > MANY:
            told = {
                name: value if name not in columns and readable(value) else str(value)
                for name, value in row.items()
                if value is not None and (name not in columns or self.is_unread(columns[name], value))
            }
            return self.keyed(json.dumps(told, sort_keys=True), salt)
        total = 0
        for name, value in row.items():
            if value is None or (name in columns and not self.is_unread(columns[name], value)):
                continue
            key = self.keyed(name, salt)
            if name not in columns and readable(value) and not isinstance(value, str):
                total += mix64(key ^ mix64(bits_of(float(value) + 0.0, "d")))
            else:
                total += self.keyed(str(value), key)
        return total & WORD

    @staticmethod
    def keyed(text: str, salt: int) -> int:
        """Eight bytes at a time, the last ones filled up with zeros, then the length."""
        letters = text.encode()
        for start in range(0, len(letters) // 8 * 8, 8):
            salt = mix64(salt ^ int.from_bytes(letters[start : start + 8], "little"))
        left = letters[len(letters) // 8 * 8 :]
        return mix64(mix64(salt ^ int.from_bytes(left, "little")) ^ len(letters))

    @staticmethod
    def name(value: Any) -> str:
        """Of a category: numbers and true or false as a log would write them as text, whole numbers without a point."""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float) and abs(value) < 2.0**53 and value == int(value):
            return str(int(value))
        return str(value)

    @staticmethod
    def unseen(column: Column) -> int:
        """A known category's surprisal on average, or that of no value if it is less."""
        worth = list(column.surprisals.values())
        chances = [math.exp(-each / 16) for each in worth]
        if not worth:
            return column.missing
        mean = sum(chance * each for chance, each in zip(chances, worth, strict=True)) / sum(chances)
        return min(column.missing, round(mean))

    @staticmethod
    def shorten(z: float) -> float:
        size = min(abs(z), 1e300)
        return z if size <= 4.0 else math.copysign(4.0 + math.log1p(size - 4.0), z)

    @staticmethod
    def off_grid(number: float, step: float) -> bool:
        if step <= 0.0:
            return False
        steps = number / step
        if math.isinf(steps):
            return False
        return abs(steps - round(steps)) > 1e-9 * max(1.0, abs(steps)) + 1e-9

    def rotate(self, standard: list[float]) -> list[int]:
        """Blocks of at most 64 fields, each turned by itself."""
        values = []
        for place, turned in enumerate(self.rotation):
            block = place // 64 * 64
            width = min(64, len(standard) - block)
            total = 0.0
            for i in range(width):
                total += turned[i] * standard[self.order[block + i]]
            values.append(quantise(total))
        return values


class SlowEmbedding:
    """Secret random signs, and a hash of the vector's own bits."""

    def __init__(self, dim_in: int, seed: bytes) -> None:
        key = derive(seed, b"signs")
        bits = int.from_bytes(hashlib.shake_256(key).digest(dim_in * 8), "big")
        last = dim_in * 64 - 1
        self.signs = [[2 * (bits >> (last - (64 * j + k)) & 1) - 1 for k in range(64)] for j in range(dim_in)]
        self.salt = int.from_bytes(key[:8], "big")

    def encode(self, vector: Sequence[float]) -> Code | None:
        """vector : floats that float32 holds exactly."""
        if len(vector) != len(self.signs) or not all(map(math.isfinite, vector)) or not any(vector):
            return None
        squared, exact = 0.0, self.salt
        for x in vector:
            squared += x * x
            exact = mix64(exact ^ bits_of(x, "f"))
        unit = 16384.0 / math.sqrt(squared)
        parts = [round(x * unit) for x in vector]
        sums = [sum(part * sign[k] for part, sign in zip(parts, self.signs, strict=True)) for k in range(64)]
        return Code([quantise(total / 131072.0) for total in sums], [], [], 0, exact)
