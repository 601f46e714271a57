"""What every encoder promises: inputs in, integers out, faults as values.

To add an encoder: CONTRIBUTING.md. tests/encoders/test_conformance.py walks all of `models.encoders.ENCODERS`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.kernels.json.scan import ObjectMembers
from models.rows import F64, I16, I32, U8, U16, U32, U64

Arrays = dict[str, NDArray[Any]]
Flags = NDArray[np.bool_]
RowLayout = Mapping[str, Any]
"""How training rows of one kind are read and compared, as plain JSON."""


Told = Literal["number", "category", "leave out"]
"""What people may say of a field (`models.NAME.fields`)."""
NUMBER: Told = "number"
CATEGORY: Told = "category"
LEFT_OUT: Told = "leave out"
CONFIGURED = "configured"
"""Why a field is left out that people left out."""


class FieldTaken(msgspec.Struct, frozen=True, kw_only=True):
    """How calibration took a field of a model's inputs. Shares count clients alike, however many rows each sent.

    step : of a number's grid, 0 for none. levels : known values. null : share without a value. unseen : share of the
    certifying clients' values that are not known; None without any. rows : sampled rows with a value; odd_rows : those
    of them that are not of the kind, and are read as missing. reason : why the field is left out, "" if it is not.
    """

    name: str
    kind: Told
    step: float = 0.0
    levels: int = 0
    null: float = 0.0
    unseen: float | None = None
    rows: int = 0
    odd_rows: int = 0
    reason: str = ""


class EncodingFault(NamedTuple):
    """Something in an input that cannot be read, and counts as missing. Names the field, never its value."""

    row: int
    field: str
    expected: str
    got: str


class Encoded(NamedTuple):
    """n encoded inputs; those that are not usable hold zeros, but for `exact` and `plain`. f = 0 where there are no
    fields.
    """

    values: I16  # (n, dim), 1/2048 standard units
    fields: U16  # (n, f)
    surprisal: U8  # (n, f), 1/16 nat
    offgrid: U32  # (n,)
    exact: U64  # (n,) keyed hash of the whole input, 0 where nothing of it can be read
    odd: U32  # (n,) bit min(field, 31): the field holds what fitted history did not have
    plain: F64  # (n, f) of a table, as TableReader gives it; only the look-up of training rows reads it
    usable: Flags  # (n,) False where too little can be read of an input to judge it
    faults: tuple[EncodingFault, ...]


class ScannedInputs(NamedTuple):
    """n inputs as streams/adapters/scanner.py found them, without a Python object for any.

    text[start[i]:end[i]] is the text of input i if kind[i] is TEXT; pool[start[i]:end[i]] are its numbers if kind[i]
    is NUMBERS; members start[i] to end[i] are those of its object if kind[i] is OBJECT (models/kernels/json/scan.py).
    """

    text: U8
    kind: U8  # (n,)
    start: I32  # (n,)
    end: I32  # (n,)
    members: ObjectMembers
    pool: F64


class KeyedRows(NamedTuple):
    """keys : (n,) of n training rows. faults : rows that cannot be read, in order; their keys mean nothing."""

    keys: U64
    faults: tuple[EncodingFault, ...]


class Encoder(ABC):
    """A fitted map from a model's inputs to integers that keep distances and hide values.

    Subclass it in a file of its own and add the class to `ENCODERS`. The engine calls `encode` for every batch of
    records; everything else happens once, at calibration, start or self-test. What one input becomes must not depend
    on its neighbours, and nothing may draw from a random source other than the seed.

    Class attributes
    ----------------
    kind :
        Unique name; it is stored in artefacts and must not change afterwards.
    reads :
        The field of `streams.adapters.request.Request` that holds the input: "features", "embedding".

    Instance attributes
    -------------------
    id :
        16 hex digits: a hash of everything that was fitted, and of a check value of the secret seed.
    dim :
        Length of `Encoded.values`, 1 to 4,096 (`streams.wire.frames.WIDTH_MAX`).
    field_names :
        The table's fields, in the order of `Encoded.fields`; () where there are none.
    categories :
        Places of those that hold categories; the others hold numbers.
    reach :
        L2 distance in standard units within which two inputs of a client count as variants.
    agreement_min :
        Least agreement of two rows' fields, in 1/16 nat, to be variants; 0 where there are no fields.

    Example
    -------
    >>> from models.encoders.table import TabularEncoder
    >>> encoder = TabularEncoder.fit([{"age": 31.0, "zone": "a"}, {"age": 58.0, "zone": "b"}], seed=bytes(32))
    >>> encoded = encoder.encode([{"age": 40.0, "zone": "b"}])
    >>> encoded.values.shape, encoded.values.dtype, encoded.faults
    ((1, 2), dtype('int16'), ())
    """

    kind: ClassVar[str]
    reads: ClassVar[str]

    id: str
    dim: int
    field_names: tuple[str, ...]
    categories: frozenset[int] = frozenset()
    reach: float
    agreement_min: int

    # ---- calibration

    @classmethod
    @abstractmethod
    def fit(
        cls, inputs: Sequence[Any], seed: bytes, clients: U64 | None = None, told: Mapping[str, Told] | None = None
    ) -> Self | None:
        """Fit on benign history.

        inputs : n of them, as a log holds them in the field `reads`, none of them None; some may be unreadable.
        seed : the projection secret, 32 bytes.
        clients : (n,) who sent each; every input counts as a client of its own if None. One client in a hundred, with
        whatever inputs, must hardly change the fit (models/client_shares.py).
        told : what people say of fields; encoders without fields ignore it.
        Returns None if nothing can be fitted: no input can be read, or no field is left.
        Raises nothing.
        """

    def fields_taken(self, inputs: Sequence[Any], clients: U64) -> tuple[FieldTaken, ...]:
        """How `fit` took each field that history had; () (the default) where there are none.

        Of an encoder that was just fitted, not of a stored one. inputs, clients : as in `fit`, of other clients.
        """
        return ()

    @classmethod
    @abstractmethod
    def examples(cls, count: int) -> list[Any]:
        """Made-up inputs in every form that a log may hold, at least `count`, always the same.

        The service encodes them at its start, so that kernels are compiled before the first record.
        """

    # ---- the sketch

    @abstractmethod
    def encode(self, inputs: Sequence[Any]) -> Encoded:
        """Encode n inputs.

        inputs : as in `fit`.
        Returns n rows. What cannot be read of an input is a fault in `Encoded.faults`; if the rest of it does not
        suffice, it is not usable and its row holds zeros.
        Raises nothing.
        """

    def encode_scanned(self, inputs: ScannedInputs) -> tuple[Encoded, Flags] | None:
        """Encode n inputs of the usual shape straight from the text of their messages.

        Returns the rows, and (n,) those that are what `encode` gives without a fault; all others are decoded and
        encoded again. None (the default) if the encoder takes decoded inputs only.
        """
        return None

    @abstractmethod
    def standard(self, values: I16) -> F64:
        """(n, dim) values in standard units, for those who hold the secret seed.

        Of a table by field, in the order of `field_names`; of other inputs as they are.
        """

    # ---- artefacts

    @abstractmethod
    def header(self) -> dict[str, Any]:
        """What was fitted and is no array, as plain JSON. Never the seed."""

    def to_arrays(self) -> Arrays:
        """What was fitted, as arrays by name; {} (the default) where `header` says everything."""
        return {}

    @classmethod
    @abstractmethod
    def from_arrays(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], seed: bytes) -> Self:
        """The encoder that gave this header and these arrays.

        seed : the projection secret. Another one than at calibration gives another `id`, which the caller refuses.
        Raises KeyError, TypeError or ValueError for a damaged header or damaged arrays.
        """

    # ---- the self-test

    @abstractmethod
    def probe(self, rng: np.random.Generator, count: int) -> Iterator[Any]:
        """`count` inputs of a synthetic prober: one ordinary input, walked in small steps that `encode` accepts.

        Made from what was fitted: no value of any client is in them. rng : another one walks elsewhere.
        """

    # ---- training rows

    @classmethod
    def row_layout(cls, rows: Iterable[Any]) -> RowLayout | None:
        """How training rows are read and compared; called once with all of a file, which is streamed.

        rows : inputs as in `fit`. Returns None (the default) if they hold nothing to compare, or if this kind of
        encoder matches no training rows.
        """
        for _ in rows:
            pass
        return None

    @classmethod
    def row_keys(cls, layout: RowLayout, seed: bytes) -> Callable[[Sequence[Any]], KeyedRows]:
        """Keys of training rows: equal for equal inputs, however they are written and whatever was fitted.

        Raises NotImplementedError where `row_layout` always returns None.
        """
        raise NotImplementedError(f"{cls.kind} encoders match no training rows")

    def row_misfit(self, layout: RowLayout) -> str:
        """Why training rows of this layout cannot be compared with what this encoder encodes; "" if they can."""
        return f"{self.kind} encoders match no training rows"

    def row_lookup(self, layout: RowLayout, seed: bytes) -> Callable[[Encoded], U64]:
        """A function from encoded inputs to the keys that `row_keys` gives them. layout : one without a misfit."""
        return lambda encoded: encoded.exact
