"""The benchmark's definitions on logs with known answers; its methods beside slow twins and libraries."""

import math

import numpy as np
import pytest
from river.drift import PageHinkley
from scipy.stats import betabinom, shapiro

from bench.detection import datasets, probewatch_method, run
from bench.detection.attackers import Budget
from bench.detection.evaluate import (
    BUDGETS,
    EVERYBODY,
    NEVER,
    daily_maxima,
    delays,
    detection,
    false_alarms,
    holm,
    interval,
    limit,
    limits,
    rate,
)
from bench.detection.log import BEGIN_MS, DAY_MS, Log
from bench.detection.methods import REGISTRY, counts, neighbours, windows
from bench.detection.methods.base import View, fit_units, reference, rolling_sum, view
from models.artefacts import certificate
from models.rows import F64
from streams.progress import Silent

NOBODY = np.zeros(0)


def _log(lengths: list[int], seed: int = 0, fields: int = 6, days: int = 2) -> Log:
    """Clients with so many requests of random inputs, a third of them edits of the one before, some exact repeats."""
    rng = np.random.default_rng(seed)
    starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    client = np.repeat(np.arange(len(lengths)), lengths)
    inputs = np.rint(rng.normal(0, 30, (len(client), fields)))
    inputs[:, 2] = rng.integers(0, 3, len(client))
    for i in range(1, len(client)):
        if client[i] == client[i - 1] and rng.random() < 0.4:
            inputs[i] = inputs[i - 1]
            inputs[i, 0] += rng.integers(0, 3)
    time_ms = np.concatenate([np.sort(rng.integers(0, days * DAY_MS, n)) for n in lengths]) + BEGIN_MS
    client_class = (np.arange(len(lengths)) % 3 == 2).astype(np.uint8)
    return Log(
        client, starts, client_class, client_class, ("person", "firm"), time_ms, inputs, rng.random(len(client)),
        rng.integers(0, 2, len(client)), np.zeros(len(client), bool),
    )  # fmt: skip


@pytest.fixture(scope="module")
def seen() -> View:
    log = _log([1, 2, 40, 7, 130, 3])
    categorical = np.arange(6) == 2
    return view(log, fit_units(log, categorical, np.ones(log.rows, bool)))


def test_a_limit_is_the_products_threshold() -> None:
    rng = np.random.default_rng(1)
    for m in (50, 99, 998, 999, 1500):
        maxima = rng.integers(-5_000, 20_000, m)
        product = certificate.thresholds(maxima)
        for level, budget in enumerate(BUDGETS, 1):
            above, rank = limit(maxima.astype(float), budget)
            assert bool(rank) == product.certified[level]
            if rank:
                assert above + 1 == product.thresholds[level]
            else:
                assert above == maxima.max()


def test_a_class_too_small_for_any_promise_is_held_like_consumers_at_least() -> None:
    maxima, client_class = np.arange(210.0), np.r_[np.zeros(200), np.ones(10)].astype(np.uint8)
    found = limits(np.r_[maxima[10:], np.arange(10.0)], client_class)
    assert found.rank[1].tolist() == [0, 0, 0] and not found.rank[0, 1]
    assert found.above[1].tolist() == found.above[0].tolist()
    assert found.clients.tolist() == [200, 10, 0, 210]


def test_a_client_day_is_the_last_one() -> None:
    log = _log([4, 2])._replace(
        time_ms=BEGIN_MS + np.array([0, 1, DAY_MS, DAY_MS + 1, 5, DAY_MS - 1]), client=np.array([0, 0, 0, 0, 1, 1])
    )
    assert daily_maxima(log, np.array([9.0, 8.0, 2.0, 3.0, 7.0, 1.0])).tolist() == [3.0, 7.0]


def test_delays_count_own_requests_over_all_accounts_in_order_of_time() -> None:
    """Two attackers with two accounts each; dummies are not counted, and an alarm on a dummy counts what was sent."""
    log = _log([3, 2, 2, 2])._replace(
        time_ms=BEGIN_MS + np.array([1, 4, 5, 2, 3, 1, 2, 3, 4]),
        probe=np.array([True, True, False, True, False, True, True, True, True]),
    )
    alarmed = np.zeros(9, bool)
    alarmed[[2, 4]] = True  # the first attacker's rows at times 5 and 3
    assert delays(log, alarmed, 2).tolist() == [2, NEVER]
    assert delays(log, alarmed, 1).tolist() == [2, 1, NEVER, NEVER]


