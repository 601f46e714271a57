"""Training rows of a table: keys that depend on the row and the seed only, never on what an encoder was fitted to."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from models.encoders.base import Encoded, EncodingFault, KeyedRows, RowLayout
from models.encoders.table_reader import TableReader, Value, derive, number_of
from models.kernels.encode.encode import row_keys
from models.rows import F64, I64, U8, U64

NUMBER, CATEGORY = "number", "category"


class Keying(NamedTuple):
    """What `row_keys` takes after the rows."""

    columns: I64
    salt: U64
    categorical: U8
    digests: U64
    digest_start: I64

    def keys(self, plain: F64) -> U64:
        """plain : (n, f) as a TableReader gives it."""
        keys = np.empty(len(plain), np.uint64)
        row_keys(np.ascontiguousarray(plain), *self, keys)
        return keys


def layout(rows: Iterable[Mapping[str, Value]]) -> RowLayout | None:
    """Fields that hold a value in any row, with their kinds: a text that is no number makes a field a category."""
    is_category: dict[str, bool] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None:
                is_text = isinstance(value, str) and math.isnan(number_of(value))
                is_category[name] = is_category.get(name, False) or is_text
    if not is_category:
        return None
    return {"fields": {name: CATEGORY if is_category[name] else NUMBER for name in sorted(is_category)}}


def keys(layout: RowLayout, seed: bytes) -> Callable[[Sequence[Any]], KeyedRows]:
    """Rows are read as `sketch` reads them, so that both agree on what is the same input."""
    names, kinds = tuple(layout["fields"]), layout["fields"].values()
    categories = [() if kind == CATEGORY else None for kind in kinds]
    reader = TableReader(names, categories, seed)
    keyed = keying(names, range(len(names)), categories, seed)

    def of_rows(rows: Sequence[Any]) -> KeyedRows:
        faults: list[EncodingFault] = []  # a row of which something cannot be read is no row to look for
        plain = reader.read(rows, faults).plain
        return KeyedRows(keyed.keys(plain), tuple(sorted(faults)))

    return of_rows


def misfit(layout: RowLayout, categories: Mapping[str, Sequence[str]]) -> str:
    """categories : of each field of the encoder; none for numbers."""
    foreign = sorted(set(layout["fields"]) - set(categories))
    if foreign:
        return (
            f"calibration did not find the fields {', '.join(foreign)} in the model's log, or left them out; leave them"
            " out here too (--leave-out NAME)"
        )
    for name, kind in layout["fields"].items():
        expected = CATEGORY if categories[name] else NUMBER
        if kind != expected:
            return f"field {name}: expected a {expected}, as in the model's log; got a {kind}"
    return ""


def lookup(layout: RowLayout, categories: Mapping[str, Sequence[str]], seed: bytes) -> Callable[[Encoded], U64]:
    """categories : as in `misfit`, in the order of the encoder's fields."""
    order = list(categories)
    names = tuple(layout["fields"])
    places = [order.index(name) for name in names]
    keyed = keying(names, places, [categories[name] or None for name in names], seed)
    return lambda encoded: keyed.keys(encoded.plain)


def keying(
    names: Sequence[str], places: Sequence[int], categories: Sequence[Sequence[str] | None], seed: bytes
) -> Keying:
    """For these fields at these places of `plain`. categories : as its TableReader got them, None for numbers."""
    digest = TableReader((), (), seed).digest
    salts = [int.from_bytes(derive(seed, b"member", name.encode())[:8], "big") for name in names]
    digests = [[digest(category) for category in known or ()] for known in categories]
    return Keying(
        np.array(places, np.int64),
        np.array(salts, np.uint64),
        np.array([known is not None for known in categories], np.uint8),
        np.array([code for codes in digests for code in codes], np.uint64),
        np.concatenate(([0], np.cumsum([len(codes) for codes in digests]))).astype(np.int64),
    )
