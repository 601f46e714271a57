"""Drift of models: what is seen, what is not, and that order, redelivery and restarts change no byte."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from detector import engine
from detector.drift import fold as drift
from detector.drift import records as drift_records
from detector.events.finding import Event
from detector.frame import CloseFrame, ControlFrame, Frame, RowFrame, ShiftFrame
from detector.link_fold import Closed, StateError
from examples.alert_schema import validate_alert
from models.rows import Rows
from streams.config.config import Config
from streams.wire import frames
from tests import engine_cases
from tests.drift_cases import (
    BEGIN_MS,
    CONFIG,
    DIM,
    HOUR_MS,
    PARTITIONS,
    SOURCES,
    SPACE,
    changed,
    close_due,
    hour,
    in_turn,
    loaded,
    logs,
    mixed,
    settings,
    take,
    together,
    told,
)  # fmt: skip

AT = 20
LOGS = logs(changed(34, AT, lambda number: hour(number, score=1.0, app=0.3)))
EXPECTED = told(in_turn(LOGS))


def bodies(events: list[Event], kind: str = "drift") -> list[dict[str, Any]]:
    return [json.loads(event.value) for event in events if event.kind == kind]


def ms(number: int) -> int:
    return BEGIN_MS + number * HOUR_MS


# What is seen


@pytest.mark.parametrize(
    ("statistic", "direction", "make"),
    [
        ("score", "up", lambda number: hour(number, score=0.8)),
        ("score", "down", lambda number: hour(number, score=-0.8)),
        ("margin", "up", lambda number: hour(number, score=2.0)),
        ("novelty", "up", lambda number: hour(number, app=0.5)),
        ("inputs", "away", lambda number: hour(number, app=0.3)),
        ("refusals", "up", lambda number: hour(number, refused=0.2)),
    ],
)
def test_a_change_is_seen_in_its_statistic_and_told_once_it_lasts(
    statistic: str, direction: str, make: Callable[[int], Rows]
) -> None:
    events = told(in_turn(logs(changed(40, AT, make)))).events
    records = [body for body in bodies(events) if body["statistic"] == statistic]
    assert [record["state"] for record in records] == ["begins", "lasts"]
    assert {record["direction"] for record in records} == {direction}
    assert len({record["drift_id"] for record in records}) == 1
    since = np.datetime64(records[0]["since"].removesuffix("Z")).astype("datetime64[ms]").astype(int)
    assert abs(since - ms(AT)) <= (6 if statistic == "inputs" else 2) * HOUR_MS
    alerts = [body for body in bodies(events, "alert") if body["unmapped"]["statistic"] == statistic]
    assert len(alerts) == 1 and f"Drift of loan: {statistic} {direction}" in alerts[0]["message"]
    if statistic == "score":
        assert records[0]["magnitude"] == pytest.approx(0.08, abs=0.03)


def test_volume_is_compared_with_the_week_before() -> None:
    night = [240 if 6 <= number % 24 < 22 else 60 for number in range(10 * 24)]
    doubled = [n * (2 if number >= 8 * 24 else 1) for number, n in enumerate(night)]
    quiet, loud = (
        [e for e in told(in_turn(logs(hour(h, n) for h, n in enumerate(part)))).events if b'"volume"' in e.value]
        for part in (night, doubled)
    )
    assert quiet == []
    begins, lasts = bodies(loud)
    assert (begins["state"], lasts["state"], begins["direction"]) == ("begins", "lasts", "up")
    assert begins["after"] / begins["before"] == pytest.approx(2.0, rel=0.2)
    assert 8 * 24 * HOUR_MS <= loud[0].time_ms - BEGIN_MS <= 9 * 24 * HOUR_MS


def test_what_stops_altogether_is_seen_in_volume() -> None:
    """Time goes on with another model; this one's windows are empty."""
    frames = in_turn(logs(hour(number) for number in range(8 * 24 + 30)))
    other = "other@0123456789abcdef"
    both = settings()
    model = replace(both.artefacts[SPACE], space=other, model="other")  # type: ignore[type-var]
    state = drift.DriftFold(replace(both, artefacts={**both.artefacts, other: model}))
    found: list[Event] = []
    for frame in frames:
        if int(frame.rows.time_ms[0]) < ms(8 * 24):
            state.step([frame])
            state.step([replace(frame, offset=frame.offset, space=other)])
        else:
            state.step([replace(frame, offset=frame.offset + 10_000, space=other, model="other")])
        found += close_due(state).events
    assert [(body["model"], body["statistic"], body["after"]) for body in bodies(found)][:1] == [
        ("loan", "volume", 0.0)
    ]


