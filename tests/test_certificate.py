"""Conformal thresholds keep their budget on clients that were not there when they were set."""

import numpy as np
import pytest

from models.certificate import BUDGETS, thresholds


@pytest.mark.parametrize("level", [1, 2])
def test_realised_rate_is_the_budget_on_average(level: int) -> None:
    """400 calibrations on heavy-tailed statistics: the mean exceedance of new clients is the budget, within 4 sigma."""
    rng = np.random.default_rng(5)
    m, calibrations = 2_999, 400
    rates = []
    for _ in range(calibrations):
        rungs = thresholds((1000 * rng.standard_t(3, m)).astype(np.int64))
        assert rungs.certified[level]
        rates.append((1000 * rng.standard_t(3, 20_000) >= rungs.thresholds[level]).mean())
    budget = BUDGETS[level]
    sigma = np.std(rates) / np.sqrt(calibrations)
    assert abs(np.mean(rates) - budget) < 4 * sigma + 1e-9
    assert np.mean(rates) < 1.3 * budget


def test_budgets_beyond_the_number_of_clients_are_extrapolated_and_say_so() -> None:
    found, certified, _, promised = thresholds(np.arange(500))
    assert certified == (False, True, False, False, False)
    assert promised == (1.0, 1e-2, 1 / 501, 1 / 501, 1 / 501)
    assert found[1] < found[2] < found[3] < found[4]
    assert found[2] > 499


def test_a_tie_with_a_certifying_client_is_not_an_alarm() -> None:
    found = thresholds(np.full(5_000, 700)).thresholds
    assert found[1] == found[2] == 701


def test_no_clients_promise_nothing() -> None:
    found, certified, _, promised = thresholds(np.zeros(0, np.int64))
    assert not any(certified)
    assert set(promised) == {1.0}
    assert not found.any()
