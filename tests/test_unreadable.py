"""Rows that `sketch` could not read, held against their sender: how many are nothing, how many are too many."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from detector import engine
from models.rows import FLAG_AHEAD, FLAG_UNJUDGED, FLAG_UNKNOWN_MODEL, FLAG_UNREADABLE
from tests import engine_cases as cases
from tests.scenarios import world

HIDDEN = (FLAG_UNREADABLE, FLAG_AHEAD, FLAG_UNJUDGED, FLAG_UNJUDGED | FLAG_UNKNOWN_MODEL)


def rows_of(flags: Sequence[int]) -> list[cases.Unit]:
    """One client's rows, one input an hour apart, with these flags."""
    (line, *_) = world.benign(1, seed=77)
    units = cases.units([line | {"ts": world.BEGIN_S + 3_600 * n} for n in range(len(flags))])
    return [flagged(unit, flag) for unit, flag in zip(units, flags, strict=True)]


def flagged(unit: cases.Unit, flag: int) -> cases.Unit:
    rows = unit.frame.rows
    flags = rows.flags.copy()
    flags[unit.row] |= flag
    return cases.Unit(replace(unit.frame, rows=rows._replace(flags=flags)), unit.row)


def decided(units: list[cases.Unit]) -> list[dict[str, Any]]:
    state = engine.open_partition(cases.settings(), cases.PARTITION)
    events = [event for frame in cases.cut(units) for event in engine.step(state, frame)]
    return [json.loads(event.value) for event in events if event.kind == "throttle"]


@pytest.mark.parametrize("flag", HIDDEN)
def test_a_run_of_them_is_limited(flag: int) -> None:
    found = decided(rows_of([flag] * 40))
    assert {one["reason"] for one in found} == {"unreadable"}
    first = {one["level"]: one["trigger"]["rows_seen"] for one in reversed(found)}
    assert 4 <= first[2] <= 15, first
    assert max(first) >= 3


@pytest.mark.parametrize("flag", HIDDEN)
def test_one_bad_row_means_nothing_and_one_in_ten_neither(flag: int) -> None:
    assert decided(rows_of([flag])) == []
    assert decided(rows_of(([0] * 9 + [flag]) * 4)) == []


def test_a_row_without_an_input_is_an_input_to_nothing() -> None:
    """It ticks the clock and is counted; its values, which are zeros, are nobody's variant."""
    units = rows_of([0, FLAG_UNJUDGED, 0])
    rows = units[1].frame.rows
    zeros = {name: np.zeros_like(getattr(rows, name)) for name in ("values", "fields", "surprisal")}
    units[1] = cases.Unit(replace(units[1].frame, rows=rows._replace(**zeros)), units[1].row)
    state = engine.open_partition(cases.settings(), cases.PARTITION)
    for frame in cases.cut(units):
        engine.step(state, frame)
    (table,) = state.tables.values()
    client = table.table.clients[table.find(units[0].client)]
    assert (client["rows"], client["distinct"], client["ring_next"], client["anchor_count"]) == (3, 1, 1, 0)
    assert client["repeats"] == 1
    assert client["unjudged_rows"] == 1
