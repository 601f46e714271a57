"""Encoders: a model's inputs to integers that keep distances. `base.Encoder` is the contract."""

from models.encoders.base import Encoder
from models.encoders.embedding import EmbeddingEncoder
from models.encoders.table import TabularEncoder

ENCODERS: tuple[type[Encoder], ...] = (EmbeddingEncoder, TabularEncoder)
"""Every encoder. A request that carries several inputs counts for the first one here that reads one of them."""


def by_kind(kind: str) -> type[Encoder]:
    """The encoder of this name. Raises ValueError if there is none."""
    for encoder in ENCODERS:
        if encoder.kind == kind:
            return encoder
    raise ValueError(f"expected one of {', '.join(encoder.kind for encoder in ENCODERS)}; got another encoder")
