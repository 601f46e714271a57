"""Thresholds equal their slow twin, and keep their budget on the client that was left out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.artefacts.certificate import BUDGETS, thresholds
from tests.reference import conformal


def compare(maxima: list[int]) -> None:
    found = thresholds(np.array(maxima, np.int64))
    for level in range(len(BUDGETS)):
        assert (int(found.thresholds[level]), found.certified[level]) == conformal.threshold(maxima, level)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(-100_000, 10_000_000), max_size=250))
def test_small_sets(maxima: list[int]) -> None:
    compare(maxima)


@pytest.mark.parametrize("m", [98, 99, 100, 998, 999, 1999, 9_998, 9_999, 10_000, 99_998, 99_999])
def test_edges_of_what_m_clients_can_show(m: int) -> None:
    """beta needs 1 / beta - 1 clients; floats must not move that edge."""
    maxima = np.random.default_rng(m).integers(0, 50_000, m).tolist()
    compare(maxima)
    certified = thresholds(np.array(maxima)).certified
    assert list(certified[1:]) == [m + 1 >= 1 / budget - 1e-6 for budget in (1e-2, 1e-3, 1e-4, 1e-5)]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 30), min_size=100, max_size=220))
def test_at_most_the_budget_of_the_clients_alarm_when_left_out_in_turn(maxima: list[int]) -> None:
    """A theorem, with ties and all: exact, no luck needed."""
    assert conformal.alarms(maxima, 1) <= len(maxima) / 100


def test_the_budget_is_used_not_only_kept() -> None:
    """Without ties, exactly one in a hundred: a threshold that nobody reaches would keep every promise."""
    assert conformal.alarms(list(range(200)), 1) == 2