def test_ordinary_hours_are_silent() -> None:
    assert told(in_turn(logs(hour(number) for number in range(24 * 9)))).events == []


def test_one_client_is_no_drift() -> None:
    """As many rows as all others together, far out."""

    def make(number: int) -> Rows:
        rows = hour(number, 480)
        loud = np.arange(480) % 2 == 0
        client = np.where(loud, np.uint64(12_345), rows.client)
        values = np.where(loud[:, None], np.int16(9_000), rows.values)
        return rows._replace(client=client, values=values, score=np.where(loud, np.float32(0.99), rows.score))

    found = {body["statistic"] for body in bodies(told(in_turn(logs(changed(40, AT, make)))).events)}
    assert "score" not in found and "inputs" not in found


def test_the_shift_is_that_of_the_population() -> None:
    last = EXPECTED.shifts[-1]
    assert (last.space, len(last.vector), last.until_ms % HOUR_MS) == (SPACE, DIM, 0)
    assert all(400 < value < 1_300 for value in last.vector)  # 30 % of clients by 1.5 units
    early = EXPECTED.shifts[AT - 4]
    assert all(abs(value) < 300 for value in early.vector)


def test_an_alert_is_valid_ocsf_and_names_no_client() -> None:
    alerts = [event for event in EXPECTED.events if event.kind == "alert"]
    assert alerts
    for event in alerts:
        assert validate_alert(event.value) == []
        body = json.loads(event.value)
        assert (body["severity_id"], body["metadata"]["product"]["feature"]["name"]) == (2, "drift")
        assert [attack["technique"]["uid"] for attack in body["attacks"]] == ["AML.T0031"]
        assert dict(event.headers)["ce_source"] == b"urn:probewatch:link"
        assert "k1-" not in event.value.decode()


# The same bytes


def test_what_is_expected_is_of_interest() -> None:
    assert {body["statistic"] for body in bodies(EXPECTED.events)} >= {"score", "inputs"}
    assert len({event.id for event in EXPECTED.events}) == len(EXPECTED.events)
    assert len(EXPECTED.shifts) > 25


@hypothesis_settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), repeats=st.booleans(), stops=st.booleans())
def test_any_order_of_partitions_redelivery_and_restarts_give_the_same_bytes(
    seed: int, repeats: bool, stops: bool
) -> None:
    """Partitions run far ahead of each other; frames come again, at their offset and at others; states are reloaded."""
    rng = np.random.default_rng(seed)
    state = drift.DriftFold(settings())
    events, shifts = [], []
    for frame, behind in mixed(LOGS, seed):
        state.step([frame])
        if repeats and rng.random() < 0.3:
            state.step([frame])
        if stops and rng.random() < 0.1:
            stored = state.dump()
            state = loaded(settings(), stored)
            assert state.dump() == stored
        closed = close_due(state, behind)
        events += closed.events
        shifts += closed.frames
    assert (events, shifts) == (EXPECTED.events, EXPECTED.shifts)


@hypothesis_settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_is_too_late_stands_in_the_log(seed: int) -> None:
    """A raw partition stalls for hours. Whoever reads, at any pace, leaves out the same rows."""
    parts, late = closed_in_turn(stalled(LOGS))
    state = drift.DriftFold(settings(IMPATIENT))
    events, shifts = [], []
    for frame, _ in mixed(parts, seed):
        state.step([frame])
        closed = closed_everywhere(state)
        events += closed.events
        shifts += closed.frames
    assert state.late == late > 50
    whole = drift.DriftFold(settings(IMPATIENT))
    for frame in [frame for log in parts for frame in log]:
        whole.step([frame])
    at_once = closed_everywhere(whole)
    assert (at_once.events, at_once.frames) == (events, shifts) and len(events) > 2
    assert events != told(in_turn(LOGS), IMPATIENT).events


def closed_everywhere(fold: drift.DriftFold) -> Closed:
    """Close what every partition has a CloseFrame for."""
    return fold.close(min(fold.cuts.values())) if len(fold.cuts) == PARTITIONS else Closed([], [], 0)


IMPATIENT = CONFIG.model_copy(update={"drift": CONFIG.drift.model_copy(update={"patience_s": 0})})


def stalled(parts: list[list[RowFrame]]) -> list[RowFrame]:
    """In turn, but four hours of one raw partition come together, behind the last of them."""

    def place(frame: RowFrame) -> int:
        at = int(frame.rows.time_ms[0] - BEGIN_MS) // HOUR_MS
        return 16 if frame.source_name == "raw[1]" and 12 <= at < 16 else at

    return sorted(in_turn(parts), key=place)


