"""Counting requests: the window against a full search, and the shared counter against the window."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limits.aio.storage import MemoryStorage

from probewatch_door.limits import WINDOW_S, Windows
from probewatch_door.shared import LimitsCounter


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from("ab")), max_size=40), st.integers(1, 4))
def test_the_window_equals_a_full_search(requests: list[tuple[int, str]], rate: int) -> None:
    """In any 60 seconds at most `rate` requests of a client pass, and the wait ends when there is room."""
    now = [0.0]
    windows = Windows(clock=lambda: now[0])
    passed: dict[str, list[float]] = {"a": [], "b": []}
    for pause, client in requests:
        now[0] += pause
        recent = [at for at in passed[client] if at > now[0] - WINDOW_S]
        wait_s = windows.hit(client, rate)
        assert (wait_s is None) == (len(recent) < rate)
        if wait_s is None:
            passed[client].append(now[0])
        else:
            assert len([at for at in recent if at > now[0] + wait_s - WINDOW_S]) < rate


def test_idle_clients_do_not_pile_up() -> None:
    now = [0.0]
    windows = Windows(clock=lambda: now[0])
    for number in range(20_000):
        now[0] += 1
        windows.hit(number, 1)
    assert len(windows._times) <= 10_100


async def test_the_shared_counter_counts_like_the_window() -> None:
    counter, windows = LimitsCounter(MemoryStorage()), Windows()
    for _ in range(5):
        shared, own = await counter.hit(("k1-a", "loan"), 3), windows.hit(("k1-a", "loan"), 3)
        assert (shared is None) == (own is None)
        assert shared is None or own is None or shared == pytest.approx(own, abs=1)
    assert await LimitsCounter("async+memory://").hit(("k1-a", "loan"), 1) is None
