"""Bets on clients as a whole: what one row can say, what history must have seen, and whom it does not learn from."""

from functools import cache
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector import evidence
from detector.calibrate import screening
from detector.calibrate.client_days import first_rows, select
from detector.calibrate.fit import ROWS_PER_CLIENT_MAX, fit_reference, is_fitting
from detector.detectors.base import ClientBet
from detector.evidence import CLIENT_BETS, FAMILY_PROCESSES, JOINT, PROCESSES
from models.artefacts.reference import Reference
from models.client_table import ClientTable, no_tally
from models.encoders.table import TabularEncoder, fit_table
from models.kernels.layout import BUCKETS, CLASS_COUNT, CLIENT_LEVELS, CLIENT_PROCESSES, VERDICT
from models.rows import F64, I32, I64, U64, Rows, blank_rows

SEED = bytes(range(32))
DAY_MS = 86_400_000
SHAPE = (CLASS_COUNT, len(CLIENT_BETS), BUCKETS, CLIENT_LEVELS)
COUNTS = st.integers(0, 2**32).map(lambda seed: drawn(np.random.default_rng(seed)))
EXPONENTS = st.tuples(*[st.floats(0.05, 1.0)] * CLASS_COUNT).map(np.array)
NAMES = [process.name for process in PROCESSES]
every = pytest.mark.parametrize("bet", CLIENT_BETS, ids=lambda bet: bet.process)


def drawn(rng: np.random.Generator) -> I64:
    """Counts of all magnitudes, a third of them 0."""
    counts: I64 = np.exp(rng.uniform(0, 12, SHAPE)).astype(np.int64) * (rng.random(SHAPE) < 2 / 3)
    return counts


def levels(bet: ClientBet) -> int:
    return len(bet.attack[0])


def most_nats(bet: ClientBet) -> float:
    """What a row can say at most: the attack's likeliest outcome, where no ordinary client ever had it.

    Raising rare outcomes to the floor adds up to the floor of each to the shares before they are normalised.
    """
    group = bet.given or levels(bet)
    most = max(max(weights) / sum(weights) for weights in grouped(bet, group))
    return log((0.98 * most + 0.02 / group) / bet.null_min * (1 + group * bet.null_min))


def grouped(bet: ClientBet, group: int) -> list[F64]:
    return [part for row in bet.attack for part in np.array(row).reshape(-1, group)]


@settings(max_examples=40, deadline=None)
@given(COUNTS, EXPONENTS)
def test_one_row_says_no_more_than_its_bound(counts: I64, exponents: F64) -> None:
    """Whatever history counted: off-grid values at most 3.9 nats, timing 2.3; nothing about levels that are none."""
    ratios = evidence.client_ratios(counts, exponents)
    for place, bet in enumerate(CLIENT_BETS):
        assert ratios[:, place].max() <= 1000 * most_nats(bet) + 1, bet.process
        assert ratios[:, place].min() >= 1000 * log(0.02 / (bet.given or levels(bet))) - 1, bet.process
        assert not ratios[:, place, :, levels(bet) :].any(), bet.process


@pytest.mark.parametrize(
    ("process", "nats"),
    [("offgrid", 3.9), ("membership", 3.9), ("explain", 3.9), ("timing", 2.3), ("margin_seek", 6.2), ("coverage", 4.6)],
)
def test_the_bounds_in_nats(process: str, nats: float) -> None:
    assert most_nats(CLIENT_BETS[CLIENT_PROCESSES.index(process)]) == pytest.approx(nats, abs=0.1)


@settings(max_examples=40, deadline=None)
@given(COUNTS)
def test_ordinary_clients_do_not_grow_rich(counts: I64) -> None:
    """What was counted is no evidence on average: E[q / p] of a well-known bucket is at most 1."""
    ratios = evidence.client_ratios(counts + 20_000, np.ones(CLASS_COUNT))
    for place, bet in enumerate(CLIENT_BETS):
        if bet.process == "novelty_robust":
            continue  # against another null than the counts: below
        group = bet.given or levels(bet)
        seen = (counts[:, place, :, : levels(bet)] + 20_000).reshape(CLASS_COUNT, BUCKETS, -1, group)
        shares = seen / seen.sum(axis=-1, keepdims=True)
        gain = (shares * np.exp(ratios[:, place, :, : levels(bet)].reshape(shares.shape) / 1000)).sum(axis=-1)
        assert gain.max() <= 1.02, bet.process


