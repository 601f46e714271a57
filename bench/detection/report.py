"""Figures for people: tables in the terminal, a page with plots, a section of docs/benchmark.md."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader
from plotly.offline import get_plotlyjs
from rich.console import Console
from rich.table import Table

from bench.detection.evaluate import holm
from bench.detection.run import OURS

MATCHED = 1e-3
"""The budget at which methods are compared: slow ones certify nothing tighter."""
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
NOTHING = "-"

Results = Mapping[str, Any]
Lines = Sequence[Mapping[str, Any]]


class Shown:
    """A table: title, what to see in it, header and cells."""

    def __init__(self, title: str, note: str, header: Sequence[str], cells: Iterable[Sequence[str]]) -> None:
        self.title, self.note, self.header, self.cells = title, note, list(header), [list(line) for line in cells]


def tables(results: Results) -> list[Shown]:
    """All tables, in the order of the page."""
    return [
        _ours(results), _certificates(results), _kinds(results), _compared(results), _every_scenario(results),
        _published(results), _ablations(results), _shifts(results), _adaptive(results), _costs(results),
    ]  # fmt: skip


def _ours(results: Results) -> Shown:
    """One line a scenario: soft and hard by class, hard with one threshold."""
    own = _method(results, OURS)
    cells = []
    for name, lines in _scenarios(own):
        soft, hard = _line(lines, "class", 1e-3), _line(lines, "class", 1e-4)
        pooled = _line(lines, "one", 1e-4)
        won = f"{soft['won']}/{soft['reached']}" if soft["reached"] else NOTHING
        cells.append(
            [name, _found(soft), _delays(soft), _found(hard), _delays(hard), won, _found(pooled), _delays(pooled)]
        )
    note = (
        "Own requests of the attacker until the alarm: median · 95th percentile over all attackers; - = not that many"
        " are ever found. Won = reached their goal before the soft alarm, of those that reach it at all."
    )
    header = (
        "scenario",
        "found, 1e-3",
        "requests",
        "found, 1e-4",
        "requests",
        "won",
        "one threshold, 1e-4",
        "requests",
    )
    return Shown("What our engine finds, and after how many requests", note, header, cells)


def _certificates(results: Results) -> Shown:
    """Promises against judged clients."""
    own = _method(results, OURS)
    lines = [line for line in own["false_alarms"] if line["thresholds"] == "class" and not _is_kind(line)]
    lines = [line for line in lines if line["scope"] != "everybody"]
    broken = holm([line["p"] for line in lines])
    certified = {(line["class"], line["budget"]): line["certified"] for line in own["limits"]}
    cells = [
        [
            line["scope"], f"{line['budget']:g}", "yes" if certified[line["scope"], line["budget"]] else "conditional",
            f"{line['alarmed']} / {line['client_days']:,}", f"{line['share']:.2e}",
            f"{line['low']:.1e} to {line['high']:.1e}",
            NOTHING if math.isnan(line["p"]) else f"{line['p']:.3f}", "BROKEN" if bad else "",
        ]
        for line, bad in zip(lines, broken, strict=True)
    ]  # fmt: skip
    note = (
        "p = chance of so many alarms or more if the promise holds (beta-binomial); BROKEN = rejected at 5 % by Holm"
        " over the table."
    )
    header = ("class", "budget", "certified", "alarmed client-days", "rate", "95 %", "p", "")
    return Shown("Promised and realised false alarms of clients that calibrated nothing", note, header, cells)


def _kinds(results: Results) -> Shown:
    """Whose false alarms they are."""
    own = _method(results, OURS)
    lines = [line for line in own["false_alarms"] if line["thresholds"] == "class" and _is_kind(line)]
    by_kind: dict[str, dict[float, Mapping[str, Any]]] = {}
    for line in lines:
        by_kind.setdefault(line["scope"].removeprefix("kind: "), {})[line["budget"]] = line
    cells = [
        [kind, f"{found[1e-2]['client_days']:,}"]
        + [f"{line['alarmed']} ({line['share']:.1%})" for line in found.values()]
        for kind, found in by_kind.items()
    ]  # fmt: skip
    note = "The budget is kept by a class as a whole; inside it, the hardest kind takes most of it."
    return Shown("Who is alarmed falsely", note, ("kind of client", "clients", "1e-2", "1e-3", "1e-4"), cells)


def _compared(results: Results) -> Shown:
    """Every method at the matched budget, over plain scenarios."""
    families = list(dict.fromkeys(line["family"] for line in _method(results, OURS)["detection"]))
    cells = []
    for method in results["methods"]:
        alarms = _line([line for line in method["false_alarms"] if line["scope"] == "consumer"], "class", MATCHED)
        row = [method["name"], f"{alarms['share']:.1e}"]
        for family in families:
            lines = [line for line in method["detection"] if line["family"] == family and line["disguise"] == "plain"]
            rounded = [line for line in lines if line["rounded"]] or lines
            row.append(_short(_line(rounded, "class", MATCHED)))
        cells.append(row)
    note = (
        f"Share of attackers found · median requests, rounded inputs, thresholds by class at {MATCHED:g} from the same"
        " certifying clients. Second column: realised false alarms of consumers."
    )
    return Shown("Every method at the same false alarms", note, ("method", "false", *families), cells)


def _every_scenario(results: Results) -> Shown:
    """The best comparator of each scenario beside ours."""
    own = _method(results, OURS)
    cells = []
    for name, lines in _scenarios(own):
        mine = _line(lines, "class", MATCHED)
        ranked = []
        for method in results["methods"]:
            other = [line for line in method["detection"] if _scenario(line) == name]
            if method["name"] != OURS and other:
                line = _line(other, "class", MATCHED)
                ranked.append((-line["found"] / line["attackers"], line["median"], method["name"], line))
        ranked.sort(key=lambda each: each[:3])
        best = [f"{each[2]}: {_short(each[3])}" for each in ranked[:2]]
        cells.append([name, _short(mine), *best, *[NOTHING] * (2 - len(best))])
    note = f"Share found · median requests at {MATCHED:g}, thresholds by class."
    return Shown("The two best comparators of each scenario", note, ("scenario", OURS, "best", "second"), cells)


def _published(results: Results) -> Shown:
    cells = [
        [method["name"], line["setting"], f"{line['consumers_alarmed']:.2%}", _share(line["attackers_found"])]
        for method in results["methods"] for line in method["published"]
    ]  # fmt: skip
    note = "Fixed settings without calibration: consumers alarmed on their day; plain attackers of all families found."
    return Shown("Settings as published", note, ("method", "setting", "consumers alarmed", "attackers found"), cells)


def _ablations(results: Results) -> Shown:
    cells = []
    own = _method(results, OURS)
    judged = {_scenario(line) for variant in results["ablations"] for line in variant["detection"]}
    same = [line for line in own["detection"] if _scenario(line) in judged]
    for variant in ({**own, "name": "the engine as it is", "detection": same}, *results["ablations"]):
        alarms = [line for line in variant["false_alarms"] if line["scope"] == "consumer"]
        row = [variant["name"]]
        for budget in (1e-3, 1e-4):
            line = _line(alarms, "class", budget)
            found = [one for one in variant["detection"] if one["thresholds"] == "class" and one["budget"] == budget]
            row += [f"{line['share']:.1e}", *_overall(found)]
        cells.append(row)
    note = "Undisguised rounded attackers, thresholds by class: share found, and the middle family's median."
    header = ("variant", "false, 1e-3", "found", "median", "false, 1e-4", "found", "median")
    return Shown("What each part is worth", note, header, cells)


def _overall(lines: Lines) -> tuple[str, str]:
    found, n = sum(line["found"] for line in lines), sum(line["attackers"] for line in lines)
    medians = sorted(line["median"] for line in lines)
    return (f"{found / n:.1%}", _number(medians[len(medians) // 2])) if n else (NOTHING, NOTHING)


def _shifts(results: Results) -> Shown:
    cells = [
        [
            line["shift"], f"{line['budget']:g}", f"{line['alarmed']} / {line['client_days']:,}",
            f"{line['share']:.2e}", f"{line['p']:.1e}", "; ".join(line["noticed"][:2]) or "nothing",
        ]
        for line in results["shifts"]
    ]  # fmt: skip
    note = (
        "Consumers of other populations against the same thresholds; p as above. Noticed = what the shift check says of"
        " those days."
    )
    header = ("shift", "budget", "alarmed", "rate", "p", "noticed")
    return Shown("When ordinary clients change", note, header, cells)


def _adaptive(results: Results) -> Shown:
    cells = [
        [
            line["attacker"], line["until"], str(line["attackers"]), f"{line['reached']}",
            f"{line['won']} ({line['won'] / line['attackers']:.0%})", f"{line['found']}", _number(line["median"]),
        ]
        for line in results["adaptive"]
    ]  # fmt: skip
    note = "Won = reached the goal before that decision. Requests: own ones up to it, in the median."
    header = ("attacker", "decision", "runs", "reached the goal", "won", "found", "requests")
    return Shown("Attackers that adapt to refusals", note, header, cells)


def _costs(results: Results) -> Shown:
    cells = [
        [
            method["name"], f"{method['us_per_row']:.1f}", f"{method['bytes_per_client']:,.0f}", method["source"],
            method["parameters"],
        ]
        for method in results["methods"]
    ]  # fmt: skip
    note = (
        "Processor time of judging alone, one core, over the judged log; ours without the sketch, which is in the JSON."
    )
    return Shown("Cost and sources", note, ("method", "µs a row", "bytes a client", "source", "parameters"), cells)


def _scenario(line: Mapping[str, Any]) -> str:
    return f"{line['family']}, {'rounded' if line['rounded'] else 'raw'}, {line['disguise']}"


def _scenarios(method: Mapping[str, Any]) -> Iterator[tuple[str, Lines]]:
    names = dict.fromkeys(map(_scenario, method["detection"]))
    for name in names:
        yield name, [line for line in method["detection"] if _scenario(line) == name]


def _method(results: Results, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(method for method in results["methods"] if method["name"] == name)
    return found


def _line(lines: Lines, thresholds: str, budget: float) -> Mapping[str, Any]:
    return next(line for line in lines if line["thresholds"] == thresholds and line["budget"] == budget)


def _is_kind(line: Mapping[str, Any]) -> bool:
    return bool(line["scope"].startswith("kind: "))


def _found(line: Mapping[str, Any]) -> str:
    return f"{line['found'] / line['attackers']:.0%} ({line['low']:.0%} to {line['high']:.0%})"


def _delays(line: Mapping[str, Any]) -> str:
    return f"{_number(line['median'])} · {_number(line['p95'])}"


def _short(line: Mapping[str, Any]) -> str:
    return f"{line['found'] / line['attackers']:.0%} · {_number(line['median'])}"


def _number(value: float | None) -> str:
    return NOTHING if value is None or math.isinf(value) else f"{value:.0f}"


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0%}"


def print_tables(results: Results, console: Console) -> None:
    for shown in tables(results):
        if shown.cells:
            table = Table(
                *shown.header, title=shown.title, caption=shown.note, title_justify="left", caption_justify="left"
            )
            for line in shown.cells:
                table.add_row(*line)
            console.print(table)


def write_json(results: Results, path: Path) -> None:
    """inf and NaN become null: JSON has neither."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_plain(results), indent=1) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_page(results: Results, path: Path) -> None:
    """One file that needs no network."""
    folder = Path(__file__).parent
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True)
    figures = [figure.to_html(full_html=False, include_plotlyjs=False) for figure in plots(results)]
    page = environment.get_template("page.html.j2").render(
        results=results, tables=tables(results), figures=figures, plotly=get_plotlyjs()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def plots(results: Results) -> list[go.Figure]:
    return [_plot_shares(results), _plot_delays(results), _plot_rates(results)]


def _plot_shares(results: Results) -> go.Figure:
    """Methods by families."""
    shown = _compared(results)
    families = shown.header[2:]
    shares = [[float(cell.split("%")[0]) for cell in line[2:]] for line in shown.cells]
    figure = go.Figure(
        go.Heatmap(
            x=families, y=[line[0] for line in shown.cells], z=shares, text=[line[2:] for line in shown.cells],
            texttemplate="%{text}", colorscale="Blues", zmin=0, zmax=100, colorbar={"title": "found, %"},
        )
    )  # fmt: skip
    title = f"At {MATCHED:g} false alarms a client-day: the darker, the more attackers found (share · median requests)"
    return _layout(figure, title, "family of attacks (rounded inputs)", "method", 80 + 30 * len(shown.cells))


def _plot_delays(results: Results) -> go.Figure:
    figure = go.Figure()
    own = _method(results, OURS)
    for budget, thresholds, name in (
        (1e-3, "class", "soft, by class"),
        (1e-4, "class", "hard, by class"),
        (1e-4, "one", "hard, one threshold"),
    ):
        lines = [line for line in own["detection"] if line["budget"] == budget and line["thresholds"] == thresholds]
        lines = [line for line in lines if not math.isinf(line["median"])]
        figure.add_scatter(
            x=[line["median"] for line in lines], y=[_scenario(line) for line in lines], mode="markers", name=name,
            error_x={
                "type": "data", "symmetric": False, "arrayminus": [0] * len(lines),
                "array": [0 if math.isinf(line["p95"]) else line["p95"] - line["median"] for line in lines],
            },
        )  # fmt: skip
    figure.update_xaxes(type="log")
    names = dict.fromkeys(map(_scenario, own["detection"]))
    return _layout(
        figure, "Requests until our alarm: the further left, the less an attacker learns (bars: 95th percentile)",
        "attacker's own requests until the alarm, median", "scenario", 160 + 22 * len(names),
    )  # fmt: skip


def _plot_rates(results: Results) -> go.Figure:
    """Promised and realised."""
    figure = go.Figure()
    own = _method(results, OURS)
    for scope in dict.fromkeys(line["scope"] for line in own["false_alarms"] if not _is_kind(line)):
        thresholds = "one" if scope == "everybody" else "class"
        lines = [line for line in own["false_alarms"] if line["scope"] == scope and line["thresholds"] == thresholds]
        figure.add_scatter(
            x=[line["budget"] for line in lines], y=[line["share"] or None for line in lines], mode="markers",
            name=scope,
            error_y={
                "type": "data", "symmetric": False, "array": [line["high"] - line["share"] for line in lines],
                "arrayminus": [line["share"] - line["low"] for line in lines],
            },
        )  # fmt: skip
    figure.add_scatter(x=[1e-4, 1e-2], y=[1e-4, 1e-2], mode="lines", name="promise", line={"dash": "dot"})
    figure.update_xaxes(type="log", autorange="reversed")
    figure.update_yaxes(type="log")
    return _layout(
        figure, "False alarms stay at or below the promise (dotted) on clients that calibrated nothing",
        "budget, false alarms per benign client-day", "realised, per benign client-day", 480,
    )  # fmt: skip


def _layout(figure: go.Figure, title: str, x: str, y: str, height: int) -> go.Figure:
    figure.update_layout(
        title=title, xaxis_title=x, yaxis_title=y, height=height, template="plotly_white", font={"size": 12}
    )
    figure.update_yaxes(automargin=True)
    return figure


def write_docs(results: Results, path: Path, command: str, date: str) -> None:
    """Replace the figures in the documentation. Raises ValueError if the page has no place for them."""
    text = path.read_text(encoding="utf-8")
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"{path}: no {BEGIN} … {END}")
    settings = results["settings"]
    parts = [
        f"`{command}`, {date}, {results['seconds'] / 60:.0f} minutes; data set `{settings['dataset']}`, seed"
        f" {settings['seed']}, {settings['certifying_clients']:,} certifying and {settings['judged_clients']:,} judged"
        " client-days,"
        f" {settings['attackers']} attackers a scenario."
    ]  # fmt: skip
    for shown in tables(results):
        if shown.cells:
            parts += [f"### {shown.title}", shown.note, "\n".join(_markdown(shown))]
    path.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{after}", encoding="utf-8")


def _markdown(shown: Shown) -> Iterator[str]:
    yield "| " + " | ".join(shown.header) + " |"
    yield "|" + "---|" * len(shown.header)
    for line in shown.cells:
        yield "| " + " | ".join(line) + " |"
