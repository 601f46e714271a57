"""A third encoder, for tests: words of a text, as a log's `operation` holds them, to 16 integers."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.encoders.base import Encoded, Encoder, EncodingFault, KeyedRows, RowLayout, Told
from models.rows import F64, I16, U64, UNIT

DIM = 16
WORDS_MAX = 100


class WordsEncoder(Encoder):
    """Each word moves the text by one unit in a secret direction of its own."""

    kind = "words"
    reads = "operation"
    field_names: tuple[str, ...] = ()
    dim = DIM
    reach = 2.5
    agreement_min = 0

    def __init__(self, common: Sequence[str], seed: bytes) -> None:
        self.common = list(common)
        self._seed = seed
        check = hashlib.blake2b(b"words", key=seed, digest_size=32).hexdigest()
        self.id = hashlib.sha256(f"{self.kind}:{self.common}:{check}".encode()).hexdigest()[:16]

    @classmethod
    def fit(
        cls, inputs: Sequence[Any], seed: bytes, clients: U64 | None = None, told: Mapping[str, Told] | None = None
    ) -> Self | None:
        words = sorted({word for text in inputs for word in text.split()})
        return cls(words, seed) if words else None

    @classmethod
    def examples(cls, count: int) -> list[Any]:
        return [f"word{number % 7} word{number % 11} word{number}" for number in range(count)]

    def encode(self, inputs: Sequence[Any]) -> Encoded:
        n, faults = len(inputs), []
        values, exact = np.zeros((n, DIM), np.int16), np.zeros(n, np.uint64)
        for row, text in enumerate(inputs):
            words = text.split() if isinstance(text, str) else []
            if not 0 < len(words) <= WORDS_MAX:
                faults.append(EncodingFault(row, self.reads, f"1 to {WORDS_MAX} words", f"{len(words)} of them"))
                continue
            values[row] = sum(self._direction(word) for word in words)
            exact[row] = self._hash(b"text", text)
        none = np.zeros((n, 0), np.uint16)
        nowhere, plain, usable = np.zeros(n, np.uint32), np.zeros((n, 0)), np.ones(n, np.bool_)
        usable[[fault.row for fault in faults]] = False
        return Encoded(values, none, none.astype(np.uint8), nowhere, exact, nowhere, plain, usable, tuple(faults))

    def standard(self, values: I16) -> F64:
        return values / float(UNIT)

    def header(self) -> dict[str, Any]:
        return {"common": self.common}

    @classmethod
    def from_arrays(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], seed: bytes) -> Self:
        return cls(header["common"], seed)

    def probe(self, rng: np.random.Generator, count: int) -> Iterator[Any]:
        """Word after word is appended."""
        words = [f"{rng.choice(self.common)}-{rng.integers(1_000_000)}" for _ in range(count)]
        for number in range(count):
            yield " ".join(words[: number + 1])

    @classmethod
    def row_layout(cls, rows: Iterable[Any]) -> RowLayout | None:
        return {} if [None for _ in rows] else None

    @classmethod
    def row_keys(cls, layout: RowLayout, seed: bytes) -> Callable[[Sequence[Any]], KeyedRows]:
        def keys(rows: Sequence[Any]) -> KeyedRows:
            encoded = cls((), seed).encode(rows)
            return KeyedRows(encoded.exact, encoded.faults)

        return keys

    def row_misfit(self, layout: RowLayout) -> str:
        return ""

    def _direction(self, word: str) -> NDArray[np.int64]:
        bits = np.array([self._hash(b"word", word) >> place & 1 for place in range(DIM)], np.int64)
        return (2 * bits - 1) * (UNIT // 4)

    def _hash(self, purpose: bytes, text: str) -> int:
        return int.from_bytes(hashlib.blake2b(purpose + text.encode(), key=self._seed, digest_size=8).digest(), "big")
