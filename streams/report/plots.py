"""What all figures share. A figure is data and layout for plotly.js, as plain values; the browser draws it."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.events.escape import printable
from detector.events.finding import LEVELS
from detector.trace.trace import Trace
from models.artefacts.store import ModelArtefact
from models.kernels.numbers import NEVER
from models.rows import F64
from streams.replay.summary import InputSample

Json = dict[str, Any]

LEVEL_COLOURS = ("#767676", "#0072B2", "#B97800", "#C04A00", "#7B1E7A")
"""None, watch, soft, hard, block: distinct for colour-blind readers, contrast on white at least 3:1."""
LEVEL_SYMBOLS = ("circle", "circle", "triangle-up", "diamond", "star")
LINE_COLOURS = ("#0072B2", "#C04A00", "#00775A", "#7B1E7A", "#8A6D00")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
"""Lines differ in colour and dash, for readers and printers without colours."""
GREY, INK = "#8C8C8C", "#1B1B1B"
TABLE_ROWS = 24
POINTS = 300
CUT = 2.5
FLOOR = -5.0
"""Tail lengths; evidence far below the ordinary range carries no information."""


class ReportTable(NamedTuple):
    """The numbers of a figure."""

    headers: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


class PlotFigure(NamedTuple):
    """caption : the finding, as a title. how : what is drawn, for screen readers. wide : takes the full width."""

    id: str
    caption: str
    how: str
    data: list[Json]
    layout: Json
    table: ReportTable
    wide: bool = False


def plain(text: str) -> str:
    """Text from a log, escaped for plotly, which reads `<` as markup."""
    return printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def layout(x: Json, y: Json, height: int = 340, **more: Any) -> Json:
    """x, y : axes; their titles name quantity and unit."""
    axis = {"automargin": True, "gridcolor": "#E4E4E4", "zerolinecolor": "#BDBDBD", "linecolor": "#767676"}
    return {
        "height": height,
        "margin": {"l": 40, "r": 16, "t": 8, "b": 40},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": "#FFFFFF",
        "plot_bgcolor": "#FFFFFF",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left", "font": {"size": 12}},
        "hovermode": "closest",
        "xaxis": axis | x,
        "yaxis": axis | y,
        **more,
    }


def axis(title: str, **more: Any) -> Json:
    return {"title": {"text": title, "standoff": 8, "font": {"size": 13}}, **more}


def line(name: str, x: Sequence[Any], y: Sequence[Any], number: int, **more: Any) -> Json:
    style = {"color": LINE_COLOURS[number % len(LINE_COLOURS)], "dash": DASHES[number % len(DASHES)], "width": 2}
    return {"type": "scatter", "mode": "lines", "name": plain(name), "x": x, "y": y, "line": style, **more}


def markers(name: str, x: Sequence[Any], y: Sequence[Any], colour: str, symbol: str, **more: Any) -> Json:
    style = {"color": colour, "symbol": symbol, "size": 8, "line": {"color": "#FFFFFF", "width": 1}}
    style |= more.pop("marker", {})
    return {"type": "scatter", "mode": "markers", "name": plain(name), "x": x, "y": y, "marker": style, **more}


def across(height: float, name: str, colour: str) -> tuple[Json, Json]:
    """A dashed line at a height, and its name at the right edge."""
    style = {"color": colour, "width": 1.5, "dash": "dash"}
    shape = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": height, "y1": height, "line": style}
    words = {"text": name, "showarrow": False, "font": {"color": colour, "size": 12}, "xref": "paper", "x": 1}
    return shape, words | {"xanchor": "right", "y": height, "yanchor": "bottom"}


def threshold_lines(thresholds: dict[str, float], until: float) -> tuple[list[Json], list[Json]]:
    """Lines at the thresholds of levels up to a height, and their names."""
    drawn = [
        across(thresholds[name], name, LEVEL_COLOURS[level])
        for level, name in enumerate(LEVELS[1:], 1)
        if thresholds[name] <= until
    ]
    return [shape for shape, _ in drawn], [words for _, words in drawn]


def rounded(numbers: NDArray[Any], digits: int = 3) -> list[float | None]:
    """For JSON: None for what is not finite."""
    return [None if not np.isfinite(number) else round(float(number), digits) for number in numbers]


def clock(moment: datetime) -> str:
    """As plotly takes times, to the millisecond, UTC."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}"


def some(rows: Sequence[int], most: int, always: Iterable[int] = ()) -> list[int]:
    """At most `most` of the rows, evenly spaced, with the first, the last and those in `always`."""
    if len(rows) <= most:
        return list(rows)
    even = {rows[round(at)] for at in np.linspace(0, len(rows) - 1, most)}
    return sorted(even | set(always))


class TracedClient(NamedTuple):
    """id : of the incident. sample : of inputs of its space."""

    id: str
    trace: Trace
    artefact: ModelArtefact
    sample: InputSample | None


def decided(trace: Trace) -> list[int]:
    return [one.at for one in trace.findings if one.at >= 0]


def shown(trace: Trace) -> list[int]:
    return some(range(trace.rows.count), POINTS, decided(trace))


def scores(trace: Trace) -> F64:
    """(n,) tail lengths; NaN before the first evidence."""
    return np.where(trace.statistic <= NEVER, np.nan, trace.statistic / 1000)


def thresholds_of(trace: Trace) -> dict[str, float]:
    return {LEVELS[level]: trace.thresholds[level] / 1000 for level in range(1, len(LEVELS))}


def top_of(trace: Trace) -> float:
    """Upper end of the axis: just above the maximum, but not so far above the thresholds that their lines merge."""
    highest, thresholds = highest_score(trace), thresholds_of(trace)
    reached = highest if np.isfinite(highest) else 0.0
    return min(max(reached, thresholds[LEVELS[1]]), CUT * max(thresholds.values())) + 1.0


def highest_score(trace: Trace) -> float:
    reached = scores(trace)
    return float(np.nanmax(reached)) if np.isfinite(reached).any() else float("nan")


def flips_of(trace: Trace) -> list[int]:
    output = trace.rows.output
    known = (output[1:] != 0) & (output[:-1] != 0)
    return (np.flatnonzero((output[1:] != output[:-1]) & known) + 1).tolist()


def text(number: float) -> str:
    return f"{number:.2f}" if np.isfinite(number) else "-"


def times(number: int) -> str:
    return "once" if number == 1 else f"{number:,} times"