@every
def test_what_nobody_has_seen_is_worth_nothing_either_way(bet: ClientBet) -> None:
    """Without a history the odds are even: an outcome gains no more than its share under attack against an even one."""
    ratios = evidence.client_ratios(np.zeros(SHAPE, np.int64), np.ones(CLASS_COUNT))
    place = CLIENT_PROCESSES.index(bet.process)
    if bet.process == "novelty_robust":
        assert ratios[0, place, 0, CLIENT_LEVELS - 1] > 0  # its null comes from the exponent alone
        return
    group = bet.given or levels(bet)
    attack = np.array(bet.attack[0]).reshape(-1, group)
    odds = np.log((0.98 * attack / attack.sum(axis=1, keepdims=True) + 0.02 / group) * group).reshape(-1)
    assert np.abs(ratios[0, place, 0, : levels(bet)] - 1000 * odds).max() <= 1


def test_a_gap_like_the_one_before_counts_given_its_length_only() -> None:
    """A class that is fast but uneven is not suspected for its speed."""
    counts = np.zeros(SHAPE, np.int64)
    timing = CLIENT_PROCESSES.index("timing")
    counts[0, timing, :, :] = np.array([950, 50] * 8)
    slow = evidence.client_ratios(counts, np.ones(CLASS_COUNT))
    counts[0, timing, :, :2] *= 1_000
    fast = evidence.client_ratios(counts, np.ones(CLASS_COUNT))
    assert np.abs(slow[0, timing] - fast[0, timing])[:, 2:].max() <= 40
    assert fast[0, timing, :, 1::2].min() > 1_500 and fast[0, timing, :, 0::2].max() < 0


@cache
def encoder() -> TabularEncoder:
    return TabularEncoder(fit_table(_inputs(np.random.default_rng(1), 2_000)), SEED)


def _inputs(rng: np.random.Generator, n: int) -> list[dict[str, float | str]]:
    columns = [rng.integers(0, 10_000, n).tolist() for _ in range(5)]
    return [dict(zip("abcde", row, strict=True)) for row in zip(*columns, strict=True)]


