"""What calibration takes from a table's history: which fields, of which kind, on which grid, how common each value is.

Everything is a share of clients (models/client_shares.py), or an order statistic inside the central 95 %: a few clients
who send anything at all, as often as they like, change no kind and no grid and move no quantile beyond its neighbours.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.client_shares import limited_rows, quantiles, row_weights
from models.encoders.base import CATEGORY, CONFIGURED, LEFT_OUT, NUMBER, FieldTaken, Flags, Told
from models.encoders.table_reader import UNSEEN_CODE, Value, category_text, number_of
from models.rows import F64, I64, SURPRISAL_UNIT, U8, U64

KNOWN_VALUES_MAX = 4096
PRESENT_SHARE_MIN = 0.05
"""Share of clients that send a field at all; with fewer it is left out."""
CONSTANT_SHARE = 0.985
"""A field with one value in this share of history tells nobody from another, and would only dilute agreement."""
FINER_SHARE = 0.015
"""Share of clients that may have sent values off the grid."""
SOME_FINER_SHARE, SOME_FINER_PLACES = 0.003, 2
"""Share of clients that make the grid finer, by these places at most."""
OWN_SHARE = 0.8
"""A category of whose values this share comes from one client each is an identifier."""
CLIENTS_MIN = 20
"""With fewer clients nothing is said to be constant or an identifier, and what one client sent is a known value."""
SENDERS_MIN = 2
"""Clients that must have sent a value for it to be known."""
IDENTIFIER = "an identifier: nearly every client has values of its own"
PRESENT_PARTS, PRESENT_SHARE = 4, 0.02
"""See `_present_min`: a renamed log has hardly a field left, and an ordinary one sometimes lacks many."""
MISSING_SHARE = 0.015
"""A field is required if it has no value in at most this share of history."""
PLACES_MAX = 6
OUTER_SHARE = 0.05
"""The scale is measured between this quantile and the one opposite."""


@dataclass(frozen=True, slots=True)
class TabularFit:
    """Statistics of each of f fields in benign history. Holds no secret.

    categories : per field its names, most frequent first; () for numbers.
    centre, scale, step : (f,); step > 0 a decimal grid, 0 none, -1 categories.
    low, high : (f,) bounds of ordinary numbers, and of the codes of known categories. required : (f,) 1 or 0.
    known, known_surprisals, known_start : values that several clients sent, sorted within a field, with surprisals.
    unknown, missing : (f,) surprisal of an unseen value, and of no value, in 1/16 nat.
    present_min : rows with fewer values are not judged.
    ignored : fields that are no part of an input, with their kinds: identifiers, and what people left out. A field that
    is left out for another reason tells inputs apart, though nothing else depends on it.
    taken : every field that history had, for people; stored in the certificate, not here.
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
    ignored: tuple[tuple[str, str], ...] = ()
    taken: tuple[FieldTaken, ...] = ()

    def digest(self) -> str:
        h = hashlib.sha256(repr((self.names, self.categories)).encode())
        arrays: tuple[NDArray[Any], ...] = (
            self.centre, self.scale, self.step, self.low, self.high, self.required, self.known, self.known_surprisals,
            self.known_start, self.unknown, self.missing,
        )  # fmt: skip
        for array in arrays:
            h.update(np.ascontiguousarray(array).tobytes())
        h.update(repr((self.present_min, self.ignored)).encode())
        return h.hexdigest()


class _Sample(NamedTuple):
    """n rows. weights : (n,) whole numbers, equal sums for equal clients. owner : (n,) place of the row's client."""

    weights: I64
    owner: I64
    clients: int
    rows: float  # those of clients with very many counted less

    def share(self, chosen: Flags) -> float:
        return int(self.weights[chosen].sum()) / int(self.weights.sum())


class _Surprisals(NamedTuple):
    """known : values, rising. of_known : (k,) their surprisals. unknown, missing : of any other value, and of none."""

    known: F64
    of_known: U8
    unknown: int
    missing: int


