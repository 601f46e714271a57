"""Many frames at once, for replays: the events of `engine.step` frame after frame, without what each of them costs.

A frame costs the fold as much as eighty rows. Rows of one space may be walked together as long as no order or shift
comes between them: spaces share nothing but these.
"""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from detector import engine
from detector.events.finding import Event
from detector.frame import Frame, RowFrame

WALKED_ROWS = 8_192
"""About as many rows are walked at once: a processor's second cache holds them."""


def step(state: engine.PartitionState, frames: Iterable[Frame]) -> list[Event]:
    """What `engine.step` says of each, in another order: between two orders, space after space."""
    found: list[Event] = []
    waiting: list[RowFrame] = []
    count = 0
    for frame in frames:
        if isinstance(frame, RowFrame):
            waiting.append(frame)
            count += frame.rows.count
            if count < WALKED_ROWS:
                continue
        found += _walk(state, waiting)
        waiting, count = [], 0
        if not isinstance(frame, RowFrame):
            found += engine.step(state, frame)
    return found + _walk(state, waiting)


def _walk(state: engine.PartitionState, frames: list[RowFrame]) -> list[Event]:
    offsets = [frame.offset for frame in frames]
    rising = all(one < other for one, other in pairwise(offsets))
    if len(frames) < 2 or not rising or int(state.block_offset.max()) > offsets[0]:
        return [event for frame in frames for event in engine.step(state, frame)]  # a mark may lie between them
    spaces: dict[str, list[RowFrame]] = {}
    for frame in frames:
        if engine.is_known(state.settings, frame):
            spaces.setdefault(frame.space, []).append(frame)
        else:
            state.unjudged += frame.rows.count
    nothing_closed = np.zeros(len(state.block_offset), np.int64)
    found = [event for group in spaces.values() for event in engine.walk(state, group, nothing_closed)]
    np.maximum(state.block_offset, offsets[-1] + 1, out=state.block_offset)
    return found
