"""Figures for people: tables in the terminal, a page with plots, a section of docs/performance.md."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader
from plotly.offline import get_plotlyjs
from rich.console import Console
from rich.table import Table

from bench.performance.aims import aims, microseconds, milliseconds, percent, rates, times
from bench.performance.plots import plots

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
NOTHING = "-"

Results = Mapping[str, Any]
Cells = list[list[str]]


class Shown(NamedTuple):
    """A table: title, what to see in it, header and cells."""

    title: str
    note: str
    header: tuple[str, ...]
    cells: Cells


def tables(results: Results) -> list[Shown]:
    """Of the parts that were run, in the order of the page."""
    parts = results["parts"]
    shown = {
        "sketch": _sketch, "reading": _reading, "judge": _judge, "memory": _memory, "service": _drained,
        "replay": _replay, "river": _river, "widths": _widths, "partitions": _partitions,
    }  # fmt: skip
    found = [_aims(results)]
    for name, table in shown.items():
        if name in parts:
            found.append(table(parts[name]))
            if name == "service":
                found.append(_steady(parts[name]))
            if name == "widths":
                found.append(_judged_widths(parts[name]))
    return found


def _aims(results: Results) -> Shown:
    note = (
        "Median over repetitions, least and largest in brackets. The plain reader is aiokafka's `getmany` and one typed"
        " msgspec decode a record, of a topic in the same run."
    )
    cells = [[line.question, line.aim, line.now, line.to_plain, line.verdict] for line in aims(results["parts"])]
    return Shown("What was aimed at", note, ("", "aim", "now", "to the plain reader", ""), cells)


def _sketch(part: Any) -> Shown:
    cells = [
        [
            line["kind"], f"{line['record_bytes']:,.0f}", rates(line["rates"]["plain"]), rates(line["rates"]["sketch"]),
            percent(line["of_plain"]["sketch"]), percent(line["of_plain"]["sketch and send"]),
        ]
        for line in part["kinds"]
    ]  # fmt: skip
    note = f"Rows a second of processor time, {part['records']:,} records of one topic, read in turns."
    return Shown("sketch", note, ("record", "bytes", "plain reader", "sketch", "of plain", "and sent, of plain"), cells)


def _reading(part: Any) -> Shown:
    cells = [[line["name"], microseconds(line["us"]), times(line["times_plain"])] for line in part["readers"]]
    note = (
        f"{part['records']:,} embeddings of 64 numbers in JSON, processor time of all threads. Sketch's work in"
        " each event is the same functions, called with one record."
    )
    return Shown("Bringing a record in", note, ("reader", "µs a record", "to the plain reader"), cells)


def _judge(part: Any) -> Shown:
    cells = []
    for line in part["clients"]:
        last, bound = line["last"], line["bound_rows_per_s"]["median"]
        cells.append(
            [
                f"{line['clients']:,}", f"{line['rows']:,}", rates(line["rows_per_s"]), times(line["of_plain"]),
                times(line["cost_to_10000"]), f"{line['rows_per_s']['median'] / bound:.0%}",
                f"{last['decode_share']:.0%}", f"{last['used_per_client']:,.0f} ({last['bytes_per_client']:,.0f})",
                _figure(last["us_per_event"]),
            ]
        )  # fmt: skip
    note = (
        "All detectors are on. Of the memory bound: as a share of the rate if a row did nothing but read all of its"
        " client's state, in random order of clients."
    )
    header = (
        "clients", "rows", "rows/s", "to the plain reader", "cost to 10,000", "of the memory bound", "decoding",
        "bytes a client (allocated)", "µs an event",
    )  # fmt: skip
    return Shown("judge, from frames", note, header, cells)


def _memory(part: Any) -> Shown:
    sizes = [f"{part[name] / 1e9:.2f}" for name in ("in_use", "allocated", "before", "resident")]
    note = "GB. Most clients ask once, one in fifty is busy; resident is the most that the process ever took."
    header = ("clients", "rows", "state in use", "allocated", "process without clients", "resident at most")
    return Shown("Memory", note, header, [[f"{part['clients']:,}", f"{part['rows']:,}", *sizes]])


def _drained(part: Any) -> Shown:
    drained = part["backlog"]
    note = (
        f"`probewatch run`, all stages in one process, {part['raw_partitions']} raw partitions, {part['partitions']} of"
        f" `requests`, {part['clients']:,} clients, half tables of 23 features, half embeddings of 64 numbers;"
        " the broker runs on the same cores. In brackets the slowest and fastest 2.5 s."
    )
    cells = [
        [
            f"{drained['records']:,}", f"{drained['seconds']:.0f}", f"{drained['rows_a_frame']:.0f}",
            f"{drained['records_per_s']:,.0f} ({drained['windows']['low']:,.0f}-{drained['windows']['high']:,.0f})",
            times(part["of_plain"]), _figure(drained["us"]["worker"]), _figure(drained["us"]["broker"]),
            f"{part['resident_bytes'] / 1e9:.2f}",
        ]
    ]  # fmt: skip
    header = (
        "backlog, records", "s", "rows a frame", "records/s", "to the plain reader", "µs a record, worker", "broker",
        "worker resident, GB",
    )  # fmt: skip
    return Shown("One worker drains a backlog", note, header, cells)


def _steady(part: Any) -> Shown:
    cells = [
        [
            f"{line['load']:.0%}", f"{line['fed_per_s']:,.0f}", f"{line['rows_a_frame']:.0f}",
            f"{line['behind_s']:.1f}",
            *(milliseconds(line[name]) for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")),
            f"{line['events']:,}", str(line["lost"]),
            " · ".join(_figure(line["us"][name]) for name in ("worker", "broker", "feeder")),
        ]
        for line in part["steady"]
    ]  # fmt: skip
    note = (
        "Load: as a share of the rate above. From the moment a record is handed to its producer until a reader of the"
        " throttle topic has the decision. Events that an offline fold expects and that never came are lost and count"
        f" as infinitely late. Of the whole run {part['events']['arrived']:,} of {part['events']['expected']:,} came."
    )
    header = (
        "load", "records/s", "rows a frame", "behind at the end, s", "p50", "p95", "p99", "most", "events", "lost",
        "µs a record: worker · broker · feeder",
    )  # fmt: skip
    return Shown("One worker, fed steadily", note, header, cells)


def _replay(part: Any) -> Shown:
    note = "`probewatch replay` on one core, processor time of the command; without its start, by its own clock."
    note += " With report.html." if part["report"] else ""
    cells = [
        [
            f"{part['rows']:,}", f"{part['frames']:,}", f"{part['archive_bytes'] / 1e6:.0f}",
            rates(part["rows_a_minute"]), rates(part["rows_a_minute_without_start"]), times(part["of_plain"]),
        ]
    ]  # fmt: skip
    header = ("rows", "frames", "archive, MB", "rows a minute", "without its start", "to the plain reader")
    return Shown("Replay of archived frames", note, header, cells)


def _river(part: Any) -> Shown:
    cells = [
        [
            line["name"], f"{line['clients']:,}", f"{line['rows']:,}", f"{line['river_us']:,.0f}",
            microseconds(line["our_us"]), times(line["times"]),
            f"{_figure(line['river_bytes'])} · {_figure(line['our_bytes'])}",
        ]
        for line in part["lines"]
    ]  # fmt: skip
    note = (
        "The same rows. river: one HalfSpaceTrees (10 trees of height 8) and one ADWIN on its score for each client,"
        " its defaults, numbers already scaled; `judge`: all detectors, from the bytes of frames."
    )
    header = ("", "clients", "rows", "river, µs a row", "judge", "ratio", "bytes a client: river · judge")
    return Shown("Beside river", note, header, cells)


def _widths(part: Any) -> Shown:
    cells = [
        [
            line["kind"], f"{line['record_bytes']:,.0f}", f"{1e6 / line['rates']['plain']['median']:.1f}",
            f"{1e6 / line['rates']['sketch']['median']:.1f}", percent(line["of_plain"]["sketch"]),
            percent(line["of_plain"]["sketch and send"]),
        ]
        for line in part["sketch"]
    ]  # fmt: skip
    header = ("record", "bytes", "plain reader, µs", "sketch, µs", "of plain", "and sent, of plain")
    return Shown("Width of the input: sketch", "Embeddings are JSON numbers.", header, cells)


def _judged_widths(part: Any) -> Shown:
    cells = [[line["kind"], microseconds(line["us"]), times(line["of_plain"])] for line in part["judge"]]
    note = "10,000 clients. Embeddings of any length reach judge as 64 numbers."
    return Shown("Width of the input: judge", note, ("record", "µs a row", "to the plain reader"), cells)


def _partitions(part: Any) -> Shown:
    cells = [
        [
            str(line["partitions"]), f"{line['records_per_s']:,.0f}", _figure(line["us"]["worker"]),
            _figure(line["us"]["broker"]), f"{line['resident_bytes'] / 1e9:.2f}",
        ]
        for line in part["lines"]
    ]  # fmt: skip
    note = (
        f"One worker drains {part['records']:,} records of {part['clients']:,} clients; raw topic and `requests`"
        " have as many partitions."
    )
    header = ("partitions", "records/s", "µs a record, worker", "broker", "worker resident, GB")
    return Shown("Partitions", note, header, cells)


def _figure(value: float | None) -> str:
    return NOTHING if value is None or not math.isfinite(value) else f"{value:,.{1 if abs(value) < 1_000 else 0}f}"


def about(results: Results) -> str:
    """One sentence for the page and the documentation."""
    machine = results["machine"]
    text = (
        f"`{results['command']}`, {results['date']}, {results['seconds'] / 60:.0f} minutes, {machine['processor']},"
        f" {machine['cores']} cores, Python {machine['python']}, {machine['broker']}; load of the machine before"
        f" {machine['load_before']:.1f}."
    )
    left_out = "".join(f" Left out: {name} ({why})." for name, why in results["left_out"].items())
    return text + left_out + (" A quick run: sizes too small to rely on." if results["quick"] else "")


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
    path.write_text(json.dumps(_plain(results), indent=1) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_page(results: Results, path: Path) -> None:
    """One file that needs no network."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = environment.get_template("page.html.j2").render(
        about=about(results).replace("`", ""),
        tables=tables(results),
        figures=[figure.to_html(full_html=False, include_plotlyjs=False) for figure in plots(results["parts"])],
        plotly=get_plotlyjs(),
    )
    path.write_text(page, encoding="utf-8")


def write_docs(results: Results, path: Path) -> None:
    """Replace the figures in the documentation. Raises ValueError if the page has no place for them."""
    before, found, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"{path}: no {BEGIN} … {END}")
    parts = [about(results)]
    for shown in tables(results):
        if shown.cells:
            parts += [f"### {shown.title}", shown.note, "\n".join(_markdown(shown.header, shown.cells))]
    path.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{after}", encoding="utf-8")


def _markdown(header: Sequence[str], cells: Cells) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for line in cells:
        yield "| " + " | ".join(line) + " |"
