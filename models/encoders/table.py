"""Rows of a table to integers: grids, standard units, surprisals, keyed hashes of field values."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.encoders import table_rows
from models.encoders.base import Arrays, Encoded, Encoder, EncodingFault, Flags, KeyedRows, RowLayout, ScannedInputs
from models.encoders.table_reader import (
    UNSEEN_CODE,
    ReadRows,
    TableReader,
    Unread,
    Value,
    category_text,
    derive,
    number_of,
)
from models.hashes import short_hash
from models.kernels.encode.encode import EncodedRows, TableTables, encode_table, orthogonalise, transpose_blocks
from models.rows import F64, I16, I64, SURPRISAL_UNIT, U8, U64, UNIT

KNOWN_VALUES_MAX = 4096
REACH = 0.5
"""L2 in standard units: half of it misses synthetic extraction, twice of it triples the delay (docs/engine.md)."""
AGREEMENT_NATS_PER_FIELD = 25.0 / 23.0

PRESENT_PARTS, PRESENT_SHARE = 4, 0.01
"""See `_present_min`: a renamed log has hardly a field left, and an ordinary one sometimes lacks many."""

PROBE_SPAN = 3.0
"""Length of a probe's walk, in standard units of the field."""
PROBE_SHAKE = 0.013
"""How much further on it may begin, in the same units."""

ORDINARY_SHARES = 0.01, 0.99
"""Quantiles of a field's numbers; ordinary ones lie within them and as far again beyond on either side."""
MISSING_PARTS = 200
"""A field is required if at most one row in so many of history had no value in it."""

_ARRAYS = (
    "centre", "scale", "step", "low", "high", "required", "known", "known_surprisals", "known_start", "unknown",
    "missing",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TabularFit:
    """Statistics of each of f fields in benign history. Holds no secret.

    categories : per field its names, most frequent first; () for numbers.
    centre, scale, step : (f,); step > 0 a decimal grid, 0 none, -1 categories.
    low, high : (f,) bounds of ordinary numbers, and of the codes of known categories. required : (f,) 1 or 0.
    known, known_surprisals, known_start : values seen at least twice, sorted within a field, with their surprisals.
    unknown, missing : (f,) surprisal of an unseen value, and of no value, in 1/16 nat.
    present_min : rows with fewer values are not judged.
    """

    names: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...]
    centre: F64
    scale: F64
    step: F64
    low: F64
    high: F64
    required: U8
    known: F64
    known_surprisals: U8
    known_start: I64
    unknown: U8
    missing: U8
    present_min: int = 0

    def digest(self) -> str:
        h = hashlib.sha256(repr((self.names, self.categories)).encode())
        for name in _ARRAYS:
            h.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        h.update(b"%d" % self.present_min)
        return h.hexdigest()


def fit_table(rows: Sequence[Mapping[str, Value]]) -> TabularFit:
    """Fit on benign history. Fields are those found in at least one row in 20, sorted by name.

    Raises ValueError when no field is left.
    """
    seen = Counter(name for row in rows for name in row)
    names = tuple(sorted(name for name, count in seen.items() if count * 20 >= len(rows)))
    if not names:
        raise ValueError("history has no table fields to fit an encoder on")
    fitted = [_fit_field([row.get(name) for row in rows]) for name in names]
    starts = np.concatenate(([0], np.cumsum([len(field.known) for field in fitted])))
    return TabularFit(
        names=names,
        categories=tuple(field.categories for field in fitted),
        centre=np.array([field.centre for field in fitted]),
        scale=np.array([field.scale for field in fitted]),
        step=np.array([field.step for field in fitted]),
        low=np.array([field.low for field in fitted]),
        high=np.array([field.high for field in fitted]),
        required=np.array([field.required for field in fitted], np.uint8),
        known=np.concatenate([field.known for field in fitted]),
        known_surprisals=np.concatenate([field.surprisals for field in fitted]),
        known_start=starts.astype(np.int64),
        unknown=np.array([field.unknown for field in fitted], np.uint8),
        missing=np.array([field.missing for field in fitted], np.uint8),
        present_min=_present_min(rows, names),
    )


