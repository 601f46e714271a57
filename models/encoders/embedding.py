"""Embeddings that a log carries, to 64 integers."""

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.client_shares import fair_rows, row_weights
from models.encoders.base import Encoded, Encoder, EncodingFault, Flags, KeyedRows, RowLayout, ScannedInputs, Told
from models.encoders.embedding_reader import dimension, read_vectors
from models.hashes import short_hash
from models.kernels.encode.encode import project
from models.kernels.json.columns import gather, read_base64
from models.kernels.json.scan import NUMBERS, TEXT
from models.rows import F32, F64, I16, I32, U64, UNIT

DIM = 64
EXAMPLE_DIM = 4


class EmbeddingEncoder(Encoder):
    """Cosine distance by secret random signs: |values(x) - values(y)| estimates |x/|x| - y/|y||.

    dim_in : length of the vectors in the log. reach : distance (0 to 2) below which two inputs are variants; fitted
    to the population's nearest neighbours. seed : the projection secret, 32 bytes.
    """

    kind = "embedding"
    reads = "embedding"
    field_names: tuple[str, ...] = ()
    dim = DIM
    agreement_min = 0

    def __init__(self, dim_in: int, reach: float, seed: bytes) -> None:
        self.dim_in = dim_in
        self.reach = reach
        key = hashlib.blake2b(b"signs", key=seed[:64], digest_size=32).digest()
        bits = np.unpackbits(np.frombuffer(hashlib.shake_256(key).digest(dim_in * 8), np.uint8))
        self._flips: I32 = bits.reshape(dim_in, DIM).astype(np.int32) - 1
        self._salt = np.uint64(int.from_bytes(key[:8], "big"))
        check = hashlib.blake2b(b"check", key=seed[:64], digest_size=32).hexdigest()
        self.id = short_hash(f"{self.kind}:{dim_in}:{reach!r}:{check}".encode())

    @classmethod
    def fit(
        cls, inputs: Sequence[Any], seed: bytes, clients: U64 | None = None, told: Mapping[str, Told] | None = None
    ) -> Self | None:
        """The length that most clients send wins; None if no embedding can be read."""
        senders = np.arange(len(inputs), dtype=np.uint64) if clients is None else clients
        weight: Counter[int] = Counter()
        for length, own in zip(map(dimension, inputs), row_weights(senders).tolist(), strict=True):
            weight[length] += own
        del weight[0]
        [(dim_in, _)] = weight.most_common(1) or [(0, 0)]
        if dim_in == 0:
            return None
        vectors, faults = read_vectors(inputs, dim_in)
        finite = np.flatnonzero(np.isfinite(vectors).all(axis=1))
        good = np.setdiff1d(finite, [fault.row for fault in faults])
        fair = good[fair_rows(senders[good])]
        return cls(dim_in, fit_reach(vectors[fair], np.random.default_rng(0)), seed)

    @classmethod
    def examples(cls, count: int) -> list[Any]:
        """Numbers and base64 by turns."""
        vectors = np.random.default_rng(0).standard_normal((count, EXAMPLE_DIM)).astype("<f4")
        return [
            base64.b64encode(vector.tobytes()).decode() if row % 2 else vector.tolist()
            for row, vector in enumerate(vectors)
        ]

    def encode(self, inputs: Sequence[Any]) -> Encoded:
        """n embeddings as a log writes them, or an (n, dim_in) float32 array, which is fastest."""
        vectors, faults = read_vectors(inputs, self.dim_in)
        return self._encode(vectors, faults)

    def encode_scanned(self, inputs: ScannedInputs) -> tuple[Encoded, Flags]:
        """Numbers and base64 of the right length."""
        vectors, good = self._scanned_vectors(inputs)
        encoded = self._encode(vectors, [])
        return encoded, good & encoded.usable

    def standard(self, values: I16) -> F64:
        """See Encoder."""
        return values / float(UNIT)

    def header(self) -> dict[str, Any]:
        return {"dim_in": self.dim_in, "reach": self.reach}

    @classmethod
    def from_arrays(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], seed: bytes) -> Self:
        return cls(header["dim_in"], header["reach"], seed)

    def probe(self, rng: np.random.Generator, count: int) -> Iterator[Any]:
        """From one vector in one direction, as far as `reach` allows."""
        start, way = rng.standard_normal((2, self.dim_in))
        for number in range(count):
            yield (start + number / count * self.reach * way).tolist()

    @classmethod
    def row_layout(cls, rows: Iterable[Any]) -> RowLayout | None:
        """The length of the first embedding; 1 if it cannot be read, which `row_keys` then reports."""
        dim = 0
        for row in rows:
            dim = dim or dimension(row) or 1
        return {"dim": dim} if dim else None

    @classmethod
    def row_keys(cls, layout: RowLayout, seed: bytes) -> Callable[[Sequence[Any]], KeyedRows]:
        """`exact` depends on the seed and on the 32-bit numbers alone, whatever `reach` is."""
        encoder = cls(layout["dim"], 1.0, seed)

        def keys(rows: Sequence[Any]) -> KeyedRows:
            encoded = encoder.encode(rows)
            return KeyedRows(encoded.exact, encoded.faults)

        return keys

    def row_misfit(self, layout: RowLayout) -> str:
        if layout["dim"] == self.dim_in:
            return ""
        return f"expected embeddings of {self.dim_in} numbers; got embeddings of {layout['dim']} numbers"

    def row_lookup(self, layout: RowLayout, seed: bytes) -> Callable[[Encoded], U64]:
        return lambda encoded: encoded.exact

    def _encode(self, vectors: F32, faults: Sequence[EncodingFault]) -> Encoded:
        """(n, dim_in), contiguous. faults : of rows that hold zeros for that reason."""
        n, faults = len(vectors), list(faults)
        values = np.zeros((n, DIM), np.int16)
        exact = np.zeros(n, np.uint64)
        faulty = np.zeros(n, np.uint8)
        unread = {fault.row for fault in faults}
        project(vectors, vectors.view(np.uint32), self._flips, self._salt, values, exact, faulty)
        for row in np.flatnonzero(faulty):
            if int(row) not in unread:
                got = "NaN or infinity" if faulty[row] == 1 else "only zeros"
                faults.append(EncodingFault(int(row), "embedding", "finite numbers, not all zero", got))
        none = np.zeros((n, 0), np.uint16)
        nowhere, plain, usable = np.zeros(n, np.uint32), np.zeros((n, 0)), np.ones(n, np.bool_)
        usable[[fault.row for fault in faults]] = False
        none_of_fields = none, none.astype(np.uint8)
        return Encoded(values, *none_of_fields, nowhere, exact, nowhere, plain, usable, tuple(sorted(faults)))

    def _scanned_vectors(self, inputs: ScannedInputs) -> tuple[F32, Flags]:
        """(n, dim_in), and (n,) which of them were read."""
        n, start, end = len(inputs.kind), inputs.start, inputs.end
        numbers: Flags = (inputs.kind == NUMBERS) & (end - start == self.dim_in)
        if numbers.all():
            vectors = np.empty((n, self.dim_in), np.float32)
            gather(inputs.pool, start, vectors)
            return vectors, numbers
        packed, clean = np.zeros((n, 4 * self.dim_in), np.uint8), np.ones(n, np.uint8)
        texts = inputs.kind == TEXT
        read_base64(inputs.text, np.where(texts, start, 0), np.where(texts, end, 0), packed, clean)
        vectors = packed.view("<f4")
        if numbers.any():
            some = np.empty((int(numbers.sum()), self.dim_in), np.float32)
            gather(inputs.pool, start[numbers], some)
            vectors[numbers] = some
        return vectors, numbers | (clean > 0)


def fit_reach(vectors: F32, rng: np.random.Generator, candidates: int = 80) -> float:
    """1 % quantile of the distance to the nearest of `candidates` other inputs of the population, within .1 to .7.

    One in a hundred unrelated inputs then joins a family by chance, which the nulls account for; real logs hold so many
    near-copies that a smaller quantile would measure those. `candidates` is fixed because nearest neighbours come
    closer as the number of candidates grows.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    n = len(unit)
    if n < candidates + 1:
        return 0.25
    nearest = np.empty(min(n, 4000))
    for i in range(len(nearest)):
        others = rng.choice(n, candidates, replace=False)
        others = others[others != i]
        squared = np.maximum(0.0, 2.0 - 2.0 * (unit[others] @ unit[i]))
        distinct = squared[squared > 1e-9]
        nearest[i] = np.sqrt(distinct.min()) if len(distinct) else 2.0
    return float(np.clip(round(float(np.quantile(nearest, 0.01)), 4), 0.1, 0.7))
