"""Decisions: graded, expiring, on the client's own clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.policy import DAY_MS, DOUBLINGS_MAX, ClientStanding, decide, keyed_delay_ms, lifted
from detector.settings import Policy

NEVER = ClientStanding(0, 0, 0, 0, 0)
NOON_MS = 1_700_000_000_000
MINUTE_MS = 60_000


def test_first_decision_lasts_as_configured_and_shadow_is_the_default() -> None:
    decision, standing = decide(Policy(), NEVER, 2, "sweep", NOON_MS, 7)
    assert decision.mode == "shadow"
    assert (decision.action, decision.requests_per_minute) == ("cap", 10)
    assert decision.expires_ms - NOON_MS == 15 * MINUTE_MS
    assert standing == ClientStanding(2, 1, 0, decision.expires_ms, NOON_MS)


def test_decided_again_within_a_day_lasts_twice_as_long_and_later_does_not() -> None:
    policy = Policy(mode="enforce")
    _, first = decide(policy, NEVER, 2, "sweep", NOON_MS, 7)
    again, _ = decide(policy, first, 2, "sweep", first.expires_ms, 7)
    assert again.expires_ms - again.issued_ms == 30 * MINUTE_MS
    late, _ = decide(policy, first, 2, "sweep", NOON_MS + DAY_MS, 7)
    assert late.expires_ms - late.issued_ms == 15 * MINUTE_MS


def test_escalation_is_not_a_repetition() -> None:
    _, soft = decide(Policy(), NEVER, 2, "sweep", NOON_MS, 7)
    hard, standing = decide(Policy(), soft, 3, "sweep", NOON_MS + 1, 7)
    assert hard.expires_ms - hard.issued_ms == 60 * MINUTE_MS
    assert (standing.revision, standing.doublings) == (2, 0)


def test_durations_stop_doubling() -> None:
    standing = NEVER
    for _ in range(20):
        decision, standing = decide(Policy(), standing, 2, "sweep", standing.expires_ms or NOON_MS, 7)
        if standing.expires_ms - standing.decided_ms >= DAY_MS:
            break
    assert decision.expires_ms - decision.issued_ms <= 15 * MINUTE_MS << DOUBLINGS_MAX


def test_level_four_proposes_a_block_and_keeps_the_limits_of_level_three() -> None:
    decision, _ = decide(Policy(mode="enforce"), NEVER, 4, "sweep", NOON_MS, 7)
    assert (decision.level, decision.action, decision.requests_per_minute) == (4, "cap", 1)


def test_a_detector_in_shadow_stays_there_while_others_enforce() -> None:
    policy = Policy(mode="enforce", shadow_detectors=("volume",))
    assert decide(policy, NEVER, 3, "volume", NOON_MS, 7)[0].mode == "shadow"
    assert decide(policy, NEVER, 3, "sweep", NOON_MS, 7)[0].mode == "enforce"


def test_a_lift_outlives_what_it_lifts() -> None:
    _, standing = decide(Policy(mode="enforce"), NEVER, 3, "sweep", NOON_MS, 7)
    decision, after = lifted(standing, NOON_MS + 5)
    assert (decision.action, decision.revision) == ("lift", 2)
    assert decision.expires_ms >= standing.expires_ms
    assert after.expires_ms == 0


@given(st.integers(0, 2**64 - 1), st.integers(1, 1000), st.integers(0, 3_600_000))
def test_delay_is_bounded_and_repeatable(client: int, revision: int, longest_ms: int) -> None:
    delay = keyed_delay_ms(client, revision, longest_ms)
    assert 0 <= delay <= longest_ms
    assert delay == keyed_delay_ms(client, revision, longest_ms)


@pytest.mark.parametrize("longest_ms", [1000])
def test_delays_differ_between_clients(longest_ms: int) -> None:
    delays = {keyed_delay_ms(client * 0x9E3779B97F4A7C15 % 2**64, 1, longest_ms) for client in range(200)}
    assert len(delays) > 100
