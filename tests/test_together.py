"""Frames folded many at a time say and leave behind what they do one by one."""

from dataclasses import replace
from functools import cache
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector import engine, engine_batch
from detector.drift import fold as drift
from detector.events.finding import Event
from detector.frame import Frame, RowFrame, ShiftFrame
from tests import engine_cases as cases
from tests.engine_cases import PARTITION, said
from tests.test_fold_properties import few, log

SECOND = "second"


@cache
def settings() -> engine.EngineSettings:
    """Two spaces: the history's model, and the same one under another name."""
    fitted = cases.settings().artefacts
    (model,) = fitted.models.values()
    other = replace(model, model=SECOND)
    return engine.EngineSettings(cases.CONFIG, replace(fitted, models={model.model: model, SECOND: other}))


def doubled(frame: Frame) -> list[Frame]:
    """Rows and shifts of both spaces; now and then of one that nobody knows."""
    _, other = settings().artefacts.models.values()
    if not isinstance(frame, RowFrame | ShiftFrame):
        return [frame]
    strange = [replace(frame, space="nobody's")] if frame.offset % 7 == 0 and isinstance(frame, RowFrame) else []
    return [frame, replace(frame, model=other.model, space=other.space), *strange]


@cache
def mixed() -> tuple[Frame, ...]:
    """The history twice, in both spaces, with orders and shifts, and frames without rows in between."""
    frames = list(chain.from_iterable(map(doubled, log())))
    empty = next(frame for frame in frames if isinstance(frame, RowFrame))
    frames.insert(40, replace(empty, rows=empty.rows._make(column[:0] for column in empty.rows)._replace(
        id_offsets=np.zeros(1, np.int32))))  # fmt: skip
    return tuple(replace(frame, offset=3 * place) for place, frame in enumerate(frames))


def left(state: engine.PartitionState) -> tuple[list[bytes], list[int]]:
    blocks = [engine.dump_block(state, block) for block in range(len(state.block_offset))]
    return blocks, [state.clients, state.skipped, state.evicted, state.unjudged]


@cache
def one_by_one() -> tuple[cases.Said, list[bytes], list[int]]:
    state = engine.open_partition(settings(), PARTITION)
    events = [event for frame in mixed() for event in engine.step(state, frame)]
    return said(events), *left(state)


@few
@given(st.lists(st.integers(1, 200), max_size=12), st.sampled_from([20, 100, 8_192]))
def test_any_number_at_a_time(sizes: list[int], walked: int) -> None:
    state = engine.open_partition(settings(), PARTITION)
    events: list[Event] = []
    at = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_batch, "WALKED_ROWS", walked)
        for size in [*sizes, len(mixed())]:
            events += engine_batch.step(state, mixed()[at : at + size])
            at += size
    found, blocks, counts = one_by_one()
    assert len(found) > 20 and any(SECOND.encode() in whole for whole in found.values())
    assert said(events) == found
    assert left(state) == (blocks, counts)


@few
@given(st.lists(st.integers(0, 150), min_size=8, max_size=8))
def test_from_blocks_with_marks_anywhere(marks: list[int]) -> None:
    """As after a snapshot: each block has its own mark, and what lies below it comes again."""
    begun = engine.open_partition(settings(), PARTITION)
    resumed = engine.open_partition(settings(), PARTITION)
    events: list[Event] = []
    for place, frame in enumerate(mixed()):
        for block, mark in enumerate(marks):
            if mark == place:
                engine.load_block(resumed, engine.dump_block(begun, block))
        events += engine.step(begun, frame)
        if place == max(marks):
            break
    events += engine_batch.step(resumed, mixed()[min(marks) :])
    found, blocks, _ = one_by_one()
    assert said(events) == found
    assert left(resumed)[0] == blocks


@few
@given(st.lists(st.integers(1, 200), max_size=12), st.integers(0, 40))
def test_drift_of_models_too(sizes: list[int], wrong: int) -> None:
    """With a clock that is days ahead in one frame: whether its rows count depends on where frames are cut."""
    frames = [ahead(frame) if place % 41 == wrong else frame for place, frame in enumerate(mixed())]
    single, many = (drift.DriftFold(drift.Settings.of(cases.CONFIG, settings().artefacts)) for _ in range(2))
    for frame in frames:
        single.step([frame])
    at = 0
    for size in [*sizes, len(frames)]:
        many.step(frames[at : at + size])
        at += size
    assert single.open and many.dump() == single.dump()
    assert many.late == single.late


def ahead(frame: Frame) -> Frame:
    if not isinstance(frame, RowFrame):
        return frame
    times = frame.rows.time_ms.copy()
    times[len(times) // 2 :] += 3 * 86_400_000
    return replace(frame, rows=frame.rows._replace(time_ms=times))
