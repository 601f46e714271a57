"""One picture for each question; bars and whiskers span all repetitions."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

AIM = {"dash": "dot", "color": "#b04040"}


def plots(parts: Mapping[str, Any]) -> list[go.Figure]:
    """Of the parts that were run."""
    drawn: tuple[tuple[str, Callable[[Any], go.Figure]], ...] = (
        ("sketch", _sketch), ("reading", _readers), ("judge", _clients), ("service", _latency), ("widths", _widths),
        ("partitions", _partitions),
    )  # fmt: skip
    return [draw(parts[name]) for name, draw in drawn if name in parts]


def _sketch(part: Any) -> go.Figure:
    figure = go.Figure()
    kinds = [line["kind"] for line in part["kinds"]]
    for method in ("sketch", "sketch and send"):
        found = [line["of_plain"][method] for line in part["kinds"]]
        figure.add_bar(name=method, x=kinds, y=[100 * one["median"] for one in found], error_y=_whiskers(found, 100))
    figure.add_hline(50, line=AIM, annotation_text="aim")
    figure.add_hline(60, line=AIM, annotation_text="aim, 64 numbers")
    title = "Sketch keeps this much of a plain reader's rate: dotted lines are the aims"
    return _layout(figure, title, "form of the input", "rows/s, % of the plain reader's")


def _readers(part: Any) -> go.Figure:
    lines = sorted(part["readers"], key=lambda line: -line["us"]["median"])
    found = [line["us"] for line in lines]
    figure = go.Figure(
        go.Bar(
            y=[line["name"] for line in lines], x=[one["median"] for one in found], error_x=_whiskers(found),
            orientation="h",
        )
    )  # fmt: skip
    figure.update_xaxes(type="log")
    title = "Event by event a record costs an order of magnitude more than in batches (logarithmic)"
    return _layout(figure, title, "processor time of a record, µs", "")


def _clients(part: Any) -> go.Figure:
    lines = part["clients"]
    found = [{name: 1e6 / line["rows_per_s"][name] for name in ("low", "median", "high")} for line in lines]
    found = [{"median": one["median"], "low": one["high"], "high": one["low"]} for one in found]
    figure = go.Figure()
    x = [line["clients"] for line in lines]
    figure.add_scatter(
        x=x, y=[one["median"] for one in found], error_y=_whiskers(found), name="judge", mode="lines+markers"
    )
    figure.add_scatter(
        x=x, y=[1e6 / line["bound_rows_per_s"]["median"] for line in lines], name="only reading the client's state",
        mode="lines+markers", line={"dash": "dot"},
    )  # fmt: skip
    figure.add_hline(2.5, line=AIM, annotation_text="aim at 100,000 clients")
    figure.update_xaxes(type="log")
    return _layout(
        figure,
        "How the cost of judging a row grows with the number of clients",
        "clients",
        "processor time of a row, µs",
    )


def _latency(part: Any) -> go.Figure:
    figure = go.Figure()
    loads = [f"{line['load']:.0%} ({line['fed_per_s']:,.0f}/s)" for line in part["steady"]]
    for name in ("p50", "p95", "p99"):
        late = [line[f"{name}_ms"] for line in part["steady"]]
        figure.add_bar(name=name, x=loads, y=[one if math.isfinite(one) else None for one in late])
    figure.add_hline(250, line=AIM, annotation_text="aim for p99 at half load")
    title = (
        "From log record to throttle event: short below saturation, queues above (bars that are missing: events lost)"
    )
    figure.update_yaxes(type="log")
    return _layout(figure, title, "load, as a share of the draining rate (records/s)", "time to the event, ms")


def _widths(part: Any) -> go.Figure:
    figure = go.Figure()
    for kind, width in (("tables", "fields"), ("embeddings", "dim")):
        lines = [line for line in part["sketch"] if line[width]]
        for method in ("plain", "sketch"):
            figure.add_scatter(
                x=[line[width] for line in lines], y=[1e6 / line["rates"][method]["median"] for line in lines],
                name=f"{kind}, {method}", mode="lines+markers", line={"dash": "dot" if method == "plain" else "solid"},
            )  # fmt: skip
    figure.update_xaxes(type="log")
    figure.update_yaxes(type="log")
    title = "Wider inputs cost the plain reader (dotted) and sketch alike: lines stay parallel"
    return _layout(figure, title, "numbers in the input", "processor time of a record, µs")


def _partitions(part: Any) -> go.Figure:
    figure = go.Figure()
    lines = part["lines"]
    for name in ("worker", "broker"):
        figure.add_bar(name=name, x=[str(line["partitions"]) for line in lines], y=[line["us"][name] for line in lines])
    figure.update_layout(barmode="stack")
    return _layout(
        figure, "More partitions make smaller frames: what a record costs worker and broker", "partitions",
        "processor time of a record, µs",
    )  # fmt: skip


def _whiskers(found: Sequence[Mapping[str, float]], factor: float = 1.0) -> dict[str, Any]:
    return {
        "type": "data", "symmetric": False,
        "array": [factor * (one["high"] - one["median"]) for one in found],
        "arrayminus": [factor * (one["median"] - one["low"]) for one in found],
    }  # fmt: skip


def _layout(figure: go.Figure, title: str, x: str, y: str) -> go.Figure:
    figure.update_layout(
        title=title, xaxis_title=x, yaxis_title=y, height=420, template="plotly_white", font={"size": 12}
    )
    figure.update_yaxes(automargin=True)
    return figure
