"""The breaker: far more decisions than promised are not enforced, but for the clients with the most evidence."""

import json
from dataclasses import replace
from functools import cache

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detector import engine
from detector.breaker.fuse import ENTRIES_MAX, LIMIT_MAX, Decided, Fuse, Scale, rank
from detector.breaker.held import PAST_ROWS
from detector.erasure import erased
from detector.frame import BreakerFrame, DecidedFrame
from detector.settings import BreakerSettings
from examples.alert_schema import validate_alert
from models.pseudonym import client_of
from probewatch_door.decisions import Decisions
from probewatch_door.record import Throttle
from tests import breaker_cases, engine_cases
from tests.breaker_cases import BLOCKS, LIMIT, PARTITIONS, Installation, accounts, name_of, scattered, units
from tests.engine_cases import Unit, said
from tests.scenarios import run, world

few = settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
HOUR_S, DAY_S = 3_600.0, 86_400.0
START_MS = 1_700_000_000_000


# A mass false alarm


@cache
def mass() -> tuple[Unit, ...]:
    """Forty clients who all reach `block` within a quarter of an hour, and people who do nothing."""
    return units(accounts("release", 40) + world.benign(40, seed=12, days=1))


def whole(rows: tuple[Unit, ...], made_with: engine.EngineSettings | None = None) -> Installation:
    live = Installation(made_with or breaker_cases.settings())
    for start in range(0, len(rows), 20):
        live.arrive(rows[start : start + 20])
        live.settle()
    return live


def test_a_mass_false_alarm_falls_back_to_shadow_but_for_a_few_and_is_told_once() -> None:
    live = whole(mass())
    decided = {event.client_key for event in live.said if event.kind == "throttle" and event.level >= 3}
    assert len(decided) == 40
    assert 1 <= len(live.enforced()) <= LIMIT
    (told,) = live.alerts()
    assert told["finding_info"]["title"] == "The certificate no longer holds: model credit"
    facts = told["unmapped"]
    assert facts["rung"] in ("soft", "hard", "block") and facts["seen"] == LIMIT + 1 and facts["promised_clients"] < 1
    assert told["severity"] == "High" and not [r for r in told["resources"] if r["role_id"] == 2]
    assert all(validate_alert(event.value) == [] for event in live.said if event.kind == "alert")


def test_doors_let_all_but_the_few_through() -> None:
    live = whole(mass())
    last_ms = max(event.time_ms for event in live.said)
    decisions = Decisions(clock=lambda: last_ms / 1000)
    for event in live.said:
        if event.kind == "throttle":
            decisions.apply(event.key, event.value)
    decisions.heard()
    held = [n for n in range(40) if decisions.strictest([name_of(f"release-{n}")], "credit") is not None]
    assert 1 <= len(held) <= LIMIT


def test_without_a_breaker_all_are_held_back() -> None:
    """The guard of the guard."""
    live = whole(mass(), breaker_cases.settings(enabled=False))
    assert len(live.enforced()) == 40 and not live.alerts() and not live.opened


def test_in_shadow_mode_it_does_nothing() -> None:
    live = whole(mass(), breaker_cases.settings(mode="shadow"))
    assert not live.opened and not live.alerts() and all(len(state.breakers.held) == 0 for state in live.states)
    assert all(isinstance(frame, engine.RowFrame) for log in live.logs for frame in log)


def test_decisions_in_force_when_it_opens_fall_back() -> None:
    live = whole(mass())
    records = [msgspec.json.decode(e.value, type=Throttle) for e in live.said if e.kind == "throttle"]
    restated = [r for r in records if r.mode == "shadow" and any(_same_row(r, other) for other in records)]
    assert restated, "a decision that was enforced is said again, in shadow"
    for record in restated:
        (before,) = [other for other in records if _same_row(record, other)]
        assert record.revision > before.revision and record.finding_uid == before.finding_uid
        assert (record.level, record.reason, record.action) == (before.level, before.reason, before.action)


