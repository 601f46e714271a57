"""Figures of the whole history: load and decisions over time, throttled clients, false alarms promised and seen."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from detector.events.finding import LEVELS
from detector.events.wording import about
from streams.analyst.events import ThrottleEvent
from streams.replay.summary import SLICE_MS, SpaceSummary
from streams.report import plots
from streams.report.enforcement import HeldSpan
from streams.report.plots import Json, PlotFigure, ReportTable, clock

BINS = 240
CLIENTS_SHOWN = 24
DECISIONS_DRAWN = 2_000
MINUTE_MS = 60_000
STEPS_S = (5, 10, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 14_400, 28_800, 86_400)
"""Widths of a bin, seconds."""

Alarms = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Class -> level -> promised, certified, expected, alarmed: `false_alarms` of a replay's summary."""


def timeline(spaces: Mapping[str, SpaceSummary], throttles: Sequence[ThrottleEvent]) -> PlotFigure:
    """Requests above, decisions by detector below, on one axis of time."""
    step, starts, busy = _bins(list(spaces.values()))
    width = _width(step)
    moments = [clock(datetime.fromtimestamp(start, UTC)) for start in starts]
    data: list[Json] = [
        {"type": "bar", "name": f"requests in {width}", "x": moments,
         "y": busy, "marker": {"color": "#9DB7C9"}, "width": step * 1_000, "offset": 0}
    ]  # fmt: skip
    decided = [one for one in throttles if one.level > 0]
    drawn = _thinned(decided)
    for level, name in enumerate(LEVELS[1:], 1):
        own = [one for one in drawn if one.level == level]
        if own:
            x, y = [clock(one.time) for one in own], [one.detector for one in own]
            marks = plots.markers(f"decision: {name}", x, y, plots.LEVEL_COLOURS[level], plots.LEVEL_SYMBOLS[level])
            data.append({**marks, "yaxis": "y2", "hovertemplate": f"%{{x}}<br>{name}: %{{y}}<extra></extra>"})
    drawing = plots.layout(
        plots.axis("time (UTC)", type="date"), plots.axis(f"requests in {width}", domain=[0.45, 1]), height=420
    )
    drawing["yaxis2"] = drawing["yaxis"] | plots.axis(
        "detector", domain=[0, 0.36], type="category", categoryorder="category descending"
    )
    drawing["xaxis"]["anchor"] = "y2"
    return PlotFigure(
        id="timeline",
        caption=_timeline_caption(decided, busy, width),
        how=f"Requests over time as bars; below them {_which(drawn, decided)} as a mark in the line of its detector.",
        data=data,
        layout=drawing,
        table=_by_detector(decided),
    )


