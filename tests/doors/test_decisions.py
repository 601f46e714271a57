"""A door's view of throttle-state: which decision is in force, and when there is none."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.events.encode import moment, throttle
from probewatch_door.decisions import Decisions, KafkaDecisions
from probewatch_door.record import Throttle
from tests.findings import FINDING
from tests.pipeline import until

NOW_MS = FINDING.decision.issued_ms
CLIENT = FINDING.client


@dataclass
class Clock:
    """Seconds since 1970, turned by hand."""

    now_s: float = NOW_MS / 1000 + 1
    view: Decisions = field(init=False)

    def __post_init__(self) -> None:
        self.view = Decisions(clock=lambda: self.now_s)
        self.view.heard()

    def later(self, seconds: float) -> None:
        self.now_s += seconds
        self.view.heard()


def record(**changes: Any) -> Throttle:
    return msgspec.structs.replace(throttle(FINDING), **changes)


def put(view: Decisions, *records: Throttle) -> None:
    for one in records:
        view.apply(one.key.encode(), msgspec.json.encode(one))


def asked(view: Decisions, model: str | None = "loan") -> tuple[str, int] | None:
    found = view.strictest([CLIENT], model)
    return None if found is None else (found.action, found.revision)


def test_a_decision_counts_from_effective_at_until_expires_at() -> None:
    clock = Clock()
    start = moment(NOW_MS)
    put(clock.view, record(effective_at=start + timedelta(seconds=10), expires_at=start + timedelta(seconds=60)))
    assert asked(clock.view) is None
    clock.later(10)
    assert asked(clock.view) == ("cap", 2)
    clock.later(48)
    assert asked(clock.view) == ("cap", 2)
    clock.later(2)
    assert asked(clock.view) is None


def test_the_highest_revision_replaces_whatever_the_order() -> None:
    for order in ((2, 3), (3, 2), (3, 2, 3, 2)):
        view = Clock().view
        put(view, *(record(revision=n, action="block" if n == 2 else "cap") for n in order))
        assert asked(view) == ("cap", 3), order


def test_a_lift_frees_at_once() -> None:
    view = Clock().view
    put(view, record(), record(revision=3, action="lift", level=0), record())
    assert asked(view) is None


def test_an_expired_revision_does_not_wake_the_one_before_it() -> None:
    clock = Clock()
    put(clock.view, record(action="block", expires_at=moment(NOW_MS + 86_400_000)))
    put(clock.view, record(revision=3, expires_at=moment(NOW_MS + 60_000)))
    clock.later(61)
    assert asked(clock.view) is None


def test_a_delayed_successor_leaves_no_gap() -> None:
    clock = Clock()
    put(clock.view, record(), record(revision=3, action="block", effective_at=moment(NOW_MS + 20_000)))
    assert asked(clock.view) == ("cap", 2)
    clock.later(20)
    assert asked(clock.view) == ("block", 3)


def test_the_strictest_origin_wins_and_shadow_never_hides_it() -> None:
    view = Clock().view
    put(view, record(), record(origin="person", action="block", mode="shadow"), record(origin="link", action="delay"))
    assert asked(view) == ("cap", 2)
    put(view, record(origin="person", revision=3, action="block"))
    assert asked(view) == ("block", 3)


def test_of_two_caps_the_lower_one_wins() -> None:
    view = Clock().view
    low, high = throttle(FINDING).limits, msgspec.structs.replace(throttle(FINDING).limits, requests_per_minute=10)
    put(view, record(limits=high), record(origin="link", limits=low))
    found = view.strictest([CLIENT], "loan")
    assert found is not None and found.limits.requests_per_minute == 1


@pytest.mark.parametrize("change", [{"mode": "shadow"}, {"action": "observe"}, {"replay": True}, {"scope": "lineage"}])
def test_what_asks_for_nothing(change: dict[str, Any]) -> None:
    view = Clock().view
    put(view, record(**change))
    assert asked(view) is None
    assert asked(view, None) is None


def test_models_are_kept_apart_and_the_empty_one_is_all() -> None:
    view = Clock().view
    put(view, record())
    assert asked(view, "other") is None
    assert asked(view, None) == ("cap", 2)
    put(view, record(model="", origin="person", action="block"))
    assert asked(view, "other") == ("block", 2)
    assert view.strictest(["k1-somebodyelse"], None) is None


def test_a_client_is_found_under_any_of_its_names() -> None:
    view = Clock().view
    put(view, record())
    assert view.strictest(["k2-newname", CLIENT], "loan") is not None


def test_other_artefacts_may_count_from_one_again() -> None:
    view = Clock().view
    put(view, record(revision=9))
    put(view, record(revision=1, action="block", artefact_hash="other", issued_at=moment(NOW_MS + 5)))
    assert asked(view) == ("block", 1)
    put(view, record(revision=10, artefact_hash="older", issued_at=moment(NOW_MS - 5)))
    assert asked(view) == ("block", 1), "a late word from old artefacts"


def test_a_stale_view_asks_for_nothing() -> None:
    """Fail open: before the topic was read, and when its broker has not been heard of."""
    clock = Clock()
    put(clock.view, record())
    clock.now_s += 29
    assert asked(clock.view) is not None
    clock.now_s += 2
    assert not clock.view.fresh and asked(clock.view) is None
    clock.view.heard()
    assert asked(clock.view) is not None
    unread = Decisions(clock=lambda: clock.now_s)
    put(unread, record())
    assert asked(unread) is None


def test_bad_records_are_counted_and_harm_nobody() -> None:
    view = Clock().view
    put(view, record())
    good = msgspec.json.encode(record(revision=7, action="block"))
    bad = [b"", b"{}", b"null", b"\xff", good[:-9], good.replace(b"Z", b""), good.replace(b'"block"', b'"burn"')]
    bad += [good.replace(b"throttle/1", b"throttle/2"), b"[" * 100_000]
    for value in bad:
        view.apply(b"k", value)
    assert view.faults == len(bad)
    assert asked(view) == ("cap", 2)


def test_a_tombstone_forgets() -> None:
    view = Clock().view
    put(view, record())
    view.apply(record().key.encode(), None)
    view.apply(b"never seen", None)
    view.apply(None, None)
    assert asked(view) is None


def test_unknown_fields_are_for_later_versions() -> None:
    view = Clock().view
    view.apply(None, msgspec.json.encode(record())[:-1] + b',"locator":"sealed"}')
    assert asked(view) == ("cap", 2)


def test_expired_decisions_do_not_pile_up() -> None:
    clock = Clock()
    for number in range(10_000):
        clock.now_s += 60
        put(clock.view, record(client=f"k1-{number}", expires_at=moment(int(clock.now_s * 1000))))
    assert len(clock.view._timelines) == len(clock.view._keys) <= 24 * 60 + 2


REVISIONS = st.builds(
    lambda revision, action, start, length, origin, mode: record(
        revision=revision,
        action=action,
        origin=origin,
        mode=mode,
        effective_at=moment(NOW_MS + 1000 * start),
        expires_at=moment(NOW_MS + 1000 * (start + length)),
    ),
    st.integers(1, 6),
    st.sampled_from(["lift", "observe", "delay", "cap", "challenge", "block"]),
    st.integers(0, 10),
    st.integers(1, 20),
    st.sampled_from(["judge", "person"]),
    st.sampled_from(["shadow", "enforce"]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(REVISIONS, max_size=8, unique_by=lambda one: (one.origin, one.revision)), st.integers(0, 32), st.data())
def test_the_view_equals_its_slow_twin(records: list[Throttle], at_s: int, data: st.DataObject) -> None:
    """In log order (revisions rise), with re-sent older ones anywhere: what a full search over all of them finds."""
    clock = Clock(now_s=NOW_MS / 1000)
    log = sorted(records, key=lambda one: one.revision)
    for place, one in enumerate(log):
        put(clock.view, one, data.draw(st.sampled_from(log[: place + 1])))
    clock.later(at_s)
    now = moment(NOW_MS + 1000 * at_s)
    order = ("lift", "observe", "delay", "cap", "challenge", "block")
    ranks = []
    for origin in ("judge", "person"):
        started = [one for one in log if one.origin == origin and one.effective_at <= now]
        last = max(started, key=lambda one: one.revision, default=None)
        if last is not None and last.expires_at > now and last.mode == "enforce":
            ranks.append(order.index(last.action))
    expected = max(ranks, default=0)
    found = clock.view.strictest([CLIENT], "loan")
    assert (found.action if found else None) == (order[expected] if expected >= 2 else None)


async def _topic(bootstrap: str, name: str, partitions: int = 3) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, partitions, 1, topic_configs={"cleanup.policy": "compact"})])
    await admin.close()


async def test_a_view_follows_the_topic_from_its_beginning(embedded_broker: str, namespace: str) -> None:
    topic = f"{namespace}.throttle-state"
    await _topic(embedded_broker, topic)
    future = moment(4_000_000_000_000)
    producer = AIOKafkaProducer(bootstrap_servers=embedded_broker)
    await producer.start()
    try:
        for number in range(50):
            one = record(client=f"k1-{number}", expires_at=future)
            await producer.send(topic, msgspec.json.encode(one), key=one.key.encode())
        await producer.flush()
        async with KafkaDecisions(embedded_broker, topic) as view:
            assert view.strictest(["k1-7"], "loan") is None, "nothing is asked before everything is read"
            assert await view.wait_fresh(120)
            assert all(view.strictest([f"k1-{number}"], "loan") for number in range(50))
            lift = record(client="k1-7", revision=3, action="lift", expires_at=future)
            await producer.send_and_wait(topic, msgspec.json.encode(lift), key=lift.key.encode())
            await until(lambda: view.strictest(["k1-7"], "loan") is None, "the lift")
            assert view.fresh and view.strictest(["k1-7"], "loan") is None
            assert view.strictest(["k1-8"], "loan") is not None
    finally:
        await producer.stop()


async def test_an_empty_topic_is_read_too(embedded_broker: str, namespace: str) -> None:
    topic = f"{namespace}.throttle-state"
    await _topic(embedded_broker, topic)
    async with KafkaDecisions(embedded_broker, topic) as view:
        assert await view.wait_fresh(120)


async def test_a_quiet_topic_stays_fresh(embedded_broker: str, namespace: str) -> None:
    """Freshness is a broker that answers, not a topic that speaks."""
    topic = f"{namespace}.throttle-state"
    await _topic(embedded_broker, topic)
    heard_s: list[float] = []

    class Listening(KafkaDecisions):
        def heard(self, at_s: float | None = None) -> None:
            heard_s.append(at_s or 0.0)
            super().heard(at_s)

    async with Listening(embedded_broker, topic) as view:
        assert await view.wait_fresh(120)
        await until(lambda: heard_s[-1] > heard_s[0] + 2.0, "answers without records")
        assert view.fresh


async def test_no_broker_is_no_outage() -> None:
    async with KafkaDecisions("127.0.0.1:1", "nowhere") as view:
        assert not await view.wait_fresh(0.3)
        assert view.strictest([CLIENT], None) is None
