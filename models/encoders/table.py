"""Rows of a table to integers: grids, standard units, surprisals, keyed hashes of field values."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.client_shares import row_weights
from models.encoders import table_rows
from models.encoders.base import (
    CATEGORY,
    Arrays,
    Encoded,
    Encoder,
    EncodingFault,
    FieldTaken,
    Flags,
    KeyedRows,
    RowLayout,
    ScannedInputs,
    Told,
)
from models.encoders.table_fit import TabularFit, fit_table
from models.encoders.table_reader import UNSEEN_CODE, ReadRows, TableReader, Value, derive
from models.hashes import short_hash
from models.kernels.encode.encode import EncodedRows, TableTables, encode_table, orthogonalise, transpose_blocks
from models.rows import F64, I16, I64, SURPRISAL_UNIT, U8, U64, UNIT

REACH = 0.5
"""L2 in standard units: half of it misses synthetic extraction, twice of it triples the delay (docs/engine.md)."""
AGREEMENT_NATS_PER_FIELD = 25.0 / 23.0

PROBE_SPAN = 3.0
"""Length of a probe's walk, in standard units of the field."""
PROBE_SHAKE = 0.013
"""How much further on it may begin, in the same units."""

_ARRAYS = (
    "centre", "scale", "step", "low", "high", "required", "known", "known_surprisals", "known_start", "unknown",
    "missing",
)  # fmt: skip


