"""The tracing fold: it sees what the plain fold does, and changes nothing of it."""

import random
from dataclasses import replace

import numpy as np
import pytest

from detector import engine
from detector.evidence import PROCESSES
from detector.frame import ControlFrame, Frame, RowFrame
from detector.trace import trace
from models.encoders.table import TabularEncoder, fit_table
from models.kernels.numbers import NEVER
from models.rows import UNIT
from tests import engine_cases as cases


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    """A history in frames of all sizes, with a lift and an allowance in the midst of it, and one frame sent twice."""
    log: list[Frame] = list(cases.cut(cases.history(), (1, 7, 64, 300)))
    attacker = _clients(_events(log))[0]
    middle = len(log) // 2
    for at, action in ((middle, "lift"), (middle + 20, "allow")):
        log.insert(at, ControlFrame(cases.PARTITION, 0, action, attacker, "k1-x", "", 2**42, "a test"))
    log.insert(middle + 3, log[middle + 2])
    return [replace(frame, offset=at) for at, frame in enumerate(log)]


def _events(log: list[Frame]) -> list[engine.Event]:
    state = engine.open_partition(cases.settings(), cases.PARTITION)
    return [event for frame in log for event in engine.step(state, frame)]


def _clients(events: list[engine.Event]) -> list[int]:
    return sorted({event.client_key for event in events})


def test_what_falls_is_byte_for_byte_what_the_plain_fold_says(frames: list[Frame]) -> None:
    """All clients at once, and a few of them without the others."""
    plain = _events(frames)
    everybody = sorted({int(key) for frame in frames if isinstance(frame, RowFrame) for key in frame.rows.client})
    assert len(_clients(plain)) > 5
    assert {event.kind for event in plain} == {"throttle", "alert", "drift"}
    assert any(b'"reason":"person"' in event.value for event in plain)
    for chosen in (everybody, _clients(plain)[:3]):
        stories = trace.follow(cases.settings(), frames, chosen)
        told = [event for one in stories.values() for event in one.events]
        expected = [event for event in plain if event.client_key in chosen]
        assert sorted(told, key=lambda e: e.id) == sorted(expected, key=lambda e: e.id)


def test_the_statistic_is_the_largest_excess_and_decisions_stand_where_it_crossed(frames: list[Frame]) -> None:
    stories = trace.follow(cases.settings(), frames, _clients(_events(frames)))
    decided = 0
    for one in stories.values():
        assert np.array_equal(np.maximum(one.excess.max(axis=1), NEVER), np.maximum(one.statistic, NEVER))
        assert one.rows_seen.tolist() == list(range(1, one.rows.count + 1))
        for fallen in one.findings:
            if fallen.finding.reason == "person":
                continue
            moment, trigger = one.moment(fallen.at), fallen.finding.trigger
            assert (moment.source, moment.offset, moment.index) == (
                trigger.source, trigger.offset, trigger.index
            )  # fmt: skip
            assert (moment.request_id, moment.rows_seen) == (trigger.request_id, trigger.rows_seen)
            assert moment.statistic == fallen.finding.excess_milli
            assert moment.evidence[fallen.finding.process] == fallen.finding.evidence_mnats
            assert one.thresholds[fallen.finding.decision.level] == fallen.finding.threshold_milli
            lead = int(one.excess[fallen.at].argmax())
            assert PROCESSES[lead].name == fallen.finding.process
            decided += 1
    assert decided > 10


def test_from_a_snapshot_on_the_rest_of_a_story_is_the_same(frames: list[Frame]) -> None:
    clients = _clients(_events(frames))
    whole = trace.follow(cases.settings(), frames, clients)
    half = len(frames) // 2
    state = engine.open_partition(cases.settings(), cases.PARTITION)
    for frame in frames[:half]:
        engine.step(state, frame)
    fresh = engine.open_partition(cases.settings(), cases.PARTITION)
    for block in range(cases.CONFIG.state.blocks):
        engine.load_block(fresh, engine.dump_block(state, block))
    rest = trace.follow(cases.settings(), frames[half:], clients, states={cases.PARTITION: fresh})
    assert rest
    for about, one in rest.items():
        n = one.rows.count
        assert np.array_equal(one.statistic, whole[about].statistic[-n:])
        assert np.array_equal(one.rows_seen, whole[about].rows_seen[-n:])
        assert np.array_equal(one.excess, whole[about].excess[-n:])


def test_the_nearest_earlier_row_is_the_one_that_differs_least(frames: list[Frame]) -> None:
    stories = trace.follow(cases.settings(), frames, _clients(_events(frames)))
    one = max(stories.values(), key=lambda story: len(story.field_names))
    for moment in one.moments[1:]:
        before = one.moments[max(0, moment.number - trace.NEAREST_AMONG) : moment.number]
        rows = one.rows
        changes = [int((rows.fields[other.number] != rows.fields[moment.number]).sum()) for other in before]
        assert moment.nearest is not None
        assert len(moment.changed) == min(changes)
        step = (rows.values[moment.nearest].astype(float) - rows.values[moment.number]) / UNIT
        assert moment.distance == pytest.approx(float(np.sqrt((step**2).sum())))


def test_standard_units_come_back_from_what_was_turned() -> None:
    """150 fields: three blocks of the rotation."""
    rng = random.Random(4)
    people = [{f"f{number:03}": round(rng.gauss(10, 3), 2) for number in range(150)} for _ in range(200)]
    encoder = TabularEncoder(fit_table(people), b"a seed" * 6)
    fit = encoder.fitted
    told = encoder.standard(encoder.encode(people).values)
    wanted = [[(who[n] - c) / s for n, c, s in zip(fit.names, fit.centre, fit.scale, strict=True)] for who in people]
    assert np.abs(np.clip(told, -4, 4) - np.clip(wanted, -4, 4)).max() < 0.002