class _FieldFit(NamedTuple):
    """Of one field; as in TabularFit."""

    categories: tuple[str, ...]
    centre: float
    scale: float
    step: float
    low: float
    high: float
    required: bool
    surprisals: _Surprisals


class _Found(NamedTuple):
    """A field of history. kind : what it was read as. fitted : None if it is left out."""

    taken: FieldTaken
    kind: Told
    fitted: _FieldFit | None


class _Values(NamedTuple):
    """One field's k distinct values, rising. readable : (n,) rows that have one. weight : (k,) of the rows that have
    it; share : of all weight. pairs : value * clients + client, once each. senders : (k,) clients that sent it."""

    distinct: NDArray[Any]
    readable: Flags
    weight: I64
    share: F64
    pairs: I64
    senders: I64


def fit_table(
    rows: Sequence[Mapping[str, Value]], clients: U64 | None = None, told: Mapping[str, Told] | None = None
) -> TabularFit:
    """Fit on benign history.

    clients : (n,) who sent each row; every row is a client of its own if None. told : what people say of fields.
    Raises ValueError when no field is left.
    """
    told = told or {}
    senders = np.arange(len(rows), dtype=np.uint64) if clients is None else clients
    distinct, owner = np.unique(senders, return_inverse=True)
    weights = row_weights(senders)
    sample = _Sample(weights, owner.reshape(-1), len(distinct), limited_rows(senders))
    found = [
        _take_field(name, [row.get(name) for row in rows], sample, told.get(name))
        for name in _names(rows, sample.owner, sample.clients, told)
    ]
    kept = [(one.taken.name, one.fitted) for one in found if one.fitted is not None]
    if not kept:
        raise ValueError("history has no table fields to fit an encoder on")
    names, fields = zip(*kept, strict=True)
    return TabularFit(
        names=names,
        categories=tuple(field.categories for field in fields),
        centre=np.array([field.centre for field in fields]),
        scale=np.array([field.scale for field in fields]),
        step=np.array([field.step for field in fields]),
        low=np.array([field.low for field in fields]),
        high=np.array([field.high for field in fields]),
        required=np.array([field.required for field in fields], np.uint8),
        known=np.concatenate([field.surprisals.known for field in fields]),
        known_surprisals=np.concatenate([field.surprisals.of_known for field in fields]),
        known_start=np.cumsum([0, *(len(field.surprisals.known) for field in fields)], dtype=np.int64),
        unknown=np.array([field.surprisals.unknown for field in fields], np.uint8),
        missing=np.array([field.surprisals.missing for field in fields], np.uint8),
        present_min=_present_min(rows, names, weights),
        ignored=tuple((one.taken.name, one.kind) for one in found if one.taken.reason in (CONFIGURED, IDENTIFIER)),
        taken=tuple(one.taken for one in found),
    )


