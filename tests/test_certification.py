"""One certification over all spaces: whose day counts, which class is held to what, who looks like a copy; shifts."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from detector.calibrate import shift
from detector.calibrate.certificate_text import page, warnings
from detector.calibrate.certify import DEFAULT_THRESHOLDS, Certification, certify, class_parts, last_days, over_all
from detector.calibrate.fit import UNREACHABLE, DailyMaxima
from models.artefacts.certificate import ClassPart
from models.rows import I64
from tests.test_certificate import blank_certificate


def days(
    client: Sequence[int] | I64,
    statistic: Sequence[int] | I64,
    client_class: Sequence[int] | I64 | int = 0,
    day: Sequence[int] | I64 | int = 1,
    **others: Sequence[float] | I64,
) -> DailyMaxima:
    n = len(client)
    columns = {"variants": np.zeros(n), "rows": np.ones(n), "novelty": np.full(n, np.nan), "behaviour": np.arange(n)}
    columns["drift"] = np.full(n, -1)
    columns |= {name: np.array(column) for name, column in others.items()}
    return DailyMaxima(
        np.array(client, np.uint64), np.broadcast_to(np.array(client_class, np.int64), n).copy(),
        np.broadcast_to(np.array(day, np.int64), n).copy(), np.array(statistic, np.int64),
        columns["variants"].astype(np.int64), columns["rows"].astype(np.int64), columns["novelty"].astype(float),
        columns["behaviour"].astype(np.uint64), columns["drift"].astype(np.int64),
    )  # fmt: skip


def crowd(n: int, seed: int, client_class: int = 0, first: int = 0) -> DailyMaxima:
    """n ordinary clients: exponential statistics, geometric variants."""
    rng = np.random.default_rng(seed)
    return days(
        np.arange(first, first + n), (2_000 * rng.exponential(size=n)).astype(np.int64), client_class,
        variants=rng.geometric(0.4, n) - 1, rows=rng.geometric(0.1, n), behaviour=rng.integers(0, 2**40, n),
        novelty=rng.normal(1, 0.2, n),
    )  # fmt: skip


def together(*parts: DailyMaxima) -> DailyMaxima:
    return DailyMaxima._make(np.concatenate(column) for column in zip(*parts, strict=True))


def parts_of(found: Certification, *, cold: bool = False) -> tuple[ClassPart, ...]:
    return class_parts(found, [1_000, 0, 0], cold=cold)


def test_the_budget_is_over_all_spaces() -> None:
    """A client counts with its largest statistic of the day, wherever it rose; rows add up."""
    one = days([1, 2], [100, 500], rows=[3, 1], novelty=[np.nan, 2.0], behaviour=[1, 2])
    other = days([1, 3], [900, 50], rows=[4, 1], novelty=[1.5, np.nan], behaviour=[5, 6])
    whole = over_all([one, other])
    assert whole.client.tolist() == [1, 2, 3]
    assert whole.statistic.tolist() == [900, 500, 50]
    assert whole.rows.tolist() == [7, 1, 1]
    assert whole.novelty[:2].tolist() == [1.5, 2.0] and np.isnan(whole.novelty[2])


def test_two_spaces_raise_thresholds_above_those_of_either() -> None:
    a, b = crowd(2_000, 1), crowd(2_000, 2)
    both, alone = certify([a, b]), (certify([a]), certify([b]))
    assert all((both.thresholds[0, 1:3] >= one.thresholds[0, 1:3]).all() for one in alone)
    assert both.thresholds[0, 1] > max(one.thresholds[0, 1] for one in alone)
    assert both.clients.tolist() == [2_000, 0, 0]


def test_the_last_day_counts_in_whichever_space_it_was() -> None:
    one, other = days([7, 7], [100, 200], day=[1, 3]), days([7, 7], [900, 800], day=[1, 2])
    last = last_days(over_all([one, other]))
    assert (last.day.tolist(), last.statistic.tolist()) == ([3], [200])


def test_a_client_of_two_classes_is_held_to_the_stricter() -> None:
    assert over_all([days([1], [5], client_class=2), days([1], [9], client_class=0)]).client_class.tolist() == [0]


def test_each_class_has_its_own_thresholds_and_small_ones_borrow() -> None:
    brokers, systems = crowd(400, 3, 1, 10_000), crowd(20, 4, 2, 20_000)
    brokers = brokers._replace(statistic=brokers.statistic * 10)
    found = certify([together(crowd(3_000, 2), brokers, systems)])
    assert found.certified.tolist() == [
        [False, True, True, False, False], [False, True, False, False, False], [False] * 5
    ]  # fmt: skip
    assert found.thresholds[1, 1] > 5 * found.thresholds[0, 1]
    assert found.borrowed == (False, False, True)
    assert (found.thresholds[2] >= found.thresholds[0]).all()
    assert found.promised[2, 1] == 1 / 21
    assert (found.thresholds[:, 0] == UNREACHABLE).all()


def test_conditional_levels_lie_above_what_is_certified_and_are_never_out_of_reach() -> None:
    for m in (0, 1, 50, 99, 500, 5_000):
        found = certify([crowd(m, m)])
        ladder = found.thresholds[0, 1:]
        assert (np.diff(ladder) >= 0).all()
        assert ladder.max() < 200_000
        if m:
            conditional = ladder[~found.certified[0, 1:]]
            assert (conditional > found.days.statistic.max()).all()


def test_without_clients_or_without_trust_nothing_is_promised() -> None:
    nobody, cold = certify([crowd(0, 1)]), certify([crowd(5_000, 1)], cold=True)
    assert nobody.thresholds[0].tolist() == list(DEFAULT_THRESHOLDS)
    assert (cold.thresholds <= np.array(DEFAULT_THRESHOLDS)).all()
    for found in (nobody, cold):
        assert not found.certified.any()
        assert (found.promised == 1.0).all()
    assert all(level.confident == 1.0 for level in parts_of(cold, cold=True)[0].levels)
    assert "nothing is promised" in " ".join(warnings(parts_of(cold, cold=True), cold=True))


def test_copies_of_one_machine_are_noticed() -> None:
    people = crowd(1_000, 5)
    assert parts_of(certify([people]))[0].alike == 0
    copies = days(np.arange(5_000, 5_040), [7] * 40, variants=[9] * 40, behaviour=[1] * 40)
    parts = parts_of(certify([together(people, copies)]))
    assert parts[0].alike == 40
    assert "40 certifying clients behaved exactly like another one" in " ".join(warnings(parts, cold=False))


@pytest.mark.parametrize(("intruders", "said"), [(0, ""), (1, "one client alone raises"), (4, "5 clients together")])
def test_clients_far_above_all_others_are_pointed_out(intruders: int, said: str) -> None:
    attack = days(np.arange(9_000, 9_000 + intruders), [400_000] * intruders)
    parts = parts_of(certify([together(crowd(1_200, 6), attack)]))
    told = " ".join(warnings(parts, cold=False))
    assert said in told if said else told == ""


class TestShift:
    then = parts_of(certify([crowd(6_000, 7)]))

    def shifted(self, now: DailyMaxima) -> list[str]:
        return [one.measure for one in shift.compare(self.then, now) if one.shifted]

    def test_other_clients_of_the_same_kind_are_no_shift(self) -> None:
        """40 times: at 1 % each, Holm over the table."""
        assert sum(bool(self.shifted(crowd(4_000, seed))) for seed in range(100, 140)) <= 3

    def test_twice_as_many_that_try_again_are(self) -> None:
        now = crowd(4_000, 9)
        again = np.random.default_rng(1).random(4_000) < 0.1
        moved = self.shifted(now._replace(variants=now.variants + 3 * again))
        assert any(measure.startswith("variants") for measure in moved)
        assert not any(measure.startswith("rows") for measure in moved)

    def test_so_are_unheard_of_inputs_and_long_days(self) -> None:
        now = crowd(4_000, 10)
        assert any("novelty" in measure for measure in self.shifted(now._replace(novelty=now.novelty + 0.1)))
        assert any("rows" in measure for measure in self.shifted(now._replace(rows=now.rows * 2)))

    def test_another_mix_of_classes_is(self) -> None:
        assert self.shifted(together(crowd(3_600, 11), crowd(400, 12, 1, 10_000))) == ["share of all clients"]

    def test_what_was_never_known_is_not_compared(self) -> None:
        now = crowd(4_000, 13)
        assert not self.shifted(now._replace(novelty=np.full(4_000, np.nan)))


def test_the_page_says_everything_to_people() -> None:
    parts = parts_of(certify([crowd(2_000, 14)]))
    text = page(msgspec.structs.replace(blank_certificate(), classes=parts, warnings=("look here",)))
    for expected in (
        "| watch |",
        "~",
        "1 in 1,000",
        "1 in 2,001",
        "set by them",
        "**Warning:** look here.",
        "## Grounds",
    ):
        assert expected in text, expected
    assert "No certifying clients" in text