def closed_in_turn(frames: list[RowFrame]) -> tuple[list[list[Frame]], int]:
    """The logs as `link` leaves them that reads each frame as it comes, and how many rows came too late for it."""
    state = drift.DriftFold(settings(IMPATIENT))
    parts: list[list[Frame]] = [[] for _ in range(PARTITIONS)]

    def add(frame: Frame) -> None:
        parts[frame.partition].append(replace(frame, offset=len(parts[frame.partition])))
        state.step([parts[frame.partition][-1]])

    for frame in frames:
        add(frame)
        until_ms = state.due(())
        if until_ms is not None:
            for partition in range(PARTITIONS):
                add(CloseFrame(partition, 0, until_ms, "drift"))
        closed_everywhere(state)
    return parts, state.late


def test_rows_of_several_raw_partitions_in_one_frame_count_the_same() -> None:
    frames = in_turn(together(LOGS))
    assert all(len(set(frame.rows.source.tolist())) == SOURCES for frame in frames)
    assert told(frames) == told(in_turn(LOGS)) and len(told(frames).events) > 2
    again = [replace(frame, offset=frame.offset + 10_000) for frame in frames]
    assert told([*frames, *again]) == told(frames)


def test_rows_sent_again_at_new_offsets_are_not_counted_again() -> None:
    twice = []
    for log in LOGS:
        frames = [part for frame in log for part in (frame, frame)]
        twice.append([replace(frame, offset=offset) for offset, frame in enumerate(frames)])
    assert told(in_turn(twice)) == EXPECTED


def test_a_frame_that_tells_rows_twice_counts_them_once() -> None:
    """As a replay of files with overlapping stretches of a partition makes them."""
    frame = LOGS[0][0]
    twice = np.r_[np.arange(frame.rows.count), np.arange(3, frame.rows.count)]
    state = drift.DriftFold(settings())
    state.step([replace(frame, rows=take(frame.rows, twice))])
    assert counted(state) == frame.rows.count > 3
    state.step([replace(frame, offset=frame.offset + 1)])
    assert counted(state) == frame.rows.count


def counted(fold: drift.DriftFold) -> int:
    return sum(int(sums[:, 0].sum()) for opened in fold.open.values() for sums in opened.values())


def test_a_partition_that_has_gone_idle_is_not_waited_for() -> None:
    some = [log if partition else log[: 2 * 10] for partition, log in enumerate(LOGS)]
    state = drift.DriftFold(settings())
    for frame in in_turn(some):
        state.step([frame])
    assert state.time.horizon(behind=()) > ms(32)  # type: ignore[operator]
    assert state.time.horizon(behind={0}) < ms(11)  # type: ignore[operator]
    assert state.time.horizon(behind={0, 77}) is None, "nothing of it has been read yet"


def test_a_raw_partition_that_lags_is_waited_for_with_patience() -> None:
    frames = in_turn(LOGS)
    state = drift.DriftFold(settings())
    for frame in frames:
        if frame.source_name == "raw[0]" or int(frame.rows.time_ms[0]) < ms(20):
            state.step([frame])
        now = int(frame.rows.time_ms[0])
        if frame.source_name == "raw[0]" and ms(20) + HOUR_MS // 2 < now < ms(20) + HOUR_MS:
            assert state.time.horizon(()) < ms(20)  # type: ignore[operator]
    assert state.time.horizon(()) > ms(32)  # type: ignore[operator]


def test_wrong_clocks_move_nothing() -> None:
    """Every tenth client lives a year ahead; one row in seven comes from another century."""
    spoilt = []
    for number in range(34):
        rows = hour(number, score=1.0 if number >= AT else 0.0)
        wrong = rows.client % 10 == 0
        spoilt.append(rows._replace(time_ms=np.where(wrong, rows.time_ms + 365 * 24 * HOUR_MS, rows.time_ms)))
    said = told(in_turn([[f for f in log] for log in logs(spoilt)]))
    assert "score" in {body["statistic"] for body in bodies(said.events)}
    assert all(event.time_ms < ms(40) for event in said.events)


def test_after_a_long_silence_windows_go_on_where_rows_are() -> None:
    early = [hour(number) for number in range(30)]
    late = [
        rows._replace(time_ms=rows.time_ms + 400 * 24 * HOUR_MS) for rows in (hour(number) for number in range(30, 60))
    ]
    state = drift.DriftFold(settings())
    count = 0
    for frame in in_turn(logs([*early, *late])):
        state.step([frame])
        count += close_due(state).windows
    assert 55 < count < 65