def _present_min(rows: Sequence[Mapping[str, Value]], names: Sequence[str], weights: I64) -> int:
    """How many fields a row must have: a quarter of what half of history has, and no more than all but 2 % of it."""
    present = np.array([sum(row.get(name) is not None for name in names) for row in rows])
    few, usual = quantiles(present, weights, (PRESENT_SHARE, 0.5)).tolist()
    return min(int(few), -(-int(usual) // PRESENT_PARTS))


def _names(rows: Sequence[Mapping[str, Value]], owner: I64, clients: int, told: Mapping[str, Told]) -> list[str]:
    """Fields that at least one client in twenty names, with or without a value, and those that people speak of."""
    senders: dict[str, set[int]] = defaultdict(set)
    for row, client in zip(rows, owner.tolist(), strict=True):
        for name in row:
            senders[name].add(client)
    enough = clients * PRESENT_SHARE_MIN
    return sorted(name for name, those in senders.items() if len(those) >= enough or name in told)


def _take_field(name: str, column: Sequence[Value], sample: _Sample, told: Told | None) -> _Found:
    numbers = np.array([number_of(value) for value in column])
    present = np.array([value is not None for value in column])
    is_number = np.isfinite(numbers)
    is_plain = is_number | np.array([isinstance(value, str) for value in column])
    as_number = told == NUMBER or (told != CATEGORY and 2 * sample.share(is_number) >= sample.share(present))
    if as_number:
        values = _values(numbers, is_number, sample)
    else:
        texts = np.array([category_text(value) for value in column], object)
        values = _values(texts, is_plain, sample)
    reason = _left_out(values, present, sample, told, as_number)
    fitted = None if reason else (_fit_number if as_number else _fit_category)(values, sample)
    taken = FieldTaken(
        name=name,
        kind=LEFT_OUT if reason else NUMBER if as_number else CATEGORY,
        step=max(0.0, fitted.step) if fitted else 0.0,
        levels=len(fitted.surprisals.known) if fitted else 0,
        null=round(sample.share(~present), 6),
        odd_rows=int((present & ~values.readable).sum()),
        rows=int(present.sum()),
        reason=reason,
    )
    return _Found(taken, NUMBER if as_number else CATEGORY, fitted)


def _values(column: NDArray[Any], readable: Flags, sample: _Sample) -> _Values:
    distinct, codes = np.unique(column[readable], return_inverse=True)
    codes = codes.reshape(-1).astype(np.int64)
    weight = np.bincount(codes, sample.weights[readable], len(distinct)).astype(np.int64)  # below 2**53: exact
    pairs = np.unique(codes * sample.clients + sample.owner[readable])
    senders = np.bincount(pairs // sample.clients, minlength=len(distinct)).astype(np.int64)
    return _Values(distinct, readable, weight, weight / float(sample.weights.sum()), pairs, senders)


def _left_out(values: _Values, present: Flags, sample: _Sample, told: Told | None, as_number: bool) -> str:
    """Why a field is left out, "" if it is not. What people say of it holds, unless it has no value to be known."""
    if told == LEFT_OUT:
        return CONFIGURED
    if not len(values.distinct):
        return "never a value"
    if not as_number and not len(_known(values, sample)):
        return IDENTIFIER
    if told is not None:
        return ""
    senders = len(np.unique(sample.owner[present]))
    if senders < PRESENT_SHARE_MIN * sample.clients:
        return f"only {senders / sample.clients:.1%} of clients send a value"
    if sample.clients < CLIENTS_MIN:
        return ""
    held = float(values.share.sum())
    if max(1.0 - held, float(values.share.max())) >= CONSTANT_SHARE:
        return "one value" if held > 0.5 else "always null"
    own = float(values.share[values.senders == 1].sum())
    if not as_number and senders >= CLIENTS_MIN and own >= OWN_SHARE * held:
        return IDENTIFIER
    return ""


def _fit_number(values: _Values, sample: _Sample) -> _FieldFit:
    known = _known(values, sample)
    surprisals = _surprisals(values.distinct[known], values.share[known], values, sample)
    return _FieldFit(
        (),
        *_location_scale(values.distinct, values),
        _decimal_step(values, sample),
        *_ordinary(values),
        _is_required(values),
        surprisals,
    )


def _fit_category(values: _Values, sample: _Sample) -> _FieldFit:
    """Codes are ranks: the commonest category is 0. One that too few clients sent has no code."""
    known = _known(values, sample)
    order = known[np.argsort(-values.share[known], kind="stable")]  # of equals, the first name
    code = np.full(len(values.distinct), np.nan)
    code[order] = np.arange(len(order))
    names = tuple(str(name) for name in values.distinct[order])
    surprisals = _surprisals(np.arange(len(order), dtype=np.float64), values.share[order], values, sample)
    return _FieldFit(
        names, *_location_scale(code, values), -1.0, 0.0, UNSEEN_CODE - 1.0, _is_required(values), surprisals
    )


def _known(values: _Values, sample: _Sample) -> I64:
    """Places of the commonest values that several clients sent, in order."""
    least = SENDERS_MIN if sample.clients >= CLIENTS_MIN else 1
    common = np.argsort(-values.share, kind="stable")
    known: I64 = np.sort(common[values.senders[common] >= least][:KNOWN_VALUES_MAX])
    return known


def _surprisals(known: F64, share: F64, values: _Values, sample: _Sample) -> _Surprisals:
    total = sample.rows + 1.0
    missing = max(0.0, 1.0 - float(values.share.sum()))
    return _Surprisals(
        known,
        _surprisal(share * sample.rows / total),
        int(_surprisal(np.array([1.0 / total]))[0]),
        int(_surprisal(np.array([(missing * sample.rows + 0.5) / total]))[0]),
    )


def _surprisal(p: F64) -> U8:
    surprisal: U8 = np.clip(np.rint(-np.log(p) * SURPRISAL_UNIT), 0, 255).astype(np.uint8)
    return surprisal


def _location_scale(numbers: F64, values: _Values) -> tuple[float, float]:
    """Median and scale of the central 90 %, less where few clients send the field at all. Where that is one value: the
    typical distance of all others from it, by the standard deviation of a coin that comes up "other" as often.

    numbers : (k,) what each value stands for, NaN for nothing.
    """
    has = ~np.isnan(numbers)
    numbers, weights = numbers[has], values.weight[has]
    if not len(numbers):
        return 0.0, 1.0
    outer = _outer(float(values.share[has].sum()), OUTER_SHARE)
    low, centre, high = quantiles(numbers, weights, (outer, 0.5, 1.0 - outer)).tolist()
    width = 2.0 * NormalDist().inv_cdf(1.0 - outer)
    scale = high / width - low / width
    others = numbers != centre
    if scale <= 0.0 and others.any():
        p = int(weights[others].sum()) / int(weights.sum())
        [apart] = quantiles(np.abs(numbers[others] / 2 - centre / 2), weights[others], (0.5,)).tolist()
        scale = 2 * apart * math.sqrt(p * (1.0 - p))
    return centre, scale if 0.0 < scale < math.inf else 1.0


def _ordinary(values: _Values) -> tuple[float, float]:
    """Bounds that a few clients cannot move, and beyond which few ordinary numbers lie: two outer quantiles, and as far
    again beyond on either side."""
    if not len(values.distinct):
        return -math.inf, math.inf
    outer = _outer(float(values.share.sum()), FINER_SHARE)
    low, high = quantiles(values.distinct, values.weight, (outer, 1.0 - outer)).tolist()
    beyond = max(high - low, _location_scale(values.distinct, values)[1])
    return low - beyond, high + beyond


def _is_required(values: _Values) -> bool:
    return 1.0 - float(values.share.sum()) <= MISSING_SHARE


def _outer(present: float, least: float) -> float:
    """The outermost quantile that is measured: further inside where few clients send a field, so that odd ones are no
    larger a share of it. present : share that has a value."""
    return min(0.25, max(least, FINER_SHARE / present))


def _decimal_step(values: _Values, sample: _Sample) -> float:
    """Finest decimal place that all but a few clients need, up to six; 0 where they need more (a continuous field).

    Up to two places finer if some clients keep to that: an income in cents is no attack, and whoever makes a grid that
    much finer cannot switch it off. On the benchmark's log 1 % of clients have one; without this, unrounded extraction
    is found at its 10th row instead of its 3rd.
    """
    finer = [_finer(values, sample, places) for places in range(PLACES_MAX + 1)]
    usual = next((places for places, count in enumerate(finer) if count <= FINER_SHARE * sample.clients), None)
    if usual is None:
        return 0.0
    least = finer[min(usual + SOME_FINER_PLACES, PLACES_MAX)]
    if finer[usual] - least >= max(SENDERS_MIN, SOME_FINER_SHARE * sample.clients):
        usual = finer.index(least)
    return float(10.0**-usual)


def _finer(values: _Values, sample: _Sample, places: int) -> int:
    """Clients that sent a value with more decimal places."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = values.distinct * 10.0**places
        fits = np.abs(scaled - np.rint(scaled)) <= 1e-9 * np.maximum(1.0, np.abs(scaled)) + 1e-9
    return len(np.unique(values.pairs[~fits[values.pairs // sample.clients]] % sample.clients))