def keys(fitting: bool, count: int) -> U64:
    """Clients of one side of the split."""
    many = (np.arange(1, 20 * count + 100, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    return many[is_fitting(many) == fitting][:count]


def rows(owner: U64, rng: np.random.Generator, **columns: object) -> Rows:
    """One unlike input a row, a minute apart; without answers, and whatever `columns` say otherwise."""
    n = len(owner)
    encoded = encoder().encode(_inputs(rng, n))
    made = blank_rows(
        n, 0, 0,
        offset=np.arange(n), client=owner, time_ms=np.full(n, 20_000 * DAY_MS), exact=encoded.exact,
        values=encoded.values, fields=encoded.fields, surprisal=encoded.surprisal, offgrid=encoded.offgrid,
    )  # fmt: skip
    return made._replace(**columns)  # type: ignore[arg-type]


def fitted(history: Rows) -> Reference:
    return fit_reference(encoder(), 0.5, [history])


def evidence_after(reference: Reference, history: Rows) -> I32:
    """(n, processes) after each row."""
    nulls = evidence.nulls(reference, encoder().reach, encoder().agreement_min, 0.5)
    table = ClientTable(encoder().dim, 5, FAMILY_PROCESSES, JOINT, 1, 1 << 40)
    traced = np.zeros((history.count, len(PROCESSES)), np.int32)
    tally = no_tally(5, len(PROCESSES))._replace(evidence=traced, statistic=np.zeros(history.count, np.int32))
    table.fold(nulls, table.batch(history), np.zeros(1, np.int64), 0, tally, np.zeros(VERDICT, np.int64))
    return traced


def _oddness(rng: np.random.Generator, n: int, exponent: float) -> F64:
    """Novelty whose p-values, among ordinary rows, follow p ** exponent."""
    return (-np.log(rng.random(n)) / exponent).astype(np.float32)


def _with_odd_clients(rng: np.random.Generator) -> Rows:
    """1,200 clients, of whom six send nothing but odd inputs."""
    owner = np.repeat(keys(True, 1_200), 6)
    novelty = _oddness(rng, len(owner), 1.0)
    novelty[: 6 * 6] = _oddness(rng, 6 * 6, 0.2)
    return rows(owner, rng, novelty=novelty)


def test_clients_whose_inputs_are_all_odd_are_left_alone_by_the_robust_bet() -> None:
    """Some ordinary clients are odd in every row; only what is odder than they are speaks against a client."""
    rng = np.random.default_rng(5)
    reference = fitted(_with_odd_clients(rng))
    plain, robust = NAMES.index("novelty"), NAMES.index("novelty_robust")
    assert reference.tail_scale[0, [plain, robust]].min() > 0
    newcomer = np.full(60, keys(False, 1)[0])
    odd = evidence_after(reference, rows(newcomer, rng, novelty=_oddness(rng, 60, 0.2)))
    assert odd[-1, plain] > 40_000 and odd[:, robust].max() < 5_000
    foreign = evidence_after(reference, rows(newcomer, rng, novelty=_oddness(rng, 60, 0.03)))
    assert foreign[-1, robust] > 20_000


def test_outcomes_that_history_never_had_are_not_bet_on() -> None:
    """No novelty, cells, margins or times in the log: bets on them would judge how complete the log is."""
    rng = np.random.default_rng(6)
    reference = fitted(rows(np.repeat(keys(True, 300), 4), rng))
    off = {name for place, name in enumerate(NAMES) if reference.tail_scale[0, place] == 0}
    assert {"margin_seek", "novelty", "novelty_robust", "coverage", "timing", "tokens"} == off
    known = {"offgrid", "membership", "explain", "unique", "rate", "family_size"}
    assert known.isdisjoint(off)


def test_no_client_teaches_more_than_its_first_rows() -> None:
    """The cap counts over batches and keeps the order within them."""
    rng = np.random.default_rng(7)
    busy, others = np.full(ROWS_PER_CLIENT_MAX + 500, keys(True, 1)[0]), np.repeat(keys(True, 200)[1:], 4)
    batches = [rows(busy[:200], rng), rows(np.concatenate([others, busy[200:]]), rng)]
    kept = first_rows(batches, ROWS_PER_CLIENT_MAX)
    assert [batch.count for batch in kept] == [200, len(others) + ROWS_PER_CLIENT_MAX - 200]
    assert sum(int((batch.client == busy[0]).sum()) for batch in kept) == ROWS_PER_CLIENT_MAX
    assert first_rows([], 10) == []


def _with_attackers(attackers: U64, each: int = 60) -> Rows:
    """400 ordinary fitting clients of two rows; attackers send many, all off the grid."""
    owner = np.concatenate([np.repeat(keys(True, 400)[: 400 - len(attackers)], 2), np.repeat(attackers, each)])
    odd = np.isin(owner, attackers)
    return rows(owner, np.random.default_rng(8), offgrid=np.where(odd, 1, 0).astype(np.uint32))


def test_suspicious_clients_teach_nothing() -> None:
    """They are named exactly; without them it does not matter how much they did. None of those that certify is."""
    attackers = keys(True, 400)[-3:]
    learned = []
    for each in (60, 200):
        history = _with_attackers(attackers, each)
        named = screening.suspicious(encoder(), 0.5, [history])
        assert set(named) == set(attackers)
        learned.append(fitted(select(history, ~np.isin(history.client, named))).arrays())
    assert all(np.array_equal(few, learned[1][name]) for name, few in learned[0].items())
    assert len(screening.suspicious(encoder(), 0.5, [_with_attackers(keys(False, 3))])) == 0
