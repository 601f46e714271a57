"""Figures as plotly.js takes them: what all of them share. Data and layout are plain values; nothing is drawn here."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.events.escape import printable
from detector.events.finding import LEVELS

Json = dict[str, Any]

LEVEL_COLOURS = ("#767676", "#0072B2", "#B97800", "#C04A00", "#7B1E7A")
"""None, watch, soft, hard, block: told apart by the colour-blind too, and dark enough on white (3:1 at least)."""
LEVEL_SYMBOLS = ("circle", "circle", "triangle-up", "diamond", "star")
LINE_COLOURS = ("#0072B2", "#C04A00", "#00775A", "#7B1E7A", "#8A6D00")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
"""Lines differ in both, for whoever sees no colours, or prints without."""
GREY, INK = "#8C8C8C", "#1B1B1B"
TABLE_ROWS = 24


class ReportTable(NamedTuple):
    """The same figures to be read instead of seen."""

    headers: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


class PlotFigure(NamedTuple):
    """caption : a title that says what to see. how : what is drawn, for whoever does not see it. wide : a line of its
    own."""

    id: str
    caption: str
    how: str
    data: list[Json]
    layout: Json
    table: ReportTable
    wide: bool = False


def plain(text: str) -> str:
    """Text from a log in plotly, which takes `<` for markup."""
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


def rung_lines(thresholds: dict[str, float], until: float) -> tuple[list[Json], list[Json]]:
    """Lines at the thresholds of rungs up to a height, and their names."""
    drawn = [
        across(thresholds[rung], rung, LEVEL_COLOURS[level])
        for level, rung in enumerate(LEVELS[1:], 1)
        if thresholds[rung] <= until
    ]
    return [shape for shape, _ in drawn], [words for _, words in drawn]


def rounded(numbers: NDArray[Any], digits: int = 3) -> list[float | None]:
    """For JSON: None for what is not finite."""
    return [None if not np.isfinite(number) else round(float(number), digits) for number in numbers]


def clock(moment: datetime) -> str:
    """As plotly takes times, to the millisecond, UTC."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}"


def some(rows: Sequence[int], most: int, always: Iterable[int] = ()) -> list[int]:
    """At most so many of some places, evenly, with the first and last and those that must be there."""
    if len(rows) <= most:
        return list(rows)
    even = {rows[round(place)] for place in np.linspace(0, len(rows) - 1, most)}
    return sorted(even | set(always))
