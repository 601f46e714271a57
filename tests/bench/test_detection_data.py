"""The benchmark's material: what its clients and attackers send is what the page says it is."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.detection import adaptive, arrivals, attackers, benign, datasets, disguise, victim
from bench.detection.attackers.probing import CLOSE, Prober
from bench.detection.clients import People
from bench.detection.datasets import Dataset
from bench.detection.log import BEGIN_MS, DAY_MS, Log, concatenate, records, take_clients
from bench.detection.victim import Model
from models.encoders.table import TabularEncoder, fit_table
from models.rows import CLASSES, F64
from streams.adapters.native import decode_one
from streams.config.config import Config
from streams.sketch.identity import Identity
from streams.sketch.sketcher import Sketcher
from tests import sketching

DAYS = 3
RARE_KINDS = {"retry storm": 5, "what-if": 20, "shopper": 20, "health check": 4, "batch": 3, "load test": 3}
SIZES = {
    "ordinary": 300,
    "re-quoter": 60,
    "returning": 40,
    "asks for others": 8,
    "broker": 6,
    "templated broker": 4,
    "re-scoring": 4,
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return datasets.load("lending")


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> Model:
    return victim.train(dataset)


@pytest.fixture(scope="module")
def log(dataset: Dataset, model: Model) -> Log:
    return benign.population(dataset, model, SIZES | RARE_KINDS, DAYS, np.random.default_rng(5))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(attackers, "CACHE", tmp_path)
    return tmp_path


def off_grid(dataset: Dataset, inputs: F64) -> int:
    """Numbers that are neither on their field's grid nor a real person's, and categories that nobody has."""
    count = 0
    for j, field in enumerate(dataset.fields):
        column = inputs[:, j][np.isfinite(inputs[:, j])]
        strange = column if field.categories else column[dataset.rounded_field(j, column) != column]
        count += int((~np.isin(strange, dataset.inputs[:, j])).sum())
    return count


def test_the_lending_table_is_real_and_has_the_grids_it_shows(dataset: Dataset) -> None:
    assert dataset.inputs.shape == (10_000, 24) and set(dataset.target.tolist()) == {0, 1}
    steps = {field.name: (field.step, field.round_step) for field in dataset.fields}
    assert steps["loan_amount"][0] == 25 and steps["annual_income"] == (1, 5_000)
    assert steps["debt_to_income"][0] == 0.01 and steps["account_never_delinq_percent"][0] == 0.1
    moved = dataset.rounded(dataset.inputs) != dataset.inputs
    assert (moved & np.isfinite(dataset.inputs)).mean(axis=0).max() < 0.01
    assert off_grid(dataset, dataset.inputs + 0.333) > 100_000


def test_an_optional_table_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(datasets.FOLDER_VARIABLE, raising=False)
    with pytest.raises(datasets.MissingDataError, match=datasets.FOLDER_VARIABLE):
        datasets.load("taiwan")


def test_the_held_out_table_loads_and_works_and_nothing_else_is_known_of_it(cache: Path) -> None:
    held_out = datasets.load(datasets.HELD_OUT)
    assert len(held_out.fields) == 13 and off_grid(held_out, held_out.inputs) == 0
    judged = victim.train(held_out)
    clients = benign.population(held_out, judged, {kind: 3 for kind in benign.KINDS}, 2, np.random.default_rng(1))
    assert off_grid(held_out, clients.inputs) == 0 and len(list(records(clients, held_out, "h-"))) == clients.rows
    streams = attackers.run("sweep-grid", held_out, judged, np.random.default_rng(1), attackers.Budget(1, 30))
    assert len(streams.inputs[0]) == 30


def test_the_victim_is_trained_and_answers_as_scikit_learn_does(dataset: Dataset, model: Model) -> None:
    assert 0.75 < model.auc < 0.95
    expected = victim.fit(dataset, model.trained).predict_proba(dataset.inputs[:2_000])
    np.testing.assert_allclose(model.predict_proba(dataset.inputs[:2_000]), expected, atol=1e-12)
    assert np.isnan(dataset.inputs[:2_000]).any(), "blanks go the way the trees learnt"


def test_all_kinds_and_classes_are_there_on_several_days(log: Log) -> None:
    assert {log.kinds[code] for code in np.unique(log.kind)} == set(benign.KINDS)
    for client in range(log.clients):
        assert CLASSES[log.client_class[client]] == benign.KINDS[log.kinds[log.kind[client]]].client_class
    assert set(np.unique(log.day)) == set(range(DAYS))
    days_active = np.array([len(set(log.day[a:b])) for a, b in itertools.pairwise(log.starts)])
    assert set(days_active) == set(range(1, DAYS + 1))
    assert log.client_days == days_active.sum() and not log.probe.any()


def test_a_log_is_sorted_by_client_then_time(log: Log) -> None:
    assert (log.client == np.repeat(np.arange(log.clients), np.diff(log.starts))).all()
    assert (np.diff(log.starts) > 0).all(), "every client sent something"
    same = np.diff(log.client) == 0
    assert (np.diff(log.time_ms)[same] >= 0).all()


def test_benign_rows_stay_on_the_grids_and_have_the_models_answers(dataset: Dataset, model: Model, log: Log) -> None:
    assert off_grid(dataset, log.inputs) == 0
    np.testing.assert_array_equal(log.score, model.score(log.inputs))
    np.testing.assert_array_equal(log.label, log.score >= 0.5)


def rows_of(log: Log, kind: str) -> list[F64]:
    """Rows of each client-day of a kind."""
    found = []
    for client in np.flatnonzero(log.kind == log.kinds.index(kind)):
        rows = slice(log.starts[client], log.starts[client + 1])
        found += [log.inputs[rows][log.day[rows] == day] for day in np.unique(log.day[rows])]
    return found


def changed_fields(rows: F64) -> list[int]:
    """Fields in which each row differs from the one before."""
    return [int((~((a == b) | (np.isnan(a) & np.isnan(b)))).sum()) for a, b in itertools.pairwise(rows)]


KIND_RULES: dict[str, Callable[[F64], bool]] = {
    "ordinary": lambda rows: len(rows) <= 3,
    "re-quoter": lambda rows: 3 <= len(rows) <= 100,
    "shopper": lambda rows: len(rows) <= 25 and max(changed_fields(rows), default=0) <= 2,
    "what-if": lambda rows: 5 <= len(rows) <= 15 and len(rows) - 1 == len(changed_fields(rows)),
    "retry storm": lambda rows: len(rows) >= 15 and not any(changed_fields(rows)),
    "health check": lambda rows: len(rows) >= 48 and not any(changed_fields(rows)),
    "re-scoring": lambda rows: len(rows) >= 40,
    "broker": lambda rows: len(rows) >= 20 and np.mean(np.array(changed_fields(rows)) > 5) > 0.4,
    "load test": lambda rows: len(rows) >= 100 and max(changed_fields(rows)) <= 2,
}


@pytest.mark.parametrize("kind", KIND_RULES)
def test_a_kind_does_what_its_name_says(log: Log, kind: str) -> None:
    days = rows_of(log, kind)
    assert days and all(KIND_RULES[kind](rows) for rows in days)


def test_batch_rows_are_training_rows_and_rescoring_moves_most_figures(
    dataset: Dataset, model: Model, log: Log
) -> None:
    trained = {row.tobytes() for row in dataset.inputs[model.trained]}
    assert all(row.tobytes() in trained for rows in rows_of(log, "batch") for row in rows)
    people = People(dataset)
    before = people.draw(np.random.default_rng(1), 500)
    after = people.next_month(np.random.default_rng(2), before)
    numbers = dataset.attackable
    moved = (after != before)[:, numbers] & np.isfinite(before[:, numbers])
    assert np.median(moved.sum(axis=1)) >= 8 and off_grid(dataset, after) == 0


def test_more_clients_than_rows_are_new_people_on_the_grids(dataset: Dataset) -> None:
    drawn = People(dataset).draw(np.random.default_rng(3), len(dataset.inputs) + 2_000)
    distinct = {row.tobytes() for row in drawn}
    assert len(distinct) > len(drawn) - 100 and off_grid(dataset, drawn) == 0


def test_sizes_add_up_and_leave_no_kind_out() -> None:
    made = benign.sizes(1_000, 50, 20)
    assert set(made) == set(benign.KINDS) and min(made.values()) >= 1
    assert [sum(n for k, n in made.items() if benign.KINDS[k].client_class == c) for c in CLASSES] == [1_000, 50, 20]


def test_arrivals_stay_inside_their_day_and_are_bursty() -> None:
    counts, days = np.full(300, 60), np.arange(300) % 4
    times = arrivals.times(np.random.default_rng(1), counts, days, days == 3).reshape(300, 60)
    assert ((times - BEGIN_MS) // DAY_MS == days[:, None]).all() and (np.diff(times) >= 0).all()
    gaps = np.diff(times[days < 3], axis=1)
    assert np.median(gaps.std(axis=1) / gaps.mean(axis=1)) > 1.0, "burstier than Poisson"
    assert np.diff(times[days == 3], axis=1).std(axis=1).max() < 1_000, "machines keep their pace"


def test_records_come_back_through_sketch(dataset: Dataset, log: Log) -> None:
    part = take_clients(log, np.arange(40))
    lines = list(records(part, dataset, "c-"))
    order = np.argsort(part.time_ms, kind="stable")
    requests = [decode_one(line) for line in lines]
    assert [int(request.request_id) for request in requests] == order.tolist()
    encoder = TabularEncoder(fit_table([request.features or {} for request in requests]), sketching.SEED)
    models = sketching.Models({dataset.name: sketching.Model(f"{dataset.name}@{encoder.id}", encoder)})
    sketcher = Sketcher(models, Identity(sketching.SEED, "k1", sketching.SEED), Config())
    raws = [sketching.raw(place, line) for place, line in enumerate(lines)]
    result = sketcher.frames("gateway-logs", 0, "0", raws, 1)
    assert not result.rejects and not result.unjudged
    rows = [frame.rows for frame in result.frames]
    assert np.concatenate([r.time_ms for r in rows]).tolist() == part.time_ms[order].tolist()
    assert np.concatenate([r.client_class for r in rows]).tolist() == part.client_class[part.client[order]].tolist()
    np.testing.assert_allclose(np.concatenate([r.score for r in rows]), part.score[order], atol=1e-6)
    assert [request.client_id for request in requests] == [f"c-{n}" for n in part.client[order]]
    named = requests[0].features or {}
    assert set(named) == set(dataset.names) and named["homeownership"] in ("MORTGAGE", "OWN", "RENT")
    assert b"client_class" not in next(records(part, dataset, "c-", classes=False))


def test_logs_join_and_part(log: Log) -> None:
    first, second = take_clients(log, np.arange(0, 10)), take_clients(log, np.arange(10, 30))
    joined = concatenate((first, second))
    expected = take_clients(log, np.arange(30))
    for name, column in joined._asdict().items():
        np.testing.assert_array_equal(column, getattr(expected, name), err_msg=name)


@pytest.mark.parametrize("name", attackers.FAMILIES)
def test_every_family_really_asks_and_changes_only_what_it_may(
    dataset: Dataset, model: Model, cache: Path, name: str
) -> None:
    """The held-out family too: that it runs is all that may be known of it before the end."""
    streams = attackers.run(name, dataset, model, np.random.default_rng(4), attackers.Budget(1, 60))
    [asked] = streams.inputs
    assert streams.family == name and 3 <= len(asked) <= 60 and -1 <= streams.success_at[0] < len(asked)
    if name in ("hop-skip-jump", "boundary", "simba", "square", "zoo", "inversion", "sweep-1", "sign-opt"):
        others = np.setdiff1d(np.arange(len(dataset.fields)), dataset.attackable)
        assert len(np.unique(asked[:, others], axis=0)) == 1, "categories and fixed facts stay"
        assert len(np.unique(asked, axis=0)) >= 2
        inside = (asked >= dataset.low - 1e-9) & (asked <= dataset.low + dataset.span + 1e-9)
        assert (inside | np.isnan(asked))[:, dataset.attackable].all(), "plausible numbers"


def test_hop_skip_jump_runs_and_its_success_is_what_it_says(dataset: Dataset, model: Model, cache: Path) -> None:
    streams = attackers.run("hop-skip-jump", dataset, model, np.random.default_rng(2), attackers.Budget(3, 400))
    assert (streams.success_at >= 0).any()
    for asked, at in zip(streams.inputs, streams.success_at.tolist(), strict=True):
        prober = Prober(dataset, model, asked[0], 1, False)
        accepted = model.accept(asked) >= 0.5
        near = np.linalg.norm(prober.scaled(asked) - prober.scaled(asked[:1]), axis=1) <= CLOSE
        assert not accepted[0], "it starts from a declined applicant"
        assert np.flatnonzero(accepted & near)[:1].tolist() == [at][: at >= 0]
        assert off_grid(dataset, asked) > len(asked), "raw queries are real numbers"


@pytest.mark.parametrize("name", ["extraction-synthetic", "membership", "sweep-noisy", "zoo"])
def test_rounded_attackers_stay_on_the_grids(dataset: Dataset, model: Model, cache: Path, name: str) -> None:
    raw, rounded = (
        attackers.run(name, dataset, model, np.random.default_rng(6), attackers.Budget(1, 90, grid)).inputs[0]
        for grid in (False, True)
    )
    assert off_grid(dataset, raw) > 20 and off_grid(dataset, rounded) == 0


def test_cached_streams_are_the_same(dataset: Dataset, model: Model, cache: Path) -> None:
    budget = attackers.Budget(2, 80, rounded=True)
    streams = attackers.run("hop-skip-jump", dataset, model, np.random.default_rng(2), budget)
    assert all(off_grid(dataset, asked) == 0 for asked in streams.inputs)
    [file] = cache.iterdir()
    again = attackers.run("hop-skip-jump", dataset, model, np.random.default_rng(2), budget)
    assert [file] == list(cache.iterdir()) and again.seconds == streams.seconds
    for one, other in zip(streams.inputs, again.inputs, strict=True):
        np.testing.assert_array_equal(one, other)
    attackers.run("hop-skip-jump", dataset, model, np.random.default_rng(3), budget)
    assert len(list(cache.iterdir())) == 2, "another seed is another attack"


@pytest.mark.parametrize("how", [disguise.Disguise(10), disguise.Disguise(1, 20), disguise.Disguise(0, 1, 3, 2)])
def test_a_disguise_keeps_the_probes_in_order(
    dataset: Dataset, model: Model, cache: Path, how: disguise.Disguise
) -> None:
    streams = attackers.run("sweep-1", dataset, model, np.random.default_rng(1), attackers.Budget(3, 60))
    log = disguise.disguise(streams, dataset, model, np.random.default_rng(9), how)
    assert log.clients == 3 * how.accounts and log.rows == 3 * 60 * (1 + how.dummies)
    assert set(log.day) == set(range(how.first_day, how.first_day + how.days))
    found = disguise.success_rows(log, streams, how.accounts)
    for i, asked in enumerate(streams.inputs):
        rows = np.arange(log.starts[i * how.accounts], log.starts[(i + 1) * how.accounts])
        rows = rows[np.argsort(log.time_ms[rows], kind="stable")]
        probes = rows[log.probe[rows]]
        same_time = np.diff(log.time_ms[probes]) == 0
        assert how.accounts > 1 or not same_time.any() or len(probes) == len(asked)
        assert {row.tobytes() for row in log.inputs[probes]} == {row.tobytes() for row in asked}
        np.testing.assert_array_equal(log.inputs[found[i]], asked[streams.success_at[i]])
    assert off_grid(dataset, log.inputs[~log.probe]) == 0
    np.testing.assert_array_equal(log.score, model.score(log.inputs))


def test_the_adaptive_attacker_gives_up_where_everything_is_refused(dataset: Dataset, model: Model) -> None:
    outcome = adaptive.attack(dataset, model, lambda *_: 3, np.random.default_rng(1), oracle=True)
    assert outcome == (adaptive.PATIENCE, -1, 0, 0, np.inf) and not outcome.succeeded_unseen


@pytest.mark.parametrize("oracle", [True, False])
def test_the_adaptive_attacker_succeeds_where_nothing_is_refused(dataset: Dataset, model: Model, oracle: bool) -> None:
    asked: list[F64] = []

    def judge(row: F64, score: float, label: int) -> int:
        assert label == (score >= 0.5)
        asked.append(row)
        return 0

    runs = [
        adaptive.attack(dataset, model, judge, np.random.default_rng(seed), oracle=oracle, rows_max=300)
        for seed in range(3)
    ]
    assert sum(run.succeeded_unseen for run in runs) >= 2 and sum(run.queries for run in runs) == len(asked)
    assert off_grid(dataset, np.array(asked)) == 0
    assert all(run.first_alert == run.first_refusal == -1 for run in runs)


def test_an_oracle_makes_the_attacker_draw_wider(dataset: Dataset, model: Model) -> None:
    """A defence that refuses whatever is close to an earlier row is met by wider proposals."""

    def nearest(defends: bool) -> float:
        rows: list[F64] = []
        gaps: list[float] = []

        def judge(row: F64, score: float, label: int) -> int:
            point = np.nan_to_num((row - dataset.low) / dataset.span)[dataset.attackable]
            gap = min((float(np.linalg.norm(point - old)) for old in rows), default=np.inf)
            rows.append(point)
            gaps.append(gap)
            return 2 if defends and gap < 0.15 else 0

        adaptive.attack(dataset, model, judge, np.random.default_rng(7), oracle=True, rows_max=200)
        return float(np.median(gaps))

    assert nearest(True) > 1.2 * nearest(False)