def _same_row(record: Throttle, other: Throttle) -> bool:
    same = (record.client, record.trigger) == (other.client, other.trigger)
    return same and other.mode == "enforce" and record.decision_id != other.decision_id


def test_what_stays_in_shadow_is_weighed_again_within_the_hour() -> None:
    live = whole(mass())
    shadow = [msgspec.json.decode(e.value, type=Throttle) for e in live.said if e.kind == "throttle" and e.level == 4]
    spans = {(r.expires_at - r.issued_at).total_seconds() for r in shadow if r.mode == "shadow"}
    assert spans and max(spans) <= HOUR_S


# An attack on the breaker


@cache
def blown() -> tuple[Unit, ...]:
    """One attacker, and then sixty free accounts that do just what it takes to be decided on."""
    walker = [line | {"client_id": "walker"} for line in run.records("boundary", "attack")]
    first = min(line["ts"] for line in walker)
    shift = min(line["ts"] for line in accounts("free", 1)) - first - HOUR_S / 2
    real = [line | {"ts": line["ts"] + shift} for line in walker]
    return units(real + accounts("free", 60, rows=5, every_s=15.0))


def test_free_accounts_do_not_free_the_attacker_with_the_most_evidence() -> None:
    live = whole(blown())
    assert live.opened, "they do blow the fuse"
    assert name_of("walker") in live.enforced()
    assert len(live.enforced()) <= LIMIT + 1


def test_free_accounts_open_nothing_for_clients_with_a_past() -> None:
    """An account that worked for days before is counted among its like."""
    free = accounts("free", 60, rows=5, every_s=15.0)
    first = min(line["ts"] for line in free)
    old = run.records("sweep", "attack")[:5]
    past = [line | {"client_id": "old"} for line in world.benign(PAST_ROWS + 4, seed=31, days=1)]
    past = [line | {"ts": first - 3 * DAY_S + number} for number, line in enumerate(past)]
    begun = min(line["ts"] for line in old)
    attack = [line | {"client_id": "old", "ts": line["ts"] - begun + first + HOUR_S / 4} for line in old]
    live = whole(units(free + past + attack))
    floors = live.opened[-1].floors
    assert floors and not any(known for _, known, _ in floors)
    assert name_of("old") in live.enforced()


# Reset


def test_a_person_resets_it() -> None:
    rows = units(accounts("release", 40) + accounts("second", 12, start_s=2 * HOUR_S))
    end_ms = int(rows[0].frame.rows.time_ms[0]) + 1000 * HOUR_S
    first = [unit for unit in rows if unit.frame.rows.time_ms[unit.row] < end_ms]
    live = whole(tuple(first))
    before = live.enforced()
    live.reset("other")
    assert live.enforced() == before and live.opened[-1].floors, "another model's"
    live.reset("credit")
    assert live.opened[-1].floors == () and not live.opened[-1].opens
    assert len(live.enforced()) > len(before), "what has not run out is enforced again"
    assert len(live.alerts()) == 1
    live.arrive(rows[len(first) :])
    live.settle()
    assert len(live.alerts()) == 2, "it counts anew, and opens again"
    assert live.replayed() == said(live.said)


# The same bytes


@few
@given(st.integers(0, 2**32))
def test_any_order_restarts_and_redelivery_and_a_replay_of_the_log_give_the_same_bytes(seed: int) -> None:
    live = scattered(mass(), seed)
    assert live.opened and 1 <= len(live.enforced()) <= 2 * LIMIT
    assert live.replayed() == said(live.said)
    for partition, log in enumerate(live.logs):
        state = engine.open_partition(live.settings, partition)
        for frame in log:
            engine.step(state, frame)
        for block in range(BLOCKS):
            assert engine.dump_block(state, block) == engine.dump_block(live.states[partition], block)


