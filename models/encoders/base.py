"""What every encoder promises: inputs in, integers out, faults as values."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from models.rows import F64, I16, U8, U16, U32, U64


class EncodingFault(NamedTuple):
    """An input that cannot be encoded. Names the field, never its value."""

    row: int
    field: str
    expected: str
    got: str


class Encoded(NamedTuple):
    """n encoded inputs; rows named in `faults` hold zeros, but for `plain`. f = 0 for embeddings."""

    values: I16  # (n, dim), 1/2048 standard units
    fields: U16  # (n, f)
    surprisal: U8  # (n, f), 1/16 nat
    offgrid: U32  # (n,)
    exact: U64  # (n,)
    plain: F64  # (n, f) of a table, as TableReader gives it; it goes no further than the look-up of training rows
    faults: tuple[EncodingFault, ...]


class Encoder(Protocol):
    """A fitted map from a model's inputs to integers that keep distances and hide values.

    id : 16 hex digits, a hash of what was fitted and of a check value of the secret seed. dim : length of `values`.
    field_names : the table's fields, () for embeddings. reach : L2 distance (standard units) within which two
    inputs count as variants. agreement_min : least agreement, 1/16 nat, for two rows to be variants.
    """

    kind: str
    id: str
    dim: int
    field_names: tuple[str, ...]
    reach: float
    agreement_min: int

    def encode(self, inputs: Sequence[Any]) -> Encoded: ...

    def standard(self, values: I16) -> F64:
        """(n, dim) `values` in standard units: of a table by field, in the order of `field_names`, for whoever holds
        the secret seed; of an embedding as they are."""
        ...