def test_detection_counts_those_never_found() -> None:
    found = detection(np.array([3, 5, NEVER, 9]), np.array([4, 0, 8, 9]))
    assert (found.attackers, found.found, found.median, found.p95) == (4, 3, 5.0, math.inf)
    assert (found.won, found.reached) == (1, 3)  # the third; the fourth was alarmed at the very request


def test_intervals_and_tests_of_rates() -> None:
    low, high = interval(3, 100)
    assert low == pytest.approx(0.006230, abs=1e-6) and high == pytest.approx(0.085176, abs=1e-6)  # by R, binom.test
    kept = rate(np.arange(1000) < 12, 990, 999)
    assert kept.p == pytest.approx(sum(betabinom.pmf(k, 1000, 10, 990) for k in range(12, 1001)))
    assert math.isnan(rate(np.ones(5, bool), 0, 100).p)
    assert holm([0.01, math.nan, 0.04, 0.02]) == [True, False, True, True]
    assert holm([0.02, 0.04, 0.03]) == [False, False, False]


def test_false_alarms_keep_the_budget_of_an_exchangeable_population_and_break_for_another() -> None:
    rng = np.random.default_rng(3)
    found = limits(rng.exponential(size=3_000), np.zeros(3_000, np.uint8))
    log = _log([1] * 3_000)._replace(client_class=np.zeros(3_000, np.uint8))
    for maxima, broken in ((rng.exponential(size=3_000), False), (1.5 * rng.exponential(size=3_000), True)):
        lines = [line for line in false_alarms(log, maxima, found) if line[:2] == ("class", "consumer")]
        assert len(lines) == len(BUDGETS)
        assert (min(line[3].p for line in lines if not math.isnan(line[3].p)) < 0.01) == broken


def test_counting(seen: View) -> None:
    log, day = seen.log, seen.log.day
    assert len(set(seen.exact)) == len(set(map(tuple, log.inputs.tolist()))) < log.rows
    for method, twin in (
        (counts.rows_of_day, lambda before, i: sum(day[j] == day[i] for j in before)),
        (counts.rows_of_minute, lambda before, i: sum(log.time_ms[i] - log.time_ms[j] < 60_000 for j in before)),
        (
            counts.unique_of_day,
            lambda before, i: len({seen.exact[j] for j in before if day[j] == day[i]}),
        ),
    ):
        expected = [twin(range(log.starts[log.client[i]], i + 1), i) for i in range(log.rows)]
        assert method(seen, seen).tolist() == expected


def _earlier(seen: View, i: int) -> list[int]:
    return [j for j in range(seen.log.starts[seen.log.client[i]], i) if not seen.repeat[j]]


@pytest.fixture(scope="module")
def apart(seen: View) -> F64:
    """(n, n) distances; a category that differs counts 1."""
    gap = (seen.x[:, None] - seen.x[None]).astype(float)
    other = seen.units.categorical
    found: F64 = np.sqrt((gap[..., ~other] ** 2).sum(axis=2) + (gap[..., other] != 0).sum(axis=2))
    return found


def _carried(seen: View, judge: object, first: float) -> F64:
    """What `judge` says of distinct rows; repeats keep what was said before."""
    said = np.full(seen.log.rows, first)
    for i in range(seen.log.rows):
        begins = i == seen.log.starts[seen.log.client[i]]
        said[i] = judge(i) if not seen.repeat[i] else (first if begins else said[i - 1])  # type: ignore[operator]
    return said


def test_neighbours(seen: View, apart: F64) -> None:
    def mean_of(k: int, i: int) -> float:
        near = sorted(apart[i, j] for j in _earlier(seen, i))[:k]
        return -sum(near) / k if len(near) == k else -math.inf

    for k in (5, 10):
        np.testing.assert_allclose(
            neighbours.knn(k, seen, seen), _carried(seen, lambda i, k=k: mean_of(k, i), -math.inf)
        )
    near = _carried(seen, lambda i: sum(apart[i, j] <= 0.5 for j in _earlier(seen, i)), 0)
    assert neighbours.knn_count(0.5, seen, seen).tolist() == near.tolist() and near.max() > 2


