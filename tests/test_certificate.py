"""What a certificate says of a calibration is true of it: by simulation, and against slow twins."""

import math
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.artefacts.certificate import (
    BUDGETS,
    Certificate,
    Grounds,
    Removed,
    chance_of_more,
    holm,
    moved_threshold,
    rank_of,
    rate_interval,
    thresholds,
)
from tests.reference import conformal


@pytest.mark.parametrize("level", [1, 2])
def test_realised_rate_is_the_budget_on_average(level: int) -> None:
    """400 calibrations on heavy-tailed statistics: the mean exceedance of new clients is the budget, within 4 sigma."""
    rng = np.random.default_rng(5)
    m, calibrations = 2_999, 400
    rates = []
    for _ in range(calibrations):
        found = thresholds((1000 * rng.standard_t(3, m)).astype(np.int64))
        assert found.certified[level]
        rates.append((1000 * rng.standard_t(3, 20_000) >= found.thresholds[level]).mean())
    budget = BUDGETS[level]
    sigma = np.std(rates) / np.sqrt(calibrations)
    assert abs(np.mean(rates) - budget) < 4 * sigma + 1e-9
    assert np.mean(rates) < 1.3 * budget


@pytest.mark.parametrize(("m", "level"), [(1_200, 1), (4_000, 2), (4_000, 4)])
def test_the_interval_holds_the_rate_of_each_calibration_as_often_as_it_says(m: int, level: int) -> None:
    """2,000 calibrations on exponential statistics, whose true rate beyond a threshold is known exactly.

    Level 4 is conditional: its interval is that of the order statistic below it, so only the upper ends hold.
    """
    rng = np.random.default_rng(level)
    scale, calibrations = 1e6, 2_000
    inside, below = 0, 0
    for _ in range(calibrations):
        found = thresholds((scale * rng.exponential(size=m)).astype(np.int64))
        low, high, most = rate_interval(m, found.ranks[level])
        rate = math.exp(-int(found.thresholds[level]) / scale)
        inside += (low <= rate or not found.certified[level]) and rate <= high
        below += rate <= most
    allowed = 4 * math.sqrt(0.05 * 0.95 / calibrations)
    assert inside / calibrations > 0.95 - allowed
    assert below / calibrations > 0.95 - allowed
    if found.certified[level]:
        assert inside / calibrations < 0.95 + allowed
        assert below / calibrations < 0.95 + allowed


def test_nothing_is_known_of_a_class_without_clients() -> None:
    assert rate_interval(0, 0) == (0.0, 1.0, 1.0)


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


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(1, 150), st.integers(1, 120), st.data())
def test_the_chance_of_alarms_is_that_of_the_slow_twin(m: int, n: int, data: st.DataObject) -> None:
    rank, alarms = data.draw(st.integers(1, m)), data.draw(st.integers(0, n))
    exact = conformal.chance_of_more(alarms, n, m, rank)
    assert chance_of_more(alarms, n, m, rank) == pytest.approx(float(exact), rel=1e-6, abs=1e-10)


def test_correct_certificates_are_seldom_called_broken() -> None:
    """1,000 calibrations, each held against other clients: at 5 % no more than 5 % are, although rates vary."""
    rng = np.random.default_rng(8)
    m, n, level = 1_500, 3_000, 1
    rank = rank_of(BUDGETS[level], m)
    called = 0
    for _ in range(1_000):
        threshold = thresholds((1e6 * rng.exponential(size=m)).astype(np.int64)).thresholds[level]
        alarms = int((1e6 * rng.exponential(size=n) >= threshold).sum())
        called += chance_of_more(alarms, n, m, rank) < 0.05
    assert called < 50 + 4 * math.sqrt(50 * 0.95)
    assert called > 15, "a test that never fires tests nothing"


def test_broken_promises_are_noticed() -> None:
    assert chance_of_more(90, 3_000, 9_999, rank_of(1e-2, 9_999)) < 1e-6
    assert chance_of_more(30, 3_000, 9_999, rank_of(1e-2, 9_999)) > 0.4


def test_holm_adjusts_for_the_number_of_lines() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([]) == []


class TestSensitivity:
    maxima = np.arange(1, 1_200) * 1_000

    def test_without_the_highest_the_threshold_is_that_of_the_others(self) -> None:
        for level in range(1, 5):
            for top in (1, 5, 10):
                assert moved_threshold(self.maxima, level, -top) == thresholds(self.maxima[:-top]).thresholds[level]

    def test_as_many_more_on_top_raise_it_by_no_more_than_their_number_of_ranks(self) -> None:
        now = thresholds(self.maxima).thresholds[1]
        for more in (1, 5, 10):
            moved = moved_threshold(self.maxima, 1, more)
            assert moved is not None
            assert now <= moved <= now + 1_000 * more

    def test_where_they_outnumber_the_budget_they_choose(self) -> None:
        assert moved_threshold(self.maxima, 2, 1) is None
        assert moved_threshold(self.maxima, 1, 20) is None
        assert moved_threshold(self.maxima[:5], 1, -5) is None


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.integers(0, 10**6), min_size=200, max_size=2_500), st.integers(1, 12))
def test_attackers_among_certifying_clients_buy_ranks_until_they_are_as_many_as_the_budget_allows(
    ordinary: list[int], attackers: int
) -> None:
    """k of them, however patient: fewer than budget times clients never make a threshold theirs; it lies at most k
    ranks higher among the ordinary ones. The promise only gets safer: nobody is alarmed more often for it."""
    m = len(ordinary) + attackers
    poisoned = thresholds(np.array([*ordinary, *[10**9] * attackers]))
    clean = np.sort(np.array(ordinary))
    for level, budget in enumerate(BUDGETS[1:3], 1):
        rank = rank_of(budget, m)
        if rank <= len(ordinary):
            assert poisoned.thresholds[level] == clean[rank - 1] + 1
            assert rank - min(rank_of(budget, len(ordinary)), len(ordinary)) <= attackers
        elif rank <= m:
            assert poisoned.thresholds[level] > 10**9
    assert all(a <= b for a, b in pairwise(poisoned.thresholds[1:].tolist()))


def blank_certificate() -> Certificate:
    grounds = Grounds(
        history_sha256="0" * 64, config_hash="c" * 16, code_sha256="1" * 64, engine_version="0.1.0", first="", last="",
        certified_from="", certified_to="", records=0, rows=0, declared_classes=0, set_aside=0,
    )  # fmt: skip
    return Certificate(("loan@0",), (), {}, Removed(0, 0, {}), grounds, False, (), "nothing is promised").identified()


def test_a_certificate_reads_back_and_knows_its_own_id() -> None:
    certificate = blank_certificate()
    assert Certificate.from_json(certificate.to_json()) == certificate
    assert len(certificate.id) == 16
    other = msgspec.structs.replace(certificate, cold=True)
    with pytest.raises(ValueError, match="does not match its contents"):
        Certificate.from_json(other.to_json())
