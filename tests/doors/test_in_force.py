"""Which decision is in force: the door, the analyst's commands, reports and comparisons give one answer."""

import itertools
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.events import ocsf, wording
from detector.events.encode import throttle
from detector.events.escape import json_bytes
from probewatch_door.decisions import Decisions
from probewatch_door.in_force import DecisionSpan, is_enforced, obeyed, spans, strictest, strictness
from probewatch_door.record import ACTIONS, LIMITING, Throttle
from streams.analyst.events import ThrottleEvent, decode_event
from streams.analyst.incidents import group, holding
from streams.compare.minutes import held
from streams.report.enforcement import stretches
from tests.findings import FINDING

BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)
LAST = 40


def minute(number: float) -> datetime:
    return BEGIN + timedelta(minutes=number)


def record(issued: float, effective: float, expires: float, **changes: Any) -> Throttle:
    """A cap of the judge on k1-a and "loan", from minute `effective` to minute `expires`."""
    times = {"issued_at": minute(issued), "effective_at": minute(effective), "expires_at": minute(expires)}
    about = {"client": "k1-a", "revision": 1, "decision_id": f"{issued}-{effective}-{expires}-{changes}"}
    return msgspec.structs.replace(throttle(FINDING), **{**about, **times, **changes})


def door(records: Sequence[Throttle], at: float, model: str = "loan") -> Throttle | None:
    """What a door obeys that got each record when it was issued."""
    clock = [0.0]
    view = Decisions(clock=lambda: clock[0])
    for one in sorted(records, key=lambda one: one.issued_at):
        if one.issued_at <= minute(at):
            clock[0] = one.issued_at.timestamp()
            view.apply(None, msgspec.json.encode(one))
    clock[0] = minute(at).timestamp()
    view.heard()
    return view.strictest(["k1-a"], model)


def events(*records: Throttle) -> list[ThrottleEvent]:
    decoded = [decode_event(json_bytes(one)) for one in records]
    return [event for event in decoded if isinstance(event, ThrottleEvent)]


OLD = record(0, 0, 60)
SUCCESSOR = record(30, 40, 90, revision=2, level=4)
CAP = record(0, 0, 60)
BLOCK = record(10, 10, 20, action="block", origin="person", reason="person")


def test_a_successor_that_takes_effect_later_leaves_the_old_decision_in_force() -> None:
    both = events(OLD, SUCCESSOR)
    assert door([OLD, SUCCESSOR], 35) == OLD == strictest([OLD, SUCCESSOR], minute(35))
    assert door([OLD, SUCCESSOR], 40) == SUCCESSOR == strictest([OLD, SUCCESSOR], minute(40))
    assert door([OLD, SUCCESSOR], 90) is None is strictest([OLD, SUCCESSOR], minute(90))
    assert (held(both).union, held(both).enforced) == (90.0, 90.0)
    assert [(span.level, span.minutes) for span in stretches(both)] == [(3, 40.0), (4, 50.0)]
    assert [event.record for event in holding(both, minute(35))] == [OLD]
    (incident,) = group(both, {}, minute(35))
    assert (incident.level_now, incident.until) == (3, OLD.expires_at)


@pytest.mark.parametrize("model", ["loan", ""])
def test_a_block_of_a_person_beside_a_cap_of_the_judge_counts_once(model: str) -> None:
    """model "" : the person blocks the client on every model."""
    block = msgspec.structs.replace(BLOCK, model=model)
    both = events(CAP, block)
    assert [door([CAP, block], at) for at in (5, 15, 25, 60)] == [CAP, block, CAP, None]
    assert [strictest([CAP, block], minute(at)) for at in (5, 15, 25, 60)] == [CAP, block, CAP, None]
    assert (held(both).union, held(both).enforced) == (60.0, 60.0)
    assert [(span.action, span.model, span.minutes) for span in stretches(both)] == [
        ("cap", "loan", 10.0), ("block", "loan", 10.0), ("cap", "loan", 40.0),
    ]  # fmt: skip
    (incident,) = group(both, {}, minute(15))
    assert (incident.action, incident.until) == ("block", block.expires_at)


def test_a_block_on_every_model_counts_for_each_that_is_named() -> None:
    block = msgspec.structs.replace(BLOCK, model="")
    fraud = record(0, 0, 5, model="fraud")
    subjects = obeyed(spans([CAP, fraud, block]))
    assert {model: [span.minutes for span in own] for (_, model), own in subjects.items()} == {
        "fraud": [5.0, 10.0], "loan": [10.0, 10.0, 40.0],
    }  # fmt: skip
    assert list(obeyed(spans([block]))) == [("k1-a", "")]


def test_what_doors_ignore_is_never_in_force() -> None:
    replayed, lineage, lift = record(0, 0, 9, replay=True), record(0, 0, 9, scope="lineage"), record(0, 0, 9)
    lift = msgspec.structs.replace(lift, action="lift")
    assert spans([replayed, lineage, lift]) == {}
    assert strictest([replayed, lineage, lift], minute(1)) is None


def test_what_doors_act_on_comes_before_what_is_only_watched() -> None:
    watched = record(0, 0, 60, mode="shadow", action="block", origin="link")
    assert strictest([CAP, watched], minute(1)) == CAP
    assert strictest([watched], minute(1)) == watched, "an analyst sees it"
    assert door([watched], 1) is None