def test_other_artefacts_windows_and_layouts() -> None:
    state = drift.DriftFold(settings())
    for frame in in_turn(LOGS)[:100]:
        state.step([frame])
        close_due(state)
    stored = state.dump()
    other = loaded(replace(settings(), artefact_hash="0" * 16), stored)
    assert other.open == {} and other.spaces[SPACE].memory.monitors["score"].history
    assert loaded(replace(settings(), artefacts={}), stored).spaces == {}
    longer = Config.model_validate({"drift": {"window_s": 7_200}})
    assert loaded(settings(longer), stored).spaces == {}
    for value in (b"", stored[10:], b"other" + stored):
        with pytest.raises(StateError):
            loaded(settings(), value)


# judge


def shift(offset: int, until: int, value: int) -> ShiftFrame:
    space = next(iter(engine_cases.settings().spaces.values())).artefact
    return ShiftFrame(0, offset, space.model, space.space, until - 1, until, 300, (value,) * space.encoder.dim)


def test_judge_keeps_the_newest_shift_of_each_block_and_space() -> None:
    state = engine.open_partition(engine_cases.settings(), 0)
    assert engine.step(state, shift(3, 100, 7)) == []
    engine.step(state, shift(4, 90, 8))
    assert set(state.shift.values()) == {(100, (7,) * len(shift(0, 1, 1).vector))}
    assert len(state.shift) == len(state.block_offset) == len(state.dirty)
    other = engine.open_partition(engine_cases.settings(), 0)
    for block in range(0, 8, 2):
        engine.load_block(other, engine.dump_block(state, block))
    assert {block for block, _ in other.shift} == {0, 2, 4, 6}
    engine.step(other, shift(3, 100, 9))  # below the mark of the loaded ones
    assert [other.shift[(block, shift(0, 1, 1).space)][1][0] for block in range(8)] == [7, 9] * 4


def test_judge_ignores_orders_and_shifts_that_it_does_not_know() -> None:
    state = engine.open_partition(engine_cases.settings(), 0)
    assert engine.step(state, replace(shift(0, 5, 1), space="other@0")) == []
    assert engine.step(state, replace(shift(1, 5, 1), vector=(1,))) == []
    assert engine.step(state, ControlFrame(0, 2, "dance", 5, "k1-x", "", 7, "")) == []
    assert (state.shift, state.allowed, state.dirty) == ({}, {}, set())
    assert set(state.block_offset.tolist()) == {3}


def test_partitions_are_what_the_cases_say() -> None:
    assert len(LOGS) == PARTITIONS and all(len(log) > 60 for log in LOGS) and CONFIG.drift.window_s * 1_000 == HOUR_MS


# Documents

ROOT = Path(__file__).parents[1]
SAMPLE = drift_records.DriftFinding(
    model="loan", space=SPACE, statistic="score", test="page_hinkley", since_ms=1_700_000_400_000,
    until_ms=1_700_024_400_000, before=0.412, after=0.371, deviation=-4.2, p_or_threshold=20.0, rows=3_120,
    lasting=True, config_hash="c0ffee00c0ffee00", artefact_hash="facade00facade00",
)  # fmt: skip


def test_the_sample_and_the_fields_in_the_documents_are_those_of_the_code() -> None:
    page = (ROOT / "docs/formats/drift.md").read_text()
    start = page.index("```json") + len("```json")
    assert json.loads(page[start : page.index("```", start)]) == json.loads(drift_records.events(SAMPLE)[0].value)
    assert not [name for name in drift_records.DriftRecord.__struct_fields__ if f"`{name}`" not in page]
    assert not [name for name in drift_records.MEANINGS if f"`{name}`" not in page]
    shift = frames.encode_control(EXPECTED.shifts[0])
    assert not [name for name in json.loads(shift) if f'"{name}"' not in (ROOT / "docs/formats/frames.md").read_text()]


def test_every_record_follows_the_schema() -> None:
    schema = Draft202012Validator(json.loads((ROOT / "docs/formats/drift.schema.json").read_text()))
    assert all(not list(schema.iter_errors(body)) for body in bodies(EXPECTED.events))
    assert list(schema.iter_errors(bodies(EXPECTED.events)[0] | {"direction": "north"}))


def test_a_shift_reads_back_and_a_forged_one_is_no_frame() -> None:
    sent = EXPECTED.shifts[-1]
    value = frames.encode_control(sent)
    assert frames.decode(value, 2, 7) == replace(sent, partition=2, offset=7)
    for old, new in ((b"[", b"[7e30,"), (b"[", b"[99999999999,"), (b"vector", b"v")):
        with pytest.raises(frames.FrameError):
            frames.decode(value.replace(old, new), 2, 7)