def test_blacklight(seen: View) -> None:
    other = seen.units.categorical
    bins = np.where(other, seen.x, np.floor(seen.x / np.float32(neighbours.QUANTUM)))

    def windows_of(i: int) -> list[tuple[float, ...]]:
        return sorted(tuple(bins[i, s : s + 3]) for s in range(4))

    def shared(i: int, j: int) -> float:
        left = windows_of(j)
        return sum(left.remove(w) is None for w in windows_of(i) if w in left) / 4

    said = _carried(seen, lambda i: max((shared(i, j) for j in _earlier(seen, i)), default=0.0), 0.0)
    assert neighbours.blacklight(3, False, seen, seen).tolist() == said.tolist()
    assert 0 < said.max() <= 1
    assert neighbours.blacklight(3, True, seen, seen)[seen.repeat].max() == 1.0  # where the statistic saturates


def test_prada(seen: View, apart: F64) -> None:
    log = seen.log
    sets: dict[int, tuple[list[int], list[float], float]] = {}
    expected, minimal = np.zeros(log.rows), []
    for i in range(log.rows):
        if i == log.starts[log.client[i]]:
            sets, minimal = {0: ([], [], 0.0), 1: ([], [], 0.0)}, []
        else:
            expected[i] = expected[i - 1]
        if seen.repeat[i]:
            continue
        members, gaps, threshold = sets[int(log.label[i])]
        least = min((apart[i, j] for j in members), default=0.0)
        if members:
            minimal.append(least)
        if not members or least > threshold:
            members.append(i)
            gaps.append(least)
            threshold = max(threshold, float(np.mean(gaps) - np.std(gaps)))
            sets[int(log.label[i])] = members, gaps, threshold
        if len(minimal) > 100:
            part = np.array(minimal)
            part = part[abs(part - part.mean()) <= 3 * part.std()]
            expected[i] = 1 - shapiro(part).statistic
    assert expected.max() > 0
    np.testing.assert_allclose(neighbours.prada(seen, seen), expected, atol=2e-4)


def test_page_hinkley_alarms_where_river_does(seen: View) -> None:
    stream = np.log(np.maximum(neighbours.nearest(seen), windows.FLOOR))
    said, rows = windows.page_hinkley(seen, seen), slice(seen.log.starts[4], seen.log.starts[5])
    for threshold in (5.0, 10.0):
        detector = PageHinkley(min_instances=windows.PH_ROWS_MIN, threshold=threshold, mode="down")
        first = -1
        for i in range(rows.start, rows.stop):
            if not np.isnan(stream[i]):
                detector.update(stream[i])
                if detector.drift_detected:
                    first = i
                    break
        above = np.flatnonzero(said[rows] > threshold)
        assert first == (rows.start + above[0] if len(above) else -1)
        assert first >= 0


def test_mmd_is_near_nothing_for_ordinary_rows_and_large_for_one_region() -> None:
    log = _log([1] * 400 + [100, 100])
    inputs = np.random.default_rng(5).normal(size=log.inputs.shape)
    inputs[log.starts[401] :] = 2 + 0.1 * inputs[log.starts[401] :]
    log = log._replace(inputs=inputs)
    seen = view(log, fit_units(log, np.zeros(6, bool), log.client < 400))
    ordinary = reference(log, seen.units, np.arange(402) < 400)
    said = windows.mmd(100, seen, ordinary)
    assert abs(said[log.starts[401] - 1]) < 2 < 20 < said[-1]
    assert (said[:400] == 0).all()


def test_rolling_sums_pass_over_repeats(seen: View) -> None:
    score = np.random.default_rng(2).random(seen.log.rows)
    said = rolling_sum(score, seen, 3)
    for i in range(seen.log.rows):
        mine = [j for j in range(seen.log.starts[seen.log.client[i]], i + 1) if not seen.repeat[j]][-3:]
        assert said[i] == pytest.approx(sum(score[j] for j in mine))


def test_every_method_says_something_of_every_row_and_names_its_source(seen: View) -> None:
    assert len({method.name for method in REGISTRY}) == len(REGISTRY) == 21
    for method in REGISTRY:
        assert method.source and method.parameters
        if not method.slow:
            said = method.score(seen, seen)
            assert said.shape == (seen.log.rows,) and not np.isnan(said).any(), method.name
        assert (method.state_bytes(np.array([1, 50]), 6) > 0).all()