def test_a_filter_does_not_bring_a_replaced_decision_back(tmp_path: Any) -> None:
    from streams.analyst.events import Filter
    from streams.analyst.index import EventIndex

    lift = record(20, 20, 90, revision=2, level=0, action="lift")
    index = EventIndex(None, minute(30), list(events(OLD, lift)), [], {}, [])
    assert index.throttles(Filter(level=3), in_force=True) == []
    assert index.throttles(Filter(level=3)) == events(OLD)


def test_the_order_of_actions_is_the_only_one() -> None:
    assert ACTIONS == ("lift", "observe", "delay", "cap", "challenge", "block")
    assert sorted((record(0, 0, 1, action=action) for action in reversed(ACTIONS)), key=strictness) == [
        record(0, 0, 1, action=action) for action in ACTIONS
    ]
    assert set(ocsf.RESPONSES) == set(ACTIONS) and set(wording.RESPONSES) == set(LIMITING)


AFTER = {"a": 0.0, "b": 0.5}
"""Artefacts never issue at one time: of two that do, the one delivered last counts, whenever that is."""

RECORDS = st.builds(
    lambda issued, delay, length, changes, artefact: record(
        *itertools.accumulate((issued + AFTER[artefact], delay, length)), artefact_hash=artefact, **changes
    ),
    st.integers(0, 20),
    st.integers(0, 10),
    st.integers(0, 15),
    st.fixed_dictionaries(
        {
            "action": st.sampled_from(ACTIONS),
            "origin": st.sampled_from(["judge", "judge", "link", "person"]),
            "mode": st.sampled_from(["enforce", "enforce", "shadow"]),
            "model": st.sampled_from(["loan", "loan", "fraud", ""]),
        }
    ),
    st.sampled_from(["a", "a", "b"]),
)


@st.composite
def deliveries(draw: st.DrawFn) -> list[Throttle]:
    """A topic: records by time of issue, some of them only after a newer one of their key, and any of them again.

    Revisions rise with the time of issue within one state of the judge, which other artefacts replace.
    """
    log: list[Throttle] = []
    revisions: Counter[tuple[str, str]] = Counter()
    for one in sorted(draw(st.lists(RECORDS, max_size=14)), key=lambda one: one.issued_at):
        revisions[one.key, one.artefact_hash] += 1
        log.append(msgspec.structs.replace(one, revision=revisions[one.key, one.artefact_hash]))
    newest = {one.key: place for place, one in enumerate(log)}
    delivered: list[Throttle] = []
    for place, one in enumerate(log):
        if newest[one.key] == place or draw(st.integers(0, 3)):
            delivered.append(one)
        late = [each for each in log[: place + 1] if newest[each.key] <= place or each in delivered]
        delivered += draw(st.lists(st.sampled_from(late), max_size=2)) if late else []
    return delivered


@settings(max_examples=400, deadline=None)
@given(deliveries(), st.sampled_from(["loan", "fraud", "other"]))
def test_the_door_stepped_through_time_equals_the_spans(records: list[Throttle], model: str) -> None:
    by_key = {key: own for key, own in spans(records).items() if key[1] in ("", model)}
    enforced = {key: [span for span in own if is_enforced(span.record)] for key, own in by_key.items()}
    clock = [BEGIN.timestamp()]
    view = Decisions(clock=lambda: clock[0])
    waiting = list(records)
    latest = BEGIN
    for at in (minute(half / 2) for half in range(2 * LAST)):
        clock[0] = at.timestamp()
        while waiting and max(latest, waiting[0].issued_at) <= at:
            latest = max(latest, waiting[0].issued_at)
            view.apply(None, msgspec.json.encode(waiting.pop(0)))
        view.heard()
        answer = view.strictest(["k1-a"], model)
        held = [span.record for own in enforced.values() for span in own if span.start <= at < span.end]
        assert (answer and strictness(answer)) == max(map(strictness, held), default=None)
        assert answer is None or answer in held
    assert waiting == []


@settings(max_examples=300, deadline=None)
@given(deliveries())
def test_merged_spans_are_the_strictest_at_every_instant(records: list[Throttle]) -> None:
    """A full search at every instant, and no two spans of one model overlap."""
    by_key = spans(records)
    for (client, model), own in obeyed(by_key).items():
        assert all(before.end <= after.start for before, after in itertools.pairwise(own))
        for at in (minute(half / 2) for half in range(2 * LAST)):
            held = [
                span.record for key, parts in by_key.items() if key[0] == client and key[1] in ("", model)
                for span in parts if span.start <= at < span.end
            ]  # fmt: skip
            merged = [span.record for span in own if span.start <= at < span.end]
            assert [strictness(one) for one in merged] == [max(map(strictness, held))] if held else merged == []
            if model:
                of_model = [one for one in records if one.model in ("", model)]
                now = strictest(of_model, at)
                assert (now and strictness(now)) == (strictness(merged[0]) if merged else None)


def test_the_test_sees_a_wrong_span() -> None:
    """Cut at issue instead of effect, as comparisons once did, is told apart."""
    (own,) = spans([OLD, SUCCESSOR]).values()
    assert own == [DecisionSpan(OLD, minute(0), minute(40)), DecisionSpan(SUCCESSOR, minute(40), minute(90))]