class TabularEncoder(Encoder):
    """Encodes rows of one model. Distances between `values` equal distances between standardised rows.

    seed : the projection secret, 32 bytes; rotation and field hashes cannot be derived without it.
    """

    kind = "tabular"
    reads = "features"

    def __init__(self, fit: TabularFit, seed: bytes) -> None:
        self.fitted = fit
        self.field_names = fit.names
        self.categories = frozenset(place for place, known in enumerate(fit.categories) if known)
        self.dim = len(fit.names)
        self.reach = REACH
        self.agreement_min = round(AGREEMENT_NATS_PER_FIELD * SURPRISAL_UNIT * self.dim)
        rng = np.random.Generator(np.random.Philox(int.from_bytes(derive(seed, b"rotation"), "big")))
        self._order: I64 = rng.permutation(self.dim).astype(np.int64)
        self._rotation: F64 = rng.standard_normal((self.dim, min(64, self.dim)))
        orthogonalise(self._rotation)
        self._turned: F64 = np.zeros_like(self._rotation)
        transpose_blocks(self._rotation, self._turned)
        salts = [derive(seed, b"field", name.encode("utf-8", "surrogatepass"))[:8] for name in fit.names]
        salt: U64 = np.array([int.from_bytes(salt, "big") for salt in salts], np.uint64)
        fitted = {name: getattr(fit, name) for name in _ARRAYS}
        self._tables = TableTables(**fitted, unseen=_unseen(fit), order=self._order, rotation=self._turned, salt=salt)
        ignored = [() if kind == CATEGORY else None for _, kind in fit.ignored]
        names = (*fit.names, *(name for name, _ in fit.ignored))
        self._reader = TableReader(names, [*(known or None for known in fit.categories), *ignored], seed)
        check = derive(seed, b"check").hex()
        self.id = short_hash(f"{self.kind}:{fit.digest()}:{check}".encode())

    @classmethod
    def fit(
        cls, inputs: Sequence[Any], seed: bytes, clients: U64 | None = None, told: Mapping[str, Told] | None = None
    ) -> Self | None:
        """None if no field is left (models/encoders/table_fit.py)."""
        try:
            return cls(fit_table(inputs, clients, told), seed)
        except ValueError:
            return None

    def fields_taken(self, inputs: Sequence[Any], clients: U64) -> tuple[FieldTaken, ...]:
        """See Encoder."""
        plain = self._reader.read(inputs, []).plain
        places = {name: place for place, name in enumerate(self.field_names)}
        weights = row_weights(clients)
        return tuple(
            self._with_others(taken, places[taken.name], plain, inputs, weights) if taken.name in places else taken
            for taken in self.fitted.taken
        )

    def _with_others(
        self, taken: FieldTaken, place: int, plain: F64, inputs: Sequence[Any], weights: I64
    ) -> FieldTaken:
        """With the share of values that history did not have, and the rows that hold no number, of others' inputs."""
        column, fit = plain[:, place], self.fitted
        given = np.array([row.get(taken.name) is not None for row in inputs], np.bool_)
        read = ~np.isnan(column)
        if taken.kind == CATEGORY:
            unseen = read & (column >= UNSEEN_CODE)
        else:
            unseen = read & ~np.isin(column, fit.known[fit.known_start[place] : fit.known_start[place + 1]])
        total = int(weights[read].sum())
        return msgspec.structs.replace(
            taken,
            unseen=round(int(weights[unseen].sum()) / total, 6) if total else None,
            odd_rows=taken.odd_rows + int((given & ~read).sum()),
            rows=taken.rows + int(given.sum()),
        )

    @classmethod
    def examples(cls, count: int) -> list[Any]:
        """A number and a category, each missing now and then."""
        return [
            {"a": float(row) if row % 7 else None, "b": "xy"[row % 2]} if row % 5 else {"b": "x"}
            for row in range(max(count, 8))
        ]

    def encode(self, inputs: Sequence[Mapping[str, Value]]) -> Encoded:
        """n mappings of field to number, string, bool or None. A field that history did not have counts for `exact`
        alone; an input that has hardly any other is not usable."""
        faults: list[EncodingFault] = []
        return self._encode(self._reader.read(inputs, faults), faults)

    def encode_scanned(self, inputs: ScannedInputs) -> tuple[Encoded, Flags]:
        """Objects in which every number is one and every category a text."""
        read, clean = self._reader.read_members(inputs.text, inputs.start, inputs.end, inputs.members)
        return self._encode(read, ()), clean

    def standard(self, values: I16) -> F64:
        """See Encoder: the rotation undone. Values beyond 4 units are compressed, as they were before the rotation."""
        units, turned = values / float(UNIT), np.empty(values.shape)
        for block in range(0, self.dim, 64):
            rows = slice(block, min(block + 64, self.dim))
            own = self._turned[rows, : rows.stop - block]
            turned[:, self._order[rows]] = units[:, rows] @ own.T
        return turned

    def header(self) -> dict[str, Any]:
        fit = self.fitted
        return {
            "names": fit.names,
            "categories": fit.categories,
            "present_min": fit.present_min,
            "ignored": fit.ignored,
        }

    def to_arrays(self) -> Arrays:
        return {name: getattr(self.fitted, name) for name in _ARRAYS}

    @classmethod
    def from_arrays(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], seed: bytes) -> Self:
        columns: dict[str, Any] = {name: arrays[name] for name in _ARRAYS}
        categories = tuple(tuple(names) for names in header["categories"])
        columns["present_min"] = int(header["present_min"])
        columns["ignored"] = tuple((name, kind) for name, kind in header["ignored"])
        return cls(TabularFit(tuple(header["names"]), categories, **columns), seed)

    def probe(self, rng: np.random.Generator, count: int) -> Iterator[Any]:
        """The commonest value of every field, but for the field of numbers with most known values, which is walked.

        Without a field of numbers the categories change by turns.
        """
        fit = self.fitted
        usual = {name: _commonest(fit, place) for place, name in enumerate(fit.names)}
        numbers = [place for place in range(len(fit.names)) if not fit.categories[place]]
        if not numbers:
            for number in range(count):
                place = number % len(fit.names)
                yield usual | {fit.names[place]: str(rng.choice(fit.categories[place]))}
            return
        known = np.diff(fit.known_start)
        walked = max(numbers, key=lambda place: (known[place], fit.names[place]))
        begin = fit.centre[walked] - fit.scale[walked] * (PROBE_SPAN / 2 - PROBE_SHAKE * rng.random())
        for number in range(count):
            yield usual | {fit.names[walked]: float(begin + fit.scale[walked] * PROBE_SPAN * number / count)}

    @classmethod
    def row_layout(cls, rows: Iterable[Any]) -> RowLayout | None:
        return table_rows.layout(rows)

    @classmethod
    def row_keys(cls, layout: RowLayout, seed: bytes) -> Callable[[Sequence[Any]], KeyedRows]:
        return table_rows.keys(layout, seed)

    def row_misfit(self, layout: RowLayout) -> str:
        return table_rows.misfit(layout, dict(zip(self.field_names, self.fitted.categories, strict=True)))

    def row_lookup(self, layout: RowLayout, seed: bytes) -> Callable[[Encoded], U64]:
        return table_rows.lookup(layout, dict(zip(self.field_names, self.fitted.categories, strict=True)), seed)

    def _encode(self, read: ReadRows, faults: Sequence[EncodingFault]) -> Encoded:
        n, f = len(read.plain), self.dim
        plain = np.ascontiguousarray(read.plain[:, :f])
        encoded = Encoded(
            np.empty((n, f), np.int16),
            np.empty((n, f), np.uint16),
            np.empty((n, f), np.uint8),
            np.empty(n, np.uint32),
            read.rest,
            np.empty(n, np.uint32),
            plain,
            np.count_nonzero(~np.isnan(plain), axis=1) >= self.fitted.present_min,
            tuple(sorted(faults)),
        )
        encode_table(plain, self._tables, EncodedRows(*encoded[:6]))
        if not encoded.usable.all():
            for array in (*encoded[:4], encoded.odd):
                array[~encoded.usable] = 0
        return encoded


def _unseen(fit: TabularFit) -> U8:
    """(f,) surprisal of an unseen category: that of a known one on average, or of no value if that is less.

    Where history always had a value, none is the greatest surprise; but what is unknown tells nothing.
    """
    worth = fit.missing.copy()
    for place in (place for place, known in enumerate(fit.categories) if known):
        nats = fit.known_surprisals[fit.known_start[place] : fit.known_start[place + 1]] / SURPRISAL_UNIT
        if len(nats):
            mean = float((np.exp(-nats) * nats).sum() / np.exp(-nats).sum())
            worth[place] = min(int(worth[place]), round(mean * SURPRISAL_UNIT))
    return worth


def _commonest(fit: TabularFit, place: int) -> float | str | None:
    values = slice(int(fit.known_start[place]), int(fit.known_start[place + 1]))
    if fit.categories[place]:
        return fit.categories[place][0]
    if values.start == values.stop:
        return float(fit.centre[place])
    return float(fit.known[values][int(np.argmin(fit.known_surprisals[values]))])