def _thinned(decided: Sequence[ThrottleEvent]) -> list[ThrottleEvent]:
    """At most DECISIONS_DRAWN, the strictest level first; of a level with too many, evenly spaced ones."""
    drawn: list[ThrottleEvent] = []
    for level in reversed(range(1, len(LEVELS))):
        own, room = [one for one in decided if one.level == level], DECISIONS_DRAWN - len(drawn)
        if own and room:
            drawn += own[:: -(-len(own) // room)]
    return drawn


def _which(drawn: Sequence[ThrottleEvent], decided: Sequence[ThrottleEvent]) -> str:
    return "each decision" if len(drawn) == len(decided) else f"{len(drawn):,} of {len(decided):,} decisions, each"


def _bins(spaces: Sequence[SpaceSummary]) -> tuple[int, list[int], list[int]]:
    """Width in seconds, beginning of each bin in seconds since 1970, and requests in it."""
    if not spaces:
        return STEPS_S[0], [], []
    slices = np.concatenate([space.slices for space in spaces])
    busy = np.concatenate([space.busy for space in spaces])
    seconds = slices * (SLICE_MS // 1000)
    span = int(seconds.max() - seconds.min()) + 1
    step = next((step for step in STEPS_S if span <= BINS * step), STEPS_S[-1] * -(-span // (BINS * STEPS_S[-1])))
    starts, place = np.unique(seconds // step, return_inverse=True)
    return step, (starts * step).tolist(), np.bincount(place, busy).astype(int).tolist()


def _width(step: int) -> str:
    return f"{step} s" if step < 60 else f"{step // 60} min" if step < 3_600 else f"{step // 3_600} h"


def _timeline_caption(decided: Sequence[ThrottleEvent], busy: Sequence[int], width: str) -> str:
    most = f"{max(busy, default=0):,} requests in the busiest {width}"
    hard = [one for one in decided if one.level >= LEVELS.index("hard")]
    if not hard:
        return f"No decision reaches “hard”; {most}"
    first, last = min(one.time for one in hard), max(one.time for one in hard)
    until = f" to {last:%F %H:%M}" if last - first > timedelta(minutes=1) else ""
    return f"{len(hard):,} decisions at “hard” or “block”, {first:%F %H:%M}{until}; {most}"


def _by_detector(decided: Sequence[ThrottleEvent]) -> ReportTable:
    names = sorted({one.detector for one in decided})
    rows = []
    for name in names:
        counts = [
            sum(one.detector == name and one.level == level for one in decided) for level in range(1, len(LEVELS))
        ]
        rows.append((name, *(f"{count:,}" for count in counts)))
    return ReportTable(("detector", *LEVELS[1:]), rows)


def throttling(held: Sequence[HeldSpan]) -> PlotFigure | None:
    """Who was throttled when; None if nobody was."""
    if not held:
        return None
    minutes: dict[str, float] = {}
    for stretch in held:
        minutes[stretch.client] = minutes.get(stretch.client, 0.0) + (stretch.level + 1) ** 4 * stretch.minutes
    chosen = sorted(minutes, key=lambda client: (-minutes[client], client))[:CLIENTS_SHOWN]
    data = []
    for level, name in enumerate(LEVELS[1:], 1):
        own = [one for one in held if one.level == level and one.client in chosen]
        if own:
            data.append(_bars(own, level, name))
    limited = [one for one in held if one.limits]
    hours = sum(one.minutes for one in limited) / 60
    who = len({one.client for one in limited})
    caption = f"{who:,} clients are limited, {hours:,.1f} client-hours in all" if who else "Clients are only observed"
    drawing = plots.layout(
        plots.axis("time (UTC)", type="date"),
        plots.axis("client", type="category", categoryorder="array", categoryarray=[*map(_short, chosen[::-1])]),
        height=150 + 22 * len(chosen), barmode="overlay",
    )  # fmt: skip
    rows = [
        (one.client, LEVELS[one.level], one.action, one.mode, f"{one.since:%F %T}", f"{one.minutes:,.0f} min")
        for one in sorted(held, key=lambda one: (-one.level, one.since))[: plots.TABLE_ROWS]
    ]
    how = "Each client's decisions as bars from when they took effect to when they ended, by level."
    table = ReportTable(("client", "level", "action", "mode", "from (UTC)", "for"), rows)
    return PlotFigure("throttling", caption, how, data, drawing, table)


def _bars(own: Sequence[HeldSpan], level: int, level_name: str) -> Json:
    pattern = {"shape": ("", "", "/", "x", ".")[level], "fgcolor": "#FFFFFF", "fillmode": "overlay"}
    hover = "%{customdata[1]} (%{customdata[2]}) for %{customdata[0]}<extra></extra>"
    return {
        "type": "bar", "orientation": "h", "name": level_name,
        "y": [_short(one.client) for one in own], "base": [clock(one.since) for one in own],
        "x": [round(one.minutes * MINUTE_MS) for one in own],
        "customdata": [[f"{one.minutes:,.0f} min", one.action, one.mode] for one in own],
        "marker": {"color": plots.LEVEL_COLOURS[level], "pattern": pattern},
        "hovertemplate": f"%{{y}}<br>{level_name}: {hover}",
    }  # fmt: skip


def _short(client: str) -> str:
    """A prefix of the pseudonym; the tables show all of it."""
    return plots.plain(client if len(client) <= 16 else f"{client[:14]}…")


def alarms(by_class: Alarms, days: Mapping[str, int]) -> PlotFigure | None:
    """Client-days alarmed against those that the certificate expects; None without any client."""
    classes = [name for name in by_class if days.get(name)]
    if not classes:
        return None
    data: list[Json] = []
    for name, key, colour, symbol in (
        ("expected false alarms, by the certificate", "expected", "#0072B2", "line-ns-open"),
        ("alarmed in this history, attackers included", "alarmed", "#C04A00", "diamond"),
    ):
        marks = [
            (f"{client_class}: {level}", by_class[client_class][level][key])
            for client_class in classes
            for level in LEVELS[1:]
            if by_class[client_class][level][key] is not None
        ]
        data.append(
            plots.markers(name, [value for _, value in marks], [label for label, _ in marks], colour, symbol,
                          marker={"size": 12, "line": {"width": 2, "color": colour}}, cliponaxis=False)
        )  # fmt: skip
    rows = [
        (client_class, level, *_alarm_cells(by_class[client_class][level], days[client_class]))
        for client_class in classes
        for level in LEVELS[1:]
    ]
    drawing = plots.layout(
        plots.axis("client-days on which a level was reached (count)", rangemode="tozero"),
        plots.axis("class: level", type="category", autorange="reversed"),
        height=160 + 26 * 4 * len(classes),
    )  # fmt: skip
    headers = ("class", "level", "promised share of client-days", "expected false alarms", "alarmed", "client-days")
    how = "For each class and level: the false alarms that the certificate expects, and the client-days alarmed."
    return PlotFigure("alarms", _alarms_caption(by_class, days), how, data, drawing, ReportTable(headers, rows))


def _alarm_cells(cell: Mapping[str, Any], days: int) -> tuple[str, str, str, str]:
    if cell["promised"] is None:
        return "no promise", "-", f"{cell['alarmed']:,}", f"{days:,}"
    mark = "" if cell["certified"] else " (the level's target is lower, and conditional)"
    return f"{cell['promised']:.2g}{mark}", f"{about(cell['expected'])}", f"{cell['alarmed']:,}", f"{days:,}"


def _alarms_caption(by_class: Alarms, days: Mapping[str, int]) -> str:
    client_class = max(by_class, key=lambda name: days.get(name, 0))
    cell = by_class[client_class]["hard"]
    seen = f"{cell['alarmed']:,} {client_class} client-days reach “hard”"
    if cell["expected"] is None:
        return f"{seen}; there is no promise for them"
    return f"{seen}; {about(cell['expected'])} were expected to by chance"
