"""The broker's time bounds a record's, and a source whose clock runs behind is decided on in the broker's time."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector import engine
from detector.events.finding import Event
from models.rows import FLAG_AHEAD, Rows
from streams.sketch import columns
from streams.sketch.columns import AHEAD_MS
from streams.sketch.elements import LOG_APPEND
from streams.sketch.sketcher import RawRecord, Sketcher
from tests import engine_cases as cases
from tests import sketching
from tests.scenarios import run, world

NOON_S = 1_740_830_400
CREATED = 0
HOURS_2_MS = 7_200_000


def record(ts: object, append_s: float, kind: int | None = LOG_APPEND, *, odd: bool = False) -> RawRecord:
    """odd : with an unread escape, which the fast path leaves to the decoder."""
    body = sketching.record(random.Random(1), 1) | {"ts": ts}
    value = msgspec.json.encode(body)
    if odd:
        value = value.replace(b'"user_agent":"curl/8"', b'"user_agent":"curl/8","features":null') + b" "
    return RawRecord(0, value, None, (), round(append_s * 1000), kind)


def rows_of(*records: RawRecord) -> Rows:
    result = sketching.build_sketcher().frames("t", 0, "0", records, 1)
    assert not result.rejects and len(result.frames) == 1
    return result.frames[0].rows


@pytest.mark.parametrize("beyond_s", [-7_200, 0, 299.999, 300, 300.001, 3_600, 86_400 * 365 * 6])
@pytest.mark.parametrize("slow", [False, True])
def test_a_time_lies_at_most_five_minutes_beyond_the_brokers(
    beyond_s: float, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if slow:
        monkeypatch.setattr(Sketcher, "_plain", lambda self, stretches, *_: stretches)
    rows = rows_of(record(NOON_S + beyond_s, NOON_S))
    wanted = min(NOON_S + beyond_s, NOON_S + 300)
    assert rows.time_ms.tolist() == [round(wanted * 1000)]
    assert bool(rows.flags[0] & FLAG_AHEAD) == (beyond_s > 300)
    assert rows.append_ms.tolist() == [NOON_S * 1000]


@pytest.mark.parametrize("ts", ["9998-12-31T23:59:59Z", "2100-01-01T00:00:00Z", 5e9])
def test_a_time_that_no_record_may_have_is_bounded_too(ts: object) -> None:
    """Without the broker's time it is refused; with it, its sender is judged."""
    rows = rows_of(record(ts, NOON_S))
    assert rows.time_ms.tolist() == [NOON_S * 1000 + AHEAD_MS] and rows.flags[0] & FLAG_AHEAD
    assert sketching.build_sketcher().frames("t", 0, "0", [record(ts, -1, None)], 1).rejects


@pytest.mark.parametrize(
    ("append_s", "kind"),
    [(NOON_S, CREATED), (NOON_S, None), (-0.001, LOG_APPEND), (3_600, LOG_APPEND), (10**11, LOG_APPEND)],
    ids=["the producer's time", "a file", "no time", "a broker without a clock", "a broker in the year 5138"],
)
def test_a_time_that_the_broker_did_not_set_bounds_nothing(append_s: float, kind: int | None) -> None:
    rows = rows_of(record(NOON_S + 86_400, append_s, kind))
    assert rows.time_ms.tolist() == [(NOON_S + 86_400) * 1000]
    assert rows.append_ms.tolist() == [0] and not rows.flags[0] & FLAG_AHEAD


@given(st.lists(st.tuples(st.floats(-1e18, 1e18), st.integers(0, 2**43)), min_size=1))
def test_bounded_is_what_it_says(pairs: list[tuple[float, int]]) -> None:
    times, appends = np.array([t for t, _ in pairs]), np.array([a for _, a in pairs], np.int64)
    bounded, ahead = columns.bounded(times, appends)
    for (time, append), told, beyond in zip(pairs, bounded.tolist(), ahead.tolist(), strict=True):
        assert told == (min(time, append + AHEAD_MS) if append else time)
        assert beyond == (told != time)


def decided(lines: Sequence[dict[str, Any]], behind_ms: int, kind: int | None) -> list[Event]:
    """Records appended at their time, by a source whose clock is so far behind."""
    raws = [
        RawRecord(
            place,
            world.as_bytes(line | {"ts": line["ts"] - behind_ms / 1000, "request_id": f"r-{place}"}),
            None,
            (),
            at_ms,
            kind,
        )
        for place, line in enumerate(lines)
        for at_ms in [round(line["ts"] * 1000)]
    ]
    sketcher = Sketcher(run.artefacts(), cases.identity(), cases.CONFIG)
    state = engine.open_partition(cases.settings(), 0)
    found: list[Event] = []
    for place, raw in enumerate(raws):
        for frame in sketcher.frames("gateway-logs", 0, "0", [raw], 1).frames:
            found += engine.step(state, replace(frame, offset=place))
    return [event for event in found if event.kind == "throttle"]


def told(event: Event) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(event.value)
    return {name: body[name] for name in ("level", "reason", "revision", "issued_at", "expires_at")}


def test_a_source_two_hours_behind_is_held_as_long_as_one_on_time() -> None:
    """Also when they come again, after expiry."""
    once = run.records("sweep", "attack")
    lines = [*once, *(line | {"ts": line["ts"] + 9 * 86_400} for line in once)]
    on_time = decided(lines, 0, CREATED)
    assert len(on_time) > 2
    assert [told(event) for event in decided(lines, HOURS_2_MS, LOG_APPEND)] == [told(event) for event in on_time]
    unknown = decided(lines, HOURS_2_MS, CREATED)
    assert [told(event)["expires_at"] for event in unknown] != [told(event)["expires_at"] for event in on_time]


def test_the_brokers_time_changes_nothing_for_a_source_on_time() -> None:
    lines = run.records("boundary", "attack")
    assert decided(lines, 0, LOG_APPEND) == decided(lines, 0, CREATED)
