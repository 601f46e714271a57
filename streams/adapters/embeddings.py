"""Embeddings as logs write them, to columns: numbers, base64 of float32, pgvector text, or an object around these."""

from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple

import msgspec
import numpy as np

from models.rows import F32
from streams.adapters.json_text import UNREADABLE
from streams.adapters.request import EmbeddingObject
from streams.wire.rejects import Fault

Embedding = list[float] | str | EmbeddingObject

FLOAT32_BYTES = 4
BASE64_EXPECTED = "base64 of little-endian float32 numbers"

_numbers = msgspec.json.Decoder(list[float]).decode


class Vectors(NamedTuple):
    """vectors : (n, dim) float32; rows named in `faults` hold zeros. May hold infinities: the encoder refuses them."""

    vectors: F32
    faults: dict[int, Fault]


def vectors(embeddings: Sequence[Embedding], dim: int) -> Vectors:
    """n embeddings of `dim` numbers. A batch in one plain form is fast; a mixed or faulty one goes row by row."""
    kinds = set(map(type, embeddings))
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, which the encoder names
        try:
            if kinds == {list} and {len(embedding) for embedding in embeddings} == {dim}:  # type: ignore[arg-type]
                return Vectors(_from_lists(embeddings, dim), {})
            if kinds == {str}:
                return Vectors(_from_base64(embeddings, dim), {})
        except (ValueError, msgspec.ValidationError):
            pass
        return _row_by_row(embeddings, dim)


def _from_lists(embeddings: Sequence[Embedding], dim: int) -> F32:
    pack = Struct(f"<{dim}d").pack  # a third of the time of numpy's own conversion of a list
    packed = b"".join([pack(*embedding) for embedding in embeddings])  # type: ignore[misc]
    return np.frombuffer(packed, "<f8").reshape(-1, dim).astype(np.float32)


def _from_base64(embeddings: Sequence[Embedding], dim: int) -> F32:
    """Raises unless every text is base64 of `dim` numbers. msgspec decodes six times as fast as binascii."""
    packed = msgspec.convert(embeddings, list[bytes])
    if set(map(len, packed)) != {dim * FLOAT32_BYTES}:
        raise ValueError("lengths differ")
    return np.frombuffer(b"".join(packed), "<f4").reshape(-1, dim).astype(np.float32)


def _row_by_row(embeddings: Sequence[Embedding], dim: int) -> Vectors:
    table = np.zeros((len(embeddings), dim), np.float32)
    faults: dict[int, Fault] = {}
    for row, embedding in enumerate(embeddings):
        vector = _object(embedding) if isinstance(embedding, EmbeddingObject) else _plain(embedding, "embedding")
        if isinstance(vector, Fault):
            faults[row] = vector
        elif len(vector) != dim:
            faults[row] = Fault("embedding", f"{dim} numbers (embedding.dim)", f"{len(vector)} of them", "input")
        else:
            table[row] = vector
    return Vectors(table, faults)


def _object(embedding: EmbeddingObject) -> Sequence[float] | F32 | Fault:
    is_text = isinstance(embedding.data, str)
    if embedding.encoding not in (None, "base64" if is_text else "float"):
        expected = '"base64" for text in data, "float" for numbers'
        return Fault("embedding.encoding", expected, "another encoding", "input")
    if embedding.dtype not in (None, "float32"):
        return Fault("embedding.dtype", '"float32"', "another type", "input")
    vector = _plain(embedding.data, "embedding.data")
    if not isinstance(vector, Fault) and embedding.dim not in (None, len(vector)):
        return Fault("embedding.data", f"{embedding.dim} numbers (embedding.dim)", f"{len(vector)} of them", "input")
    return vector


def _plain(embedding: list[float] | str, field: str) -> Sequence[float] | F32 | Fault:
    if isinstance(embedding, list):
        return embedding
    if embedding.startswith("["):
        try:
            return _numbers(embedding)
        except UNREADABLE:
            return Fault(field, "numbers between the brackets", "something else", "input")
    try:
        packed = msgspec.convert(embedding, bytes)
    except msgspec.ValidationError:
        return Fault(field, BASE64_EXPECTED, "text that is no base64, or is cut off", "input")
    if len(packed) % FLOAT32_BYTES:
        return Fault(field, BASE64_EXPECTED, f"{len(packed)} bytes, not a multiple of 4", "input")
    return np.frombuffer(packed, "<f4")


def dimension(embedding: Embedding) -> int:
    """How many numbers an embedding holds; 0 if it cannot be read."""
    vector = _object(embedding) if isinstance(embedding, EmbeddingObject) else _plain(embedding, "embedding")
    return 0 if isinstance(vector, Fault) else len(vector)
