"""Frames of one model over hours, in three partitions and from two raw ones, with whatever changes on the way."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np

from detector.drift import fold as drift
from detector.events.finding import Event
from detector.frame import Frame, RowFrame, ShiftFrame, label
from detector.link_fold import Closed, LinkFold
from models.artefacts.population import Population, fit_population
from models.reorder import joined
from models.rows import FLAG_REFUSED, UNIT, Rows, blank_rows
from streams.config.config import Config

SPACE = "loan@0123456789abcdef"
PARTITIONS = 3
CONFIG = Config.model_validate(
    {"drift": {"baseline_windows": 12, "min_rows": 50, "alert_windows": 4}, "topics": {"partitions": PARTITIONS}}
)
SOURCES = 2
CLIENTS = 90
DIM = 6
BEGIN_MS = 1_735_776_000_000
HOUR_MS = 3_600_000


class Encoder(NamedTuple):
    dim: int = DIM


ENCODER = Encoder()


@dataclass(frozen=True)
class Model:
    """What drift needs of an artefact."""

    population: Population | None
    model: str = "loan"
    space: str = SPACE
    encoder: Encoder = ENCODER


@cache
def population() -> Population:
    values = np.rint(np.random.default_rng(0).normal(0, UNIT, (4_000, DIM))).astype(np.int16)
    return fit_population(values, "cases")


def settings(config: Config = CONFIG) -> drift.Settings:
    return drift.Settings(config, "facade00facade00", {SPACE: Model(population())})  # type: ignore[dict-item]


def hour(number: int, rows_an_hour: int = 240, score: float = 0.0, app: float = 0.0, refused: float = 0.02) -> Rows:
    """Rows of an hour in order of time. score : shift in deviations. app : share of clients with other inputs."""
    rng = np.random.default_rng(number)
    n = rows_an_hour
    client = rng.integers(0, CLIENTS, n)
    values = rng.normal(0.0, 1.0, (n, DIM))
    values[client < app * CLIENTS] += 1.5
    scores = (0.5 + 0.1 * (values[:, 0] + score)).astype(np.float32)
    return blank_rows(
        n, DIM, 0,
        offset=np.arange(n) + number * 100_000,
        client=np.random.default_rng(99).integers(0, 2**63, CLIENTS)[client].astype(np.uint64),
        time_ms=np.sort(BEGIN_MS + number * HOUR_MS + rng.integers(0, HOUR_MS, n)),
        values=np.rint(values * UNIT).astype(np.int16), score=scores, margin=np.abs(scores - 0.5),
        novelty=np.abs(values[:, 1]).astype(np.float32),
        flags=(FLAG_REFUSED * (rng.random(n) < refused)).astype(np.uint16),
    )  # fmt: skip


def take(rows: Rows, chosen: np.ndarray) -> Rows:
    columns = {name: column[chosen] for name, column in rows._asdict().items() if not name.startswith("id_")}
    return rows._replace(id_offsets=np.zeros(int(np.count_nonzero(chosen)) + 1, np.int32), **columns)


def logs(hours: Iterable[Rows]) -> list[list[RowFrame]]:
    """The log of each partition of `requests`: for each hour one frame from each raw partition."""
    found: list[list[RowFrame]] = [[] for _ in range(PARTITIONS)]
    for rows in hours:
        for source in range(SOURCES):
            for partition, log in enumerate(found):
                chosen = (rows.client % PARTITIONS == partition) & (rows.client // PARTITIONS % SOURCES == source)
                part = take(rows, chosen)._replace(source=np.full(int(chosen.sum()), source, np.uint32))
                log.append(RowFrame(partition, len(log), "loan", SPACE, f"raw[{source}]", "k1", part))
    return found


def together(parts: Sequence[Sequence[RowFrame]]) -> list[list[RowFrame]]:
    """The same logs with the frames of an hour's raw partitions in one."""
    found: list[list[RowFrame]] = []
    for log in parts:
        hours = [log[start : start + SOURCES] for start in range(0, len(log), SOURCES)]
        name = label({source: f"raw[{source}]" for source in range(SOURCES)})
        found.append(
            [
                replace(group[0], offset=offset, source_name=name, rows=joined([frame.rows for frame in group]))
                for offset, group in enumerate(hours)
            ]
        )
    return found


def mixed(parts: Sequence[Sequence[Frame]], seed: int) -> Iterator[tuple[Frame, set[int]]]:
    """Frames of all partitions, each in its order, and which partitions have more to come."""
    rng = np.random.default_rng(seed)
    left = {partition: list(log) for partition, log in enumerate(parts) if log}
    while left:
        partition = int(rng.choice(sorted(left)))
        for _ in range(int(rng.integers(1, 9))):
            if left[partition]:
                yield left[partition].pop(0), {number for number, log in left.items() if log}
        if not left[partition]:
            del left[partition]


def in_turn(parts: Sequence[Sequence[RowFrame]]) -> list[RowFrame]:
    """As they come live: hour by hour."""
    return sorted(
        (frame for log in parts for frame in log), key=lambda f: (int(f.rows.time_ms[0]) // HOUR_MS, f.offset)
    )


class Said(NamedTuple):
    events: list[Event]
    shifts: list[ShiftFrame]


def close_due(fold: LinkFold, behind: Collection[int] = ()) -> Closed:
    """Close what event time has passed, without a CloseFrame in the log."""
    until_ms = fold.due(behind)
    return Closed([], [], 0) if until_ms is None else fold.close(until_ms)


def loaded(settings: drift.Settings, stored: bytes) -> drift.DriftFold:
    fold = drift.DriftFold(settings)
    fold.load(stored)
    return fold


def told(frames: Iterable[Frame], config: Config = CONFIG) -> Said:
    state = drift.DriftFold(settings(config))
    said = Said([], [])
    for frame in frames:
        state.step([frame])
        closed = close_due(state)
        said.events.extend(closed.events)
        said.shifts.extend(frame for frame in closed.frames if isinstance(frame, ShiftFrame))
    return said


def changed(hours: int, at: int, make: Callable[[int], Rows]) -> list[Rows]:
    """Ordinary hours, from `at` on others."""
    return [hour(number) if number < at else make(number) for number in range(hours)]


def again_at(frame: RowFrame, offset: int) -> RowFrame:
    return replace(frame, offset=offset)
