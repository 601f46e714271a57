"""The population: equal to its slow twin, hard to widen, and able to tell what is not of it."""

import numpy as np
import pytest

from models.artefacts.population import CELLS, Population, fit_population
from models.encoders.table import TabularEncoder, fit_table
from models.rows import F64, I16, UNIT
from tests.reference.population import SlowPopulation, random_features

SEED = bytes(range(32))


def correlated(n: int, d: int, seed: int) -> I16:
    """Rows of d numbers that share three causes, in value units."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(d).normal(size=(3, d))
    rows = rng.normal(size=(n, 3)) @ mixing / np.sqrt(3) + 0.3 * rng.standard_t(4, size=(n, d))
    return np.clip(np.rint(rows * UNIT), -32_767, 32_767).astype(np.int16)


def twin_of(population: Population) -> SlowPopulation:
    d, width = population.factor.shape
    whitening = np.zeros((d, d))
    for start in range(0, d, 64):
        size = min(width, d - start)
        whitening[start : start + size, start : start + size] = population.factor[start : start + size, :size].T
    return SlowPopulation(population.centre.tolist(), whitening.tolist(), population.cells.tolist())


@pytest.mark.parametrize("d", [1, 2, 23, 64, 70, 130])
def test_rows_are_described_as_the_slow_twin_does(d: int) -> None:
    population = fit_population(correlated(2_000, d, 1), "some encoder")
    twin = twin_of(population)
    rows = np.concatenate((correlated(40, d, 2), np.random.default_rng(3).integers(-32_767, 32_768, (40, d))))
    rows = rows.astype(np.int16)
    novelty, cell = population.describe(rows)
    assert novelty.tolist() == [twin.novelty(row) for row in rows.tolist()]
    assert cell.tolist() == [twin.cell(row) for row in rows.tolist()]
    assert len(set(cell.tolist())) > 5
    frequencies, phases = population._random
    slow = [random_features(row, frequencies.T.tolist(), phases.tolist()) for row in rows.tolist()]
    np.testing.assert_allclose(population.rff(rows), slow, atol=1e-9)


def test_what_is_said_of_a_row_does_not_depend_on_its_batch() -> None:
    rows = correlated(300, 23, 4)
    population = fit_population(correlated(1_000, 23, 1), "e")
    novelty, cell = population.describe(rows)
    alone = [population.describe(rows[i : i + 1]) for i in range(300)]
    assert novelty.tobytes() == b"".join(one.tobytes() for one, _ in alone)
    assert cell.tolist() == [int(one[0]) for _, one in alone]
    backwards = population.describe(rows[::-1])
    assert np.array_equal(backwards[0][::-1], novelty) and np.array_equal(backwards[1][::-1], cell)


def test_fitting_again_gives_the_same() -> None:
    rows = correlated(3_000, 7, 5)
    one, other = fit_population(rows, "e"), fit_population(rows.copy(), "e")
    assert all(np.array_equal(array, other.arrays()[name]) for name, array in one.arrays().items())
    assert np.array_equal(one.rff(rows), Population.from_arrays("e", other.arrays()).rff(rows))  # type: ignore[union-attr]
    assert not np.allclose(one.rff(rows[:9]), fit_population(rows, "another").rff(rows[:9]))


def test_ordinary_rows_are_one_root_of_a_mean_square_away() -> None:
    rng = np.random.default_rng(6)
    rows = np.rint(rng.multivariate_normal(np.ones(5), np.diag([1, 4, 0.25, 1, 1]), 20_000) * UNIT).astype(np.int16)
    population = fit_population(rows[:10_000], "e")
    novelty, _ = population.describe(rows[10_000:])
    assert np.sqrt((novelty.astype(float) ** 2).mean()) == pytest.approx(1.0, abs=0.03)
    np.testing.assert_allclose(population.centre, 1.0, atol=0.06)


def people(n: int, rng: np.random.Generator) -> list[dict[str, float]]:
    income = rng.lognormal(8, 0.5, n)
    columns = {
        "income": np.rint(income), "rent": np.rint(income * rng.uniform(0.2, 0.4, n)), "age": rng.integers(18, 80, n),
        "debt": np.rint(income * rng.lognormal(0, 0.4, n)), "limit": np.rint(income * 3 + rng.normal(0, 300, n)),
    }  # fmt: skip
    return [{name: float(column[row]) for name, column in columns.items()} for row in range(n)]


def test_shuffled_columns_are_more_novel_than_rows_and_random_ones_much_more() -> None:
    """Synthetic queries of model extraction: right marginals do not make a member of the population."""
    rng = np.random.default_rng(7)
    encoder = TabularEncoder(fit_table(people(3_000, rng)), SEED)
    population = fit_population(encoder.encode(people(3_000, rng)).values, encoder.id)
    real = people(2_000, rng)
    table: F64 = np.array([list(row.values()) for row in real])
    shuffled = np.column_stack([rng.permutation(column) for column in table.T])
    uniform = np.column_stack([rng.uniform(*np.quantile(column, (0.01, 0.99)), 2_000) for column in table.T])
    middles = []
    for rows in (table, shuffled, uniform):
        inputs = [dict(zip(real[0], row, strict=True)) for row in rows.tolist()]
        middles.append(float(np.median(population.describe(encoder.encode(inputs).values)[0])))
    assert middles[1] > 1.5 * middles[0] and middles[2] > 1.5 * middles[1]


def test_few_rows_far_out_do_not_widen_what_is_ordinary() -> None:
    rows, far = correlated(5_000, 8, 8), correlated(60, 8, 9)
    poison = np.zeros((50, 8), np.int16)
    poison[:, 0] = 32_767
    plain = fit_population(rows, "e")
    poisoned = fit_population(np.concatenate((rows, poison)), "e")
    far[:, 0] = 3 * UNIT
    one, other = plain.describe(far)[0], poisoned.describe(far)[0]
    assert np.median(other / one) > 0.9
    naive = [np.linalg.inv(np.cov(part.T / UNIT)) for part in (rows, np.concatenate((rows, poison)))]
    assert naive[1][0, 0] < 0.1 * naive[0][0, 0]  # an ordinary covariance would have opened that direction threefold


@pytest.mark.parametrize("rows", [np.zeros((1, 3), np.int16), np.full((500, 3), 7, np.int16)])
def test_a_population_without_variance_still_says_how_far(rows: I16) -> None:
    population = fit_population(rows, "e")
    other = rows[:1] + np.int16(UNIT)
    (near, far), cell = population.describe(np.concatenate((rows[:1], other)))
    assert near == 0.0 and 10 < far < 1_000 and cell.tolist() == [1, 1]


def test_cells_are_distinct_and_at_most_64() -> None:
    assert len(fit_population(correlated(3_000, 4, 10), "e").cells) == CELLS
    few = np.repeat(correlated(5, 4, 11), 100, axis=0)
    population = fit_population(few, "e")
    assert np.array_equal(population.cells, np.unique(few, axis=0))
    assert population.describe(population.cells)[1].tolist() == [1, 2, 3, 4, 5]
