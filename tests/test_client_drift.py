"""Drift of clients: who moves is told of once a day, who stays or moves with everybody is not."""

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from detector import engine
from detector.calibrate import fit
from detector.calibrate.client_days import DailyMaxima, select
from detector.calibrate.fit import UNBOUNDED, daily_maxima, fit_reference, is_fitting, with_drift_limits
from detector.events.finding import Event
from detector.frame import Frame, RowFrame, ShiftFrame
from models.artefacts.population import fit_population
from models.artefacts.store import Artefacts, ModelArtefact
from models.encoders.table import TabularEncoder, fit_table
from models.rows import F64, I64, UNIT, Rows, blank_rows
from streams.config.config import Config

CONFIG = Config.model_validate({"state": {"blocks": 4}})
SEED = bytes(range(32))
DIM = 6
BEGIN_MS = 1_735_776_000_000
DAY_MS, TEN_MINUTES_MS = 86_400_000, 600_000
SOURCE = 7
ROOT = Path(__file__).parents[1]
SCHEMA = Draft202012Validator(json.loads((ROOT / "docs/formats/drift.schema.json").read_text()))


class Crowd(NamedTuple):
    """Clients in turn, a row each every ten minutes. values : (rows a client, clients, d), standard units."""

    keys: Any
    values: F64

    def rows(self, start: int = 0, stop: int | None = None) -> Rows:
        """Of these rounds."""
        part = self.values[start:stop]
        rounds, clients, _ = part.shape
        n = rounds * clients
        number = np.arange(n) + start * clients
        rng = np.random.default_rng(start)
        return blank_rows(
            n, DIM, DIM,
            source=np.full(n, SOURCE, np.uint32), offset=number, client=np.tile(self.keys, rounds),
            time_ms=BEGIN_MS + number // clients * TEN_MINUTES_MS,
            exact=rng.integers(1, 2**63, n).astype(np.uint64),
            values=np.rint(part * UNIT).astype(np.int16).reshape(n, DIM),
            fields=rng.integers(0, 2**16, (n, DIM)).astype(np.uint16), surprisal=np.full((n, DIM), 30, np.uint8),
        )  # fmt: skip


def crowd(clients: int, rounds: int, seed: int) -> Crowd:
    """Each scatters around a place of its own, and stays there."""
    rng = np.random.default_rng(seed)
    own = rng.normal(0, 0.8, (clients, DIM))
    return Crowd(rng.integers(0, 2**63, clients).astype(np.uint64), own + rng.normal(0, 0.6, (rounds, clients, DIM)))


@cache
def settings() -> engine.EngineSettings:
    """Fitted on 400 clients; nobody is throttled, whatever happens."""
    rng = np.random.default_rng(0)
    inputs = [{f"f{i}": float(x) for i, x in enumerate(row)} for row in rng.normal(0, 1, (500, DIM))]
    encoder = TabularEncoder(fit_table(inputs), SEED)
    rows = crowd(400, 200, seed=1).rows()
    reference = fit_reference(encoder, None, [rows])
    certifying = select(rows, ~is_fitting(rows.client))
    reference = with_drift_limits(reference, daily_maxima(encoder, None, reference, [certifying]))
    population = fit_population(rows.values[::10], encoder.id)
    model = ModelArtefact("loan", encoder, reference, None, {}, population, "c" * 16)
    return engine.EngineSettings(CONFIG, Artefacts("facade00facade00", {"loan": model}))


def frames(people: Crowd, shifts: dict[int, float] | None = None, length: int = 7) -> list[Frame]:
    """The log. shifts : round -> how far `link` then says that the population stands, standard units, every way."""
    model = settings().artefacts.models["loan"]
    cuts = sorted({*range(0, len(people.values), length), *(shifts or {})})
    log: list[Frame] = []
    for start, stop in zip(cuts, [*cuts[1:], len(people.values)], strict=True):
        if shifts and start in shifts:
            until_ms = BEGIN_MS + start * TEN_MINUTES_MS
            vector = (round(shifts[start] * UNIT),) * DIM
            log.append(ShiftFrame(0, len(log), "loan", model.space, until_ms - 1, until_ms, 300, vector))
        log.append(RowFrame(0, len(log), "loan", model.space, "raw[0]", "k1", people.rows(start, stop)))
    return log


