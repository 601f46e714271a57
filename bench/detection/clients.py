"""What real people do to a form: who applies, what they change, how their figures look a month later."""

import functools
from dataclasses import dataclass

import numpy as np
from sklearn.neighbors import NearestNeighbors

from bench.detection.datasets import Dataset, Field
from models.rows import F64, I64

NEIGHBOURS = 10
BORROWED_SHARE = 0.2
"""Share of a bootstrap person's fields that come from one of the ten nearest real people."""

EDIT_DECAY = 0.65
"""How much rarer each next field of Dataset.editable is changed than the one before."""
ROUND_STEPS_MAX = 5
FEW_VALUES = 12
"""A number with so few different values is chosen from a list, as a category is."""

MONTHLY_DRIFT = 0.03
MONTHLY_STEP_SHARE = 0.3
WIDE_STEPS = 200


@dataclass(frozen=True)
class People:
    """The people of one data set. All inputs are (m, d) and stay on the fields' grids."""

    dataset: Dataset

    def draw(self, rng: np.random.Generator, count: int) -> F64:
        """People in random order: every real one once, then smoothed bootstrap (real rows, some fields borrowed)."""
        real = self.dataset.inputs
        own = rng.permutation(len(real))[:count]
        more = self.bootstrap(rng, count - len(own)) if count > len(own) else real[:0]
        return np.concatenate((real[own], more))[rng.permutation(count)]

    def bootstrap(self, rng: np.random.Generator, count: int) -> F64:
        """New people: a real row, a fifth of its fields from one of its nearest neighbours."""
        real = self.dataset.inputs
        base = rng.integers(0, len(real), count)
        other = self._neighbours[base, rng.integers(0, NEIGHBOURS, count)]
        borrowed = rng.random((count, real.shape[1])) < BORROWED_SHARE
        return np.where(borrowed, real[other], real[base])

    def edit(self, rng: np.random.Generator, inputs: F64, changes: I64) -> F64:
        """The same applications with so many (m,) things changed that a person can change."""
        made = inputs.copy()
        for turn in range(int(changes.max(initial=0))):
            rows = np.flatnonzero(changes > turn)
            fields = rng.choice(self.dataset.editable, len(rows), p=self._edit_shares)
            made[rows] = self.change(rng, made[rows], fields)
        return made

    def change(self, rng: np.random.Generator, inputs: F64, fields: I64) -> F64:
        """Another value in one field (m,) of each row: a few round steps away, or another entry of the list."""
        made = inputs.copy()
        for j in np.unique(fields).tolist():
            rows = np.flatnonzero(fields == j)
            made[rows, j] = self._other(rng, j, made[rows, j])
        return made

    def step(self, inputs: F64, fields: I64, steps: F64) -> F64:
        """One field (m,) of each row moved by so many (m,) round steps, kept inside its plausible range."""
        made = inputs.copy()
        for j in np.unique(fields).tolist():
            rows, field = np.flatnonzero(fields == j), self.dataset.fields[j]
            moved = self.dataset.rounded_field(j, made[rows, j] + steps[rows] * field.round_step)
            made[rows, j] = np.where((moved >= field.low) & (moved <= field.high), moved, made[rows, j])
        return made

    def next_month(self, rng: np.random.Generator, inputs: F64) -> F64:
        """Every figure moves a little: amounts by up to 3 %, counts now and then by one; facts and categories stay."""
        made = inputs.copy()
        for j in self.dataset.attackable.tolist():
            field, column = self.dataset.fields[j], made[:, j]
            if self.dataset.span[j] > WIDE_STEPS * field.step:
                moved = column * rng.uniform(1 - MONTHLY_DRIFT, 1 + MONTHLY_DRIFT, len(column))
            else:
                turn = rng.choice([-1.0, 0.0, 1.0], len(column), p=_thirds(MONTHLY_STEP_SHARE))
                moved = column + turn * field.step
            inside = np.clip(moved, np.minimum(column, field.low), np.maximum(column, field.high))
            made[:, j] = self.dataset.rounded_field(j, inside)
        return made

    def pick_fields(self, rng: np.random.Generator, count: int, fields: int) -> I64:
        """Different fields that a person changes, (count, fields), the usual ones more often."""
        # The largest of uniform ** (1 / weight) are a weighted sample without replacement (Efraimidis, Spirakis 2006).
        keys = rng.random((count, len(self._edit_shares))) ** (1 / self._edit_shares)
        return self.dataset.editable[np.argsort(-keys, axis=1)[:, :fields]]

    def usual(self, field: int, count: int) -> F64:
        """The most frequent values of one field, at most so many, rising."""
        column = self.dataset.inputs[:, field]
        values, counts = np.unique(column[np.isfinite(column)], return_counts=True)
        return np.sort(values[np.argsort(-counts, kind="stable")[:count]])

    def typical(self, rng: np.random.Generator, field: int, count: int) -> F64:
        """Values that real people gave in one field; no blanks."""
        column = self.dataset.inputs[:, field]
        return rng.choice(column[np.isfinite(column)], count)

    def _other(self, rng: np.random.Generator, j: int, old: F64) -> F64:
        if self._listed[j]:
            return self.typical(rng, j, len(old))
        field: Field = self.dataset.fields[j]
        known = np.where(np.isnan(old), self.typical(rng, j, len(old)), old)
        steps = rng.integers(1, ROUND_STEPS_MAX + 1, len(old)) * rng.choice([-1.0, 1.0], len(old))
        # Half of the people give a round figure, half correct the figure they gave.
        start = np.where(rng.random(len(old)) < 0.5, np.rint(known / field.round_step) * field.round_step, known)
        return self.dataset.rounded_field(j, np.clip(start + steps * field.round_step, field.low, field.high))

    @functools.cached_property
    def _edit_shares(self) -> F64:
        shares = EDIT_DECAY ** np.arange(len(self.dataset.editable))
        return shares / shares.sum()

    @functools.cached_property
    def _listed(self) -> list[bool]:
        columns = zip(self.dataset.fields, self.dataset.inputs.T, strict=True)
        return [bool(f.categories) or len(np.unique(c[np.isfinite(c)])) <= FEW_VALUES for f, c in columns]

    @functools.cached_property
    def _neighbours(self) -> I64:
        """(n, NEIGHBOURS) nearest other real people, in standard units, blanks as the median."""
        real = self.dataset.inputs
        filled = np.where(np.isnan(real), np.nanmedian(real, axis=0), real)
        points = (filled - filled.mean(axis=0)) / np.maximum(filled.std(axis=0), 1e-9)
        near: I64 = NearestNeighbors(n_neighbors=NEIGHBOURS + 1, n_jobs=1).fit(points).kneighbors(return_distance=False)
        return near[:, :NEIGHBOURS]


def _thirds(share: float) -> list[float]:
    return [share / 2, 1 - share, share / 2]