def _present_min(rows: Sequence[Mapping[str, Value]], names: Sequence[str]) -> int:
    """How many fields a row must have: a quarter of what half of history has, and no more than all but 1 % of it."""
    present = np.array([sum(row.get(name) is not None for name in names) for row in rows])
    few, usual = np.quantile(present, (PRESENT_SHARE, 0.5), method="inverted_cdf")
    return min(int(few), -(-int(usual) // PRESENT_PARTS))


@dataclass(frozen=True, slots=True)
class _FieldFit:
    categories: tuple[str, ...]
    centre: float
    scale: float
    step: float
    low: float
    high: float
    required: bool
    known: F64
    surprisals: U8
    unknown: int
    missing: int


def _fit_field(column: Sequence[Value]) -> _FieldFit:
    present = [value for value in _as_numbers(column) if value is not None]
    categories: tuple[str, ...] = ()
    if any(isinstance(value, str) for value in present):
        counted = Counter(category_text(value) for value in present)
        categories = tuple(name for name, _ in sorted(counted.items(), key=lambda item: (-item[1], item[0])))
        codes = {name: float(code) for code, name in enumerate(categories)}
        numbers = np.array([codes[category_text(value)] for value in present])
        step, low, high = -1.0, 0.0, UNSEEN_CODE - 1.0
    else:
        numbers = np.array([number_of(value) for value in present])
        step = _decimal_step(numbers)
        low, high = _ordinary(numbers)
    known, counts = np.unique(numbers, return_counts=True)
    common = np.sort(np.argsort(-counts, kind="stable")[:KNOWN_VALUES_MAX])
    common = common[counts[common] >= 2]
    total = len(column) + 1.0
    centre, scale = _location_scale(numbers)
    return _FieldFit(
        categories=categories,
        centre=centre,
        scale=scale,
        step=step,
        low=low,
        high=high,
        required=(len(column) - len(present)) * MISSING_PARTS <= len(column),
        known=known[common],
        surprisals=_surprisal(counts[common] / total),
        unknown=int(_surprisal(np.array([1.0 / total]))[0]),
        missing=int(_surprisal(np.array([(len(column) - len(present) + 0.5) / total]))[0]),
    )


def _as_numbers(column: Sequence[Value]) -> list[Value]:
    """Numbers in quotes as numbers, where most values are numbers without; what cannot be read as None."""
    column = [None if isinstance(value, Unread) else value for value in column]
    texts = [value for value in column if isinstance(value, str)]
    plain = sum(value is not None for value in column) - len(texts)
    if plain <= len(texts) or any(np.isnan(number_of(text)) for text in texts):
        return column
    return [number_of(value) if isinstance(value, str) else value for value in column]


def _surprisal(p: F64) -> U8:
    surprisal: U8 = np.clip(np.rint(-np.log(p) * SURPRISAL_UNIT), 0, 255).astype(np.uint8)
    return surprisal


def _location_scale(numbers: F64) -> tuple[float, float]:
    """Median and scale of the central 90 %; the standard deviation if that is 0, then 1."""
    if not len(numbers):
        return 0.0, 1.0
    low, centre, high = np.quantile(numbers, (0.05, 0.5, 0.95), method="inverted_cdf")
    scale = float(high - low) / 3.29
    if scale <= 0.0:
        scale = float(numbers.std())
    return float(centre), scale if scale > 0.0 else 1.0


def _ordinary(numbers: F64) -> tuple[float, float]:
    """Bounds that a few odd rows cannot move, and beyond which few ordinary ones lie."""
    if not len(numbers):
        return -math.inf, math.inf
    low, high = np.quantile(numbers, ORDINARY_SHARES, method="inverted_cdf")
    beyond = max(float(high - low), _location_scale(numbers)[1])
    return float(low) - beyond, float(high) + beyond


def _decimal_step(numbers: F64) -> float:
    """Finest decimal place that history used, up to six; 0 where it used more (a continuous field)."""
    for places in range(7):
        scaled = numbers * 10.0**places
        if np.all(np.abs(scaled - np.rint(scaled)) <= 1e-9 * np.maximum(1.0, np.abs(scaled)) + 1e-9):
            return float(10.0**-places)
    return 0.0


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
        salts = [derive(seed, b"field", name.encode())[:8] for name in fit.names]
        salt: U64 = np.array([int.from_bytes(salt, "big") for salt in salts], np.uint64)
        fitted = {name: getattr(fit, name) for name in _ARRAYS}
        self._tables = TableTables(**fitted, unseen=_unseen(fit), order=self._order, rotation=self._turned, salt=salt)
        self._reader = TableReader(fit.names, [known or None for known in fit.categories], seed)
        check = derive(seed, b"check").hex()
        self.id = short_hash(f"{self.kind}:{fit.digest()}:{check}".encode())

    @classmethod
    def fit(cls, inputs: Sequence[Any], seed: bytes) -> Self | None:
        """None if no field occurs in one row in twenty."""
        try:
            return cls(fit_table(inputs), seed)
        except ValueError:
            return None

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
        return {"names": fit.names, "categories": fit.categories, "present_min": fit.present_min}

    def to_arrays(self) -> Arrays:
        return {name: getattr(self.fitted, name) for name in _ARRAYS}

    @classmethod
    def from_arrays(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], seed: bytes) -> Self:
        columns: dict[str, Any] = {name: arrays[name] for name in _ARRAYS}
        categories = tuple(tuple(names) for names in header["categories"])
        columns["present_min"] = int(header["present_min"])
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
        n, f = read.plain.shape
        encoded = Encoded(
            np.empty((n, f), np.int16),
            np.empty((n, f), np.uint16),
            np.empty((n, f), np.uint8),
            np.empty(n, np.uint32),
            read.rest,
            np.empty(n, np.uint32),
            read.plain,
            np.count_nonzero(~np.isnan(read.plain), axis=1) >= self.fitted.present_min,
            tuple(sorted(faults)),
        )
        encode_table(read.plain, self._tables, EncodedRows(*encoded[:6]))
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