def told(log: list[Frame]) -> list[Event]:
    state = engine.open_partition(settings(), 0)
    return [event for frame in log for event in engine.step(state, frame)]


def body(event: Event) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(event.value)
    assert not list(SCHEMA.iter_errors(found))
    return found


def moved(people: Crowd, at: int, by: float, clients: slice = slice(None)) -> Crowd:
    values = people.values.copy()
    values[at:, clients] += by
    return people._replace(values=values)


def test_clients_that_stay_where_they_are_are_silent() -> None:
    """300 clients over two days; at one record in a thousand client-days."""
    assert len(told(frames(crowd(300, 200, seed=2), length=50))) <= 2


def test_who_moves_is_told_of_and_nobody_else() -> None:
    people = moved(crowd(40, 140, seed=3), 80, 1.5, slice(0, 1))
    log = frames(people)
    events = told(log)
    assert {event.client_key for event in events} == {int(people.keys[0])}
    assert [event.kind for event in events] == ["drift"], "one day, one record; no alert, no throttle"
    said = body(events[0])
    assert (said["statistic"], said["test"], said["state"], said["model"]) == (
        "client_inputs", "averages", "begins", "loan",
    )  # fmt: skip
    assert said["client"].startswith("k1-") and events[0].key.decode() == f"loan:client_inputs:{said['client']}"
    assert said["p_or_threshold"] <= said["magnitude"] < 1.5
    assert 80 <= said["trigger"]["rows_seen"] - 1 < 92 and said["trigger"]["rows_seen"] == said["rows"] + 15
    assert said["since"] == "2025-01-02T02:30:00Z" and said["until"] == f"{_time(said['trigger']['rows_seen'] - 1)}Z"
    assert (said["certified"], said["certificate"]) == (False, "c" * 16)
    assert told(log) == events == told(frames(people, length=33))


def _time(round_: int) -> str:
    return str(np.datetime64(BEGIN_MS + round_ * TEN_MINUTES_MS, "ms").astype("datetime64[s]"))


@pytest.mark.parametrize(("begin", "by", "direction"), [(0.0, 2.0, "away"), (2.5, -2.5, "towards")])
def test_direction_is_that_of_the_populations_centre(begin: float, by: float, direction: str) -> None:
    people = crowd(1, 120, seed=4)
    people = Crowd(people.keys, people.values - people.values.mean(axis=0) + begin)
    said = body(told(frames(moved(people, 80, by)))[0])
    assert said["direction"] == direction
    assert (said["after"] > said["before"]) == (direction == "away")