def test_frames_that_come_again_change_nothing() -> None:
    live = whole(mass())
    for partition, log in enumerate(live.logs):
        state = live.states[partition]
        before = [engine.dump_block(state, block) for block in range(BLOCKS)]
        again = [event for frame in log for event in engine.step(state, frame)]
        assert not again and not state.breakers.take()
        copies = [replace(frame, offset=len(log) + place) for place, frame in enumerate(log)]
        written = [frame for frame in copies if not isinstance(frame, engine.RowFrame)]
        assert not [event for frame in written for event in engine.step(state, frame)], "written again after a crash"
        changed = [engine.dump_block(state, block) for block in range(BLOCKS)]
        assert [value[engine.BLOCK_HEAD_BYTES :] for value in changed] == [
            value[engine.BLOCK_HEAD_BYTES :] for value in before
        ]


def test_new_artefacts_close_it() -> None:
    rows = units(accounts("release", 40) + accounts("third", 8, start_s=2 * HOUR_S))
    end_ms = int(rows[0].frame.rows.time_ms[0]) + 1000 * HOUR_S
    live = whole(tuple(unit for unit in rows if unit.frame.rows.time_ms[unit.row] < end_ms))
    other = replace(run.artefacts(), hash="0" * 16)
    state = engine.open_partition(engine.EngineSettings(live.settings.config, other), 1)
    for block in range(BLOCKS):
        engine.load_block(state, engine.dump_block(live.states[1], block))
    state.breakers.take()
    fresh = [
        unit for unit in rows if unit.frame.rows.time_ms[unit.row] >= end_ms and breaker_cases.partition_of(unit) == 1
    ]
    events = [
        event
        for frame in engine_cases.cut(fresh)
        for event in engine.step(state, replace(frame, partition=1, offset=frame.offset + 10_000))
    ]
    assert {json.loads(event.value)["mode"] for event in events if event.kind == "throttle"} == {"enforce"}


def test_an_erased_client_is_in_no_block() -> None:
    live = whole(mass())
    client = client_of(name_of("release-7"))
    for partition in range(PARTITIONS):
        state = live.states[partition]
        for block in range(BLOCKS):
            value = engine.dump_block(state, block)
            without = erased(value, {client})
            body = engine.body_of(without or value)
            assert all(one[0] != client for one in body.breaker.held)
            assert all(client not in fuse.decided for fuse in body.breaker.fuses.values())
    assert any(client in fuse.decided for fuse in live.states[0].breakers.fuses.values())


# The fuse


def client_no(number: int) -> int:
    return number << 48


def decided(number: int, excess: int = 5_000, *, at_s: float = 0.0, **changes: object) -> DecidedFrame:
    client = client_no(number)
    frame = DecidedFrame(
        0, number, "credit", "credit@0", "a" * 16, client, "k1-" + "a" * 26, 0, 3, excess, False, (2, 1),
        START_MS + int(1000 * at_s),
    )  # fmt: skip
    return replace(frame, **changes)  # type: ignore[arg-type]


def scale(clients: int = 4, factor: float = 2.0, share: float = 0.001, blocks: int = 1_000) -> Scale:
    return Scale(np.full((3, 5), share), BreakerSettings(clients=clients, factor=factor), (2, 3, 4), blocks)


def opened(frames: list[DecidedFrame], one: Scale, fuse: Fuse | None = None) -> list[BreakerFrame]:
    fuse = fuse or Fuse("a" * 16)
    return [told for frame in frames if (told := fuse.add(frame, one)) is not None]


def test_the_limit_is_so_many_times_the_promised_share_of_the_clients_about() -> None:
    """Two others without a past in one of 1,000 blocks: 2,001 clients, 2 of them promised, 4 allowed by the factor."""
    four = [decided(n) for n in range(1, 5)]
    assert not opened(four, scale(clients=1))
    (told,) = opened([*four, decided(5)], scale(clients=1))
    assert (told.seen, told.promised, told.clients, told.level) == (5, 2.001, 2_001, 3)
    assert not opened([*four, decided(5)], scale(clients=5)), "and so many at least"
    assert not opened([decided(n) for n in range(1, 40)], scale(factor=100.0))


