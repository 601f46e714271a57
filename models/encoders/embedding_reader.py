"""Embeddings as logs write them, to vectors: numbers, base64 of float32, pgvector text, or an object around these."""

from collections.abc import Sequence
from struct import Struct
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from models.encoders.base import EncodingFault
from models.rows import F32

FLOAT32_BYTES = 4
BASE64_EXPECTED = "base64 of little-endian float32 numbers"
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class EmbeddingObject(msgspec.Struct, gc=False):
    """An embedding with its description. data : numbers, or base64 of little-endian float32."""

    data: list[float] | str
    dim: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] | None = None
    encoding: str | None = None
    dtype: str | None = None


Embedding = list[float] | str | EmbeddingObject

_numbers = msgspec.json.Decoder(list[float]).decode


class Vectors(NamedTuple):
    """vectors : (n, dim) float32; rows named in `faults` hold zeros. May hold infinities: the encoder refuses them."""

    vectors: F32
    faults: list[EncodingFault]


class _Unreadable(NamedTuple):
    """Why one embedding cannot be read."""

    field: str
    expected: str
    got: str


def read_vectors(embeddings: Sequence[Any], dim: int) -> Vectors:
    """n embeddings of `dim` numbers. A batch in one plain form is fast; a mixed or faulty one goes row by row."""
    if isinstance(embeddings, np.ndarray) and embeddings.ndim == 2 and embeddings.shape[1] == dim:
        return Vectors(np.ascontiguousarray(embeddings, np.float32), [])
    kinds = set(map(type, embeddings))
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, which the encoder names
        try:
            if kinds == {list} and {len(embedding) for embedding in embeddings} == {dim}:
                return Vectors(_from_lists(embeddings, dim), [])
            if kinds == {str}:
                return Vectors(_from_base64(embeddings, dim), [])
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


def _row_by_row(embeddings: Sequence[Any], dim: int) -> Vectors:
    table = np.zeros((len(embeddings), dim), np.float32)
    faults: list[EncodingFault] = []
    for row, embedding in enumerate(embeddings):
        vector = _object(embedding) if isinstance(embedding, EmbeddingObject) else _plain(embedding, "embedding")
        if isinstance(vector, _Unreadable):
            faults.append(EncodingFault(row, *vector))
        elif len(vector) != dim:
            faults.append(EncodingFault(row, "embedding", f"{dim} numbers (embedding.dim)", f"{len(vector)} of them"))
        else:
            table[row] = vector
    return Vectors(table, faults)


def _object(embedding: EmbeddingObject) -> Sequence[float] | F32 | _Unreadable:
    is_text = isinstance(embedding.data, str)
    if embedding.encoding not in (None, "base64" if is_text else "float"):
        expected = '"base64" for text in data, "float" for numbers'
        return _Unreadable("embedding.encoding", expected, "another encoding")
    if embedding.dtype not in (None, "float32"):
        return _Unreadable("embedding.dtype", '"float32"', "another type")
    vector = _plain(embedding.data, "embedding.data")
    if not isinstance(vector, _Unreadable) and embedding.dim not in (None, len(vector)):
        return _Unreadable("embedding.data", f"{embedding.dim} numbers (embedding.dim)", f"{len(vector)} of them")
    return vector


def _plain(embedding: Sequence[float] | str, field: str) -> Sequence[float] | F32 | _Unreadable:
    if not isinstance(embedding, str):
        return embedding
    if embedding.startswith("["):
        try:
            return _numbers(embedding)
        except UNREADABLE:
            return _Unreadable(field, "numbers between the brackets", "something else")
    try:
        packed = msgspec.convert(embedding, bytes)
    except msgspec.ValidationError:
        return _Unreadable(field, BASE64_EXPECTED, "text that is no base64, or is cut off")
    if len(packed) % FLOAT32_BYTES:
        return _Unreadable(field, BASE64_EXPECTED, f"{len(packed)} bytes, not a multiple of 4")
    return np.frombuffer(packed, "<f4")


def dimension(embedding: Any) -> int:
    """How many numbers an embedding holds; 0 if it cannot be read."""
    vector = _object(embedding) if isinstance(embedding, EmbeddingObject) else _plain(embedding, "embedding")
    return 0 if isinstance(vector, _Unreadable) else len(vector)
