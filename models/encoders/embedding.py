"""Embeddings that a log carries, to 64 integers."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from models.encoders.base import Encoded, EncodingFault
from models.kernels.encode.encode import project
from models.rows import F32, F64, I16, I32, UNIT

DIM = 64


class EmbeddingEncoder:
    """Cosine distance by secret random signs: |values(x) - values(y)| estimates |x/|x| - y/|y||.

    dim_in : length of the vectors in the log. reach : distance (0 to 2) below which two inputs are variants; fitted
    to the population's nearest neighbours. seed : the projection secret, 32 bytes.
    """

    kind = "embedding"
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
        self.id = hashlib.sha256(f"{self.kind}:{dim_in}:{reach!r}:{check}".encode()).hexdigest()[:16]

    def encode(self, inputs: Sequence[Any]) -> Encoded:
        """n vectors of dim_in numbers: an (n, dim_in) float32 array or a sequence of sequences of numbers."""
        faults: list[EncodingFault] = []
        return self.encode_vectors(self._vectors(inputs, faults), faults)

    def standard(self, values: I16) -> F64:
        """See Encoder."""
        return values / float(UNIT)

    def encode_vectors(self, vectors: F32, faults: Sequence[EncodingFault] = ()) -> Encoded:
        """(n, dim_in), contiguous. faults : of rows that hold zeros for that reason."""
        n, faults = len(vectors), list(faults)
        values = np.zeros((n, DIM), np.int16)
        exact = np.zeros(n, np.uint64)
        faulty = np.zeros(n, np.uint8)
        bad = {fault.row for fault in faults}
        project(vectors, vectors.view(np.uint32), self._flips, self._salt, values, exact, faulty)
        for row in np.flatnonzero(faulty):
            if int(row) not in bad:
                got = "NaN or infinity" if faulty[row] == 1 else "only zeros"
                faults.append(EncodingFault(int(row), "embedding", "finite numbers, not all zero", got))
        none = np.zeros((n, 0), np.uint16)
        offgrid, plain = np.zeros(n, np.uint32), np.zeros((n, 0))
        return Encoded(values, none, none.astype(np.uint8), offgrid, exact, plain, tuple(sorted(faults)))

    def _vectors(self, inputs: Sequence[Any], faults: list[EncodingFault]) -> F32:
        if isinstance(inputs, np.ndarray) and inputs.ndim == 2 and inputs.shape[1] == self.dim_in:
            return np.ascontiguousarray(inputs, np.float32)
        lengths = [len(vector) for vector in inputs]
        if all(length == self.dim_in for length in lengths):
            return np.ascontiguousarray(np.asarray(inputs, np.float32).reshape(-1, self.dim_in))
        vectors = np.zeros((len(inputs), self.dim_in), np.float32)
        for row, length in enumerate(lengths):
            if length == self.dim_in:
                vectors[row] = inputs[row]
            else:
                expected = f"{self.dim_in} numbers"
                faults.append(EncodingFault(row, "embedding", expected, f"{length} of them"))
        return vectors


def fit_reach(vectors: F32, rng: np.random.Generator, candidates: int = 80) -> float:
    """1 % quantile of the distance to the nearest of `candidates` other inputs of the population, within .1 to .7.

    One in a hundred unrelated inputs then joins a family by chance, which the nulls count; real logs hold so many
    near-copies that a rarer quantile would measure those. One reach cannot serve a client's few candidates and a large
    table: nearest neighbours come closer as tables grow.
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