def test_the_limit_goes_by_the_loosest_budget_where_nothing_is_promised() -> None:
    assert opened([decided(n) for n in range(1, 60)], scale(share=1.0))[0].seen == 41


@pytest.mark.parametrize("known", [False, True])
def test_a_higher_level_counts_for_the_lower_and_groups_are_apart(known: bool) -> None:
    mixed = [decided(n, level=2 + n % 3, known=known) for n in range(1, 6)]
    (told,) = opened(mixed, scale())
    assert told.floors == ((2, known, rank(5_000, client_no(1)) + 1),)
    apart = [decided(n, known=n % 2 == 0) for n in range(1, 9)]
    assert not opened(apart, scale())


def test_of_equal_evidence_as_many_stay_as_may() -> None:
    """Clones of one attacker: neither all of them nor none."""
    (told,) = opened([decided(n) for n in range(1, 6)], scale())
    floor = told.floors[-1][2]
    assert sum(rank(5_000, client_no(n)) >= floor for n in range(1, 6)) == 4


def test_the_most_evident_stay() -> None:
    (told,) = opened([decided(n, 1_000 * n) for n in range(1, 6)], scale())
    (floor,) = {floor for _, _, floor in told.floors}
    assert [n for n in range(1, 6) if rank(1_000 * n, client_no(n)) >= floor] == [2, 3, 4, 5]


def test_only_what_falls_within_an_hour_counts_and_no_wrong_clock_moves_it() -> None:
    assert not opened([decided(n, at_s=1_000.0 * n) for n in range(1, 30)], scale())
    odd = decided(99, at_s=9 * 365 * DAY_S)
    assert not opened([*[decided(n) for n in range(1, 5)], odd], scale())
    assert opened([*[decided(n) for n in range(1, 5)], odd, decided(5)], scale())


def test_a_decision_delivered_again_or_told_with_more_evidence_is_one_client() -> None:
    fuse = Fuse("a" * 16)
    four = [decided(n) for n in range(1, 5)]
    assert not opened(four * 3, scale(), fuse)
    assert not opened([replace(four[0], excess_milli=9_000, again=True)], scale(), fuse)
    assert fuse.decided[client_no(1)].rank == rank(9_000, client_no(1)) and len(fuse.decided) == 4
    assert not opened([replace(decided(77), again=True)], scale(), fuse) and len(fuse.decided) == 4


def test_floors_rise_with_what_comes_and_never_sink() -> None:
    fuse = Fuse("a" * 16)
    told = opened([decided(n, 1_000 + n) for n in range(1, 400)], scale(), fuse)
    floors = [frame.floors[-1][2] for frame in told]
    assert floors == sorted(floors) and floors[-1] == rank(1_395, client_no(395)) + 1
    assert [frame.opens for frame in told] == [True] + [False] * (len(told) - 1)
    assert len({(frame.since_ms, frame.seen, frame.promised) for frame in told}) == 1


def test_a_flood_of_decisions_is_bounded_in_memory_and_in_frames() -> None:
    fuse, large = Fuse("a" * 16), scale(factor=1_000.0, share=1.0, blocks=10**9)
    told = opened([decided(n, n % 7_919) for n in range(1, ENTRIES_MAX + 500)], large, fuse)
    assert len(fuse.decided) <= ENTRIES_MAX and len(told) <= 40
    assert fuse.count(3, False, large, START_MS).limit == LIMIT_MAX
    assert len(msgspec.msgpack.encode(fuse)) < 2**20


def test_a_fuse_is_what_it_was_when_it_is_read_again() -> None:
    fuse = Fuse("a" * 16)
    opened([decided(n, 1_000 + n) for n in range(1, 9)], scale(), fuse)
    value = msgspec.msgpack.encode(fuse)
    again = msgspec.msgpack.decode(value, type=Fuse)
    assert msgspec.msgpack.encode(again) == value and list(again.decided) == list(fuse.decided)
    assert isinstance(again.decided[client_no(1)], Decided) and again.opened == fuse.opened