@pytest.mark.parametrize("name", [method.name for method in REGISTRY if method.slow])
def test_slow_methods_find_what_is_gross(name: str) -> None:
    """200 ordinary rows of a client, then as many of one small region far outside. Clients share inputs."""
    rng = np.random.default_rng(4)
    inputs = np.r_[rng.normal(size=(1_100, 6)), 6 + 0.01 * rng.normal(size=(200, 6))]
    inputs[100:900:7] = inputs[0]
    log = _log([1] * 900 + [400])._replace(inputs=inputs)
    seen = view(log, fit_units(log, np.zeros(6, bool), log.client < 900))
    method = next(method for method in REGISTRY if method.name == name)
    said = method.score(seen, reference(log, seen.units, np.arange(901) < 900))
    assert said[1_105:].max() > said[900:1_099].max()


@pytest.fixture(scope="module")
def small() -> run.World:
    """The benchmark in small: 2,600 people of a history, 2,000 others, three attackers."""
    scale = run.QUICK._replace(
        history=(2_600, 0, 0), judged=(2_000, 0, 0), budget=Budget(3, 60), variants=((True, "plain"),)
    )
    return run.build(run.Settings("lending", scale, ("sweep-1",), ("unique inputs",)), Silent())


def test_promises_hold_for_people_who_calibrated_nothing_and_attackers_are_found(small: run.World) -> None:
    fitted = probewatch_method.fit(small.history, small.dataset, Silent())
    history = probewatch_method.sketch(fitted, small.history, probewatch_method.HISTORY)
    judged = probewatch_method.sketch(fitted, small.judged, probewatch_method.JUDGED)
    reference_ = fitted.model.reference
    maxima = daily_maxima(small.history, probewatch_method.statistic(fitted, reference_, history))[small.certifying]
    found = probewatch_method.product_limits(fitted, maxima, small.history.client_class[small.certifying])
    assert found.rank[0].astype(bool).tolist() == [True, True, False]
    score = probewatch_method.statistic(fitted, reference_, judged)
    lines = list(false_alarms(small.judged, daily_maxima(small.judged, score), found))
    promised = [line for line in lines if line[:2] == ("class", "consumer")]
    assert sum(line[3].alarmed for line in promised) > 0  # or the test could not fail
    assert not any(holm([line[3].p for line in promised], 0.001))
    (scenario,) = small.scenarios
    at = probewatch_method.sketch(fitted, scenario.log, "a")
    alarmed = (
        probewatch_method.statistic(fitted, reference_, at)
        > (found.above[0, 1] + probewatch_method.handicap(at))[scenario.log.client]
    )
    assert (delays(scenario.log, alarmed, 1) <= 60).all()


def test_a_comparator_is_judged_on_the_same_clients(small: run.World) -> None:
    said = run.measure(small, next(method for method in REGISTRY if method.name == "unique inputs"))
    consumers = [line for line in said["false_alarms"] if line["scope"] == "consumer" and line["thresholds"] == "class"]
    assert [line["client_days"] for line in consumers] == [2_000] * 3
    assert all(line["alarmed"] <= 3 * line["budget"] * line["client_days"] + 3 for line in consumers)
    assert [line["attackers"] for line in said["detection"]] == [3] * 6
    assert {line["certified"] for line in said["limits"] if line["budget"] == 1e-3 and line["class"] == "consumer"} == {
        True
    }


def test_the_engines_own_thresholds_are_the_benchmarks_limits() -> None:
    """Through records, calibrate and trace: certified thresholds equal the order statistics taken here."""
    dataset = datasets.load("lending")
    rng = np.random.default_rng(0)
    log = _log(rng.integers(1, 9, 1_000).tolist())
    rows = rng.integers(0, len(dataset.inputs), log.rows)
    log = log._replace(inputs=dataset.inputs[rows], client_class=np.zeros(1_000, np.uint8))
    fitted = probewatch_method.fit(log, dataset, Silent())
    at = probewatch_method.sketch(fitted, log, probewatch_method.HISTORY)
    chosen = probewatch_method.is_certifying(log)
    assert 500 < chosen.sum() < 750
    maxima = daily_maxima(log, probewatch_method.statistic(fitted, fitted.model.reference, at))[chosen]
    mine, product = (
        limits(maxima, log.client_class[chosen]),
        probewatch_method.product_limits(fitted, maxima, log.client_class[chosen]),
    )
    assert product.rank[0].tolist() == mine.rank[0].tolist() and mine.rank[0, 0]
    assert product.above[0, 0] == pytest.approx(mine.above[0, 0] + 0.0005)
    assert product.above[EVERYBODY].tolist() == mine.above[EVERYBODY].tolist()
    cost = probewatch_method.cost(fitted, at)
    assert cost.bytes_per_client > 100 and cost.fold_us > 0
