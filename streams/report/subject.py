"""A story as figures see it."""

from typing import NamedTuple

import numpy as np

from detector.events.finding import LEVELS
from detector.trace.trace import Trace
from models.artefacts.store import ModelArtefact
from models.kernels.numbers import NEVER
from models.rows import F64
from streams.replay.summary import InputSample
from streams.report import plots

POINTS = 300
CUT = 2.5
FLOOR = -5.0
"""Tail lengths; evidence far below what is ordinary says nothing."""


class TracedClient(NamedTuple):
    """A story with what is needed to draw it. id : of the incident. sample : of inputs of its space, None for none."""

    id: str
    story: Trace
    artefact: ModelArtefact
    sample: InputSample | None


def decided(story: Trace) -> list[int]:
    return [fallen.at for fallen in story.findings if fallen.at >= 0]


def shown(story: Trace) -> list[int]:
    return plots.some(range(story.rows.count), POINTS, decided(story))


def scores(story: Trace) -> F64:
    """(n,) tail lengths; NaN where nothing is known yet."""
    return np.where(story.statistic <= NEVER, np.nan, story.statistic / 1000)


def rungs(story: Trace) -> dict[str, float]:
    return {LEVELS[level]: story.thresholds[level] / 1000 for level in range(1, len(LEVELS))}


def top_of(story: Trace) -> float:
    """Where a figure ends: little above what was reached, but not so far above the rungs that they run together."""
    highest, thresholds = most_of(story), rungs(story)
    reached = highest if np.isfinite(highest) else 0.0
    return min(max(reached, thresholds[LEVELS[1]]), CUT * max(thresholds.values())) + 1.0


def most_of(story: Trace) -> float:
    reached = scores(story)
    return float(np.nanmax(reached)) if np.isfinite(reached).any() else float("nan")


def flips_of(story: Trace) -> list[int]:
    output = story.rows.output
    known = (output[1:] != 0) & (output[:-1] != 0)
    return (np.flatnonzero((output[1:] != output[:-1]) & known) + 1).tolist()


def text(number: float) -> str:
    return f"{number:.2f}" if np.isfinite(number) else "-"


def times(number: int) -> str:
    return "once" if number == 1 else f"{number:,} times"