def test_a_client_that_keeps_moving_is_told_of_once_a_day() -> None:
    people = crowd(1, 3 * 144, seed=5)
    people.values[60:] += 0.03 * np.arange(3 * 144 - 60)[:, None, None]
    days = [event.time_ms // DAY_MS for event in told(frames(people))]
    assert days == sorted(set(days)) and len(days) == 3


def test_repeats_and_few_rows_say_nothing() -> None:
    """15 rows before the page, 31 on it."""
    assert told(frames(moved(crowd(20, 46, seed=6), 30, 8.0))) == []
    assert len(told(frames(moved(crowd(20, 47, seed=6), 30, 8.0)))) == 20


def test_who_moves_with_everybody_has_not_moved() -> None:
    people = crowd(40, 140, seed=7)
    steps = {10: 0.0} | {60 + 4 * k: 0.1 * (k + 1) for k in range(15)}
    for at in sorted(steps)[1:]:
        people.values[at:] += 0.1
    assert told(frames(people, steps)) == []
    assert len(told(frames(people))) > 30, "unknown, the same movement is told of nearly everybody"
    assert {event.client_key for event in told(frames(moved(people, 100, 1.5, slice(0, 1)), steps))} == {
        int(people.keys[0])
    }


def test_where_the_population_stood_before_link_spoke_is_no_movement() -> None:
    """`link` starts late, or falls silent for weeks: only what it sees move counts."""
    people = crowd(40, 140, seed=8)
    assert told(frames(people, {70: 1.5})) == []
    late = {70: 0.0, 80: 1.5}
    assert len(told(frames(people, late))) > 30
    log = frames(people, late)
    silent = [
        frame if not isinstance(frame, ShiftFrame) or frame.vector[0] == 0
        else ShiftFrame(*frame_head(frame), frame.until_ms + 8 * DAY_MS, 300, frame.vector) for frame in log
    ]  # fmt: skip
    assert told(silent) == []


def frame_head(frame: ShiftFrame) -> tuple[int, int, str, str, int]:
    return frame.partition, frame.offset, frame.model, frame.space, frame.since_ms


def test_averages_and_the_populations_movement_survive_restarts() -> None:
    people = moved(crowd(12, 140, seed=9), 80, 1.5, slice(0, 3))
    log = frames(people, {10: 0.0, 50: 0.3, 75: 0.6, 90: 0.5})
    state, events = engine.open_partition(settings(), 0), []
    for place, frame in enumerate(log):
        events += engine.step(state, frame)
        if place % 3 == 0:
            blocks = [engine.dump_block(state, block) for block in range(4)]
            state = engine.open_partition(settings(), 0)
            for block in blocks:
                engine.load_block(state, block)
            events += [event for again in log[: place + 1][-2:] for event in engine.step(state, again)]
    assert events == told(log) != []


def test_a_forged_shift_moves_nothing_out_of_its_bounds() -> None:
    people, far = crowd(4, 60, seed=10), 1_000_000.0
    state = engine.open_partition(settings(), 0)
    for frame in frames(people, {5: 0.0, 20: far, 30: -far, 40: far}):
        engine.step(state, frame)
    (table,) = state.tables.values()
    assert np.abs(table.table.averages.astype(np.int64)).max() < 1 << 24
    assert np.abs(table.table.moved).max() == 1 << 22


# Documents


def test_the_sample_in_the_documents_is_what_is_written() -> None:
    (event,) = told(frames(moved(crowd(3, 120, seed=11), 80, 1.5, slice(0, 1))))
    page = (ROOT / "docs/formats/drift.md").read_text()
    sample = json.loads(page[page.rindex("```json") + len("```json") : page.rindex("```")])
    written = body(event)
    assert list(sample) == list(written) and sample == written
    assert list(SCHEMA.iter_errors({name: value for name, value in written.items() if name != "client"}))


# Limits


def days(drift: I64, client_class: int = 0) -> DailyMaxima:
    n = len(drift)
    nothing = np.zeros(n, np.int64)
    return DailyMaxima(
        np.arange(n).astype(np.uint64), np.full(n, client_class), nothing, nothing, nothing, nothing,
        nothing.astype(float),
        nothing.astype(np.uint64), drift,
    )  # fmt: skip


def test_limits_are_order_statistics_of_certifying_clients_where_there_are_enough() -> None:
    reference = settings().artefacts.models["loan"].reference
    enough, short = np.arange(1, 1_000), np.arange(1, 999)
    found = with_drift_limits(reference, days(np.random.default_rng(1).permutation(enough)))
    assert (found.drift[0], found.drift_certified.tolist()) == (1_000, [True, False, False])
    found = with_drift_limits(reference, days(np.r_[short, np.full(500, -1)]))
    assert (found.drift[0], found.drift_certified.any()) == (reference.drift[0], False)


def test_a_client_certifies_with_its_last_day() -> None:
    reference = settings().artefacts.models["loan"].reference
    history = days(np.full(2_000, 5))
    early, late = history._replace(drift=np.full(2_000, 9)), history._replace(day=history.day + 1)
    both = DailyMaxima._make(np.concatenate(pair) for pair in zip(early, late, strict=True))
    order = np.lexsort((both.day, both.client))
    found = with_drift_limits(reference, DailyMaxima._make(column[order] for column in both))
    assert found.drift[0] == 6


def test_a_class_that_nobody_knows_is_never_told_of() -> None:
    reference = settings().artefacts.models["loan"].reference
    assert reference.drift[1:].tolist() == [UNBOUNDED] * 2 and reference.drift[0] < UNBOUNDED
    assert reference.drift.dtype == np.int64 and fit.DRIFT_DAYS_MIN == 50
