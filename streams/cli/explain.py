"""`probewatch explain`: the explanation of a decision as JSON, or as a tree for a terminal."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from detector.events.escape import printable
from streams.cli.arguments import ArtefactFolder, AsJson, ConfigFile, JsonOutput, output
from streams.terminal import PIPED_COLUMNS, print_json, speaking

if TYPE_CHECKING:
    from detector.trace.explanation import ExplainedRow, Ground, Near, Ruling, Telling
    from streams.explain.find import HistoryContext, SideBySide
    from streams.progress import Reporter

BARS = " ▁▂▃▄▅▆▇█"
CHANGED_NAMED = 6
DIFFERENCES_SHOWN = 24
PROCESSES_SHOWN = 8
NAME_COLUMNS, VALUE_COLUMNS = 36, 24


def outputs() -> dict[str, JsonOutput]:
    from streams.explain.find import ExplainOutput

    return {"explain": output("How a decision came about.", ExplainOutput)}


def add_to(app: typer.Typer, panel: str) -> None:
    app.command(rich_help_panel=panel)(explain)


@speaking
def explain(
    what: Annotated[
        str,
        typer.Argument(
            metavar="ALERT|REQUEST|CLIENT",
            help="Id, or its first digits, of an alert, incident or decision; a request id; a pseudonym or client id.",
            show_default=False,
        ),
    ],
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE]...",
            help="History with the client's requests, as for `replay`. Default: the topic of frames.",
            show_default=False,
        ),
    ] = None,
    events: Annotated[
        Path | None,
        typer.Option("--events", metavar="DIR", help="Replay folder to look alerts up in. Default: the topics."),
    ] = None,
    raw: Annotated[
        list[str] | None,
        typer.Option("--raw", metavar="SOURCE", help="Raw records, to compare requests side by side. Repeatable."),
    ] = None,
    artefacts: ArtefactFolder = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Explain a decision: log line, adapter, row, features, evidence against its threshold, decision.

    Also shows what the certificate promises, the nearest earlier requests and the fields that varied. Raw records,
    given as SOURCE or with --raw, show the requests side by side.

    Example: probewatch explain 0f4b2c9d archive/ --events out/june
    """
    import msgspec

    from streams.adapters import Formats
    from streams.explain import find
    from streams.progress import Bars

    with Bars() as bars:
        history = _history(sources, artefacts, config, bars)
        traced = find.trace(find.find_target(what, history, events), history)
        telling, requests = find.explain(traced, history), find.side_by_side(traced, history, raw or ())
    if as_json:
        print_json(find.ExplainOutput(**msgspec.structs.asdict(telling), requests=requests))
    else:
        console = Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS, highlight=False)
        topic = telling.at.source.partition("[")[0]
        show_tree(telling, requests, Formats(history.config).of(topic).name, console)


def _history(
    sources: list[str] | None, folder: Path | None, config: Path | None, reporter: "Reporter"
) -> "HistoryContext":
    from models.artefacts.store import load_artefacts
    from streams.explain.find import HistoryContext
    from streams.history.sources import open_sources
    from streams.secrets.load import load_secrets, load_settings, trusted_keys

    settings = load_settings(config)
    folder = folder or settings.artefacts
    secrets = load_secrets(settings, folder)
    artefacts = load_artefacts(folder, secrets.projection_seed, trusted_keys(settings))
    opened = open_sources(sources or [f"kafka://{settings.kafka.bootstrap}/{settings.topics.requests}"], settings)
    return HistoryContext(opened, settings, artefacts, secrets, reporter)


def show_tree(telling: "Telling", requests: "SideBySide | None", adapter: str, console: Console) -> None:
    """Log line -> adapter -> row -> features -> evidence -> decision. requests : the one explained first."""
    last = telling.rulings[-1] if telling.rulings else None
    title = last.title if last is not None else f"No decision: model {telling.model}"
    tree = Tree(_line(title, style="bold"), guide_style="dim")
    period = f"{telling.rows:,} rows from {telling.first} to {telling.last}"
    tree.add(_line(f"client {telling.client}, {telling.client_class}; {period}"))
    at = telling.at
    tree.add(_line(f"log line   {at.source}@{at.offset}, row {at.index} of it: request {at.request_id}, {at.time}"))
    tree.add(_line(f"adapter    {adapter}: {_answer(at)}"))
    tree.add(_line(f"row        the client's {_ordinal(at.rows_seen)} in {telling.space}{_marks(at)}"))
    features = tree.add(_line(f"features   {_against_nearest(at)}"))
    features.add(_line(_place(at)))
    evidence = tree.add(_line("evidence   by process: now, needed by it alone, and over the last rows"))
    evidence.add(_grounds(telling.grounds[:PROCESSES_SHOWN], telling.thresholds[telling.promise.level_name]))
    _rulings(tree, telling.rulings)
    for order in telling.orders:
        tree.add(_line(f"order      {order}"))
    tree.add(Group(_line("before     nearest earlier requests, least different first"), _earlier(telling.nearest)))
    if telling.varied:
        tree.add(Group(_line("varied     over all rows; ranges in standard units"), _varied(telling)))
    tree.add(_line(f"promise    {_promise(telling)}"))
    tree.add(_line(f"hashes     configuration {telling.config_hash}, artefacts {telling.artefact_hash},"
                   f" engine {telling.engine_version}"))  # fmt: skip
    console.print(tree)
    if requests is not None:
        console.print()
        console.print(_line("Side by side: this request, then the nearest earlier ones; * differs", style="bold"))
        console.print(_side_by_side(requests, max(2, (console.width - NAME_COLUMNS) // VALUE_COLUMNS)))


def _line(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style)


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def _answer(at: "ExplainedRow") -> str:
    parts = [f"answer {at.label}" if at.label else "no label"]
    parts += [f"score {at.score:g}"] if at.score is not None else []
    parts += [f"{at.margin:g} from the decision threshold"] if at.margin is not None else []
    return ", ".join(parts)


def _marks(at: "ExplainedRow") -> str:
    return f"; {'; '.join(at.marks)}" if at.marks else ""


def _against_nearest(at: "ExplainedRow") -> str:
    if at.nearest is None:
        return "the client's first input: nothing to compare it with"
    about = f"against request {at.nearest} (row {at.nearest_rows_seen})"
    if at.repeat:
        return f"{about}: the same input again; it only counts"
    changed = f"{_names(at.changed)} changed" if at.changed else "no field changed"
    flipped = "; the answer flipped" if at.flipped else ""
    return f"{about}: {changed}, {at.distance:.2f} standard units away{flipped}"


def _names(names: tuple[str, ...]) -> str:
    more = len(names) - CHANGED_NAMED
    return ", ".join(names[:CHANGED_NAMED]) + (f" and {more} more" if more > 0 else "")


def _place(at: "ExplainedRow") -> str:
    novelty = "no novelty known" if at.novelty is None else f"novelty {at.novelty:.2f} (1 is ordinary)"
    return f"{novelty}; {'no cell' if at.cell is None else f'cell {at.cell} of the population'}"


def _grounds(grounds: "Sequence[Ground]", threshold: float) -> Table:
    table = _table("process", "detector", "looks for", ">evidence", ">needs", "unit", ">score", "last rows")
    for ground in grounds:
        style = "bold" if ground.leads else ""
        cells = (
            ground.process, ground.detector, ground.meaning, _evidence(ground.evidence), f"{ground.needed:,.1f}",
            ground.unit, f"{ground.excess:.2f}", spark(ground.curve, threshold),
        )  # fmt: skip
        table.add_row(*(Text(printable(cell)) for cell in cells), style=style)
    return table


def _evidence(evidence: float) -> str:
    return "-" if evidence <= -100 else f"{evidence:,.1f}"


def spark(curve: Sequence[float | None], threshold: float) -> str:
    """One letter a row, from 0 to the threshold; a full block has reached it."""
    top = max(threshold, 1e-9)
    return "".join(
        "·" if value is None else BARS[0 if value <= 0 else min(8, 1 + int(7 * value / top))] for value in curve
    )


def _rulings(tree: Tree, rulings: "Sequence[Ruling]") -> None:
    for ruling in rulings:
        where = f"at row {ruling.rows_seen}, {ruling.time}"
        branch = tree.add(_line(f"decision   {ruling.level_name} {where}: {ruling.decision}", style="bold"))
        for line in (ruling.seen, ruling.evidence, ruling.against, ruling.promise):
            if line:
                branch.add(_line(line))


def _earlier(rows: "Iterable[Near]") -> RenderableType:
    table = _table(">row", "time", "request", "answer", ">score", ">fields differ", ">distance")
    for row in rows:
        score = "" if row.score is None else f"{row.score:.3f}"
        cells = (
            f"{row.rows_seen:,}", row.time, row.request_id, row.label, score, str(row.changed), f"{row.distance:.2f}"
        )  # fmt: skip
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def _varied(telling: "Telling") -> Table:
    table = _table("field", ">changed in rows", ">values", ">from", ">to")
    for field in telling.varied:
        cells = field.field, f"{field.rows:,}", f"{field.values:,}", f"{field.low:+.2f}", f"{field.high:+.2f}"
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def _promise(telling: "Telling") -> str:
    from detector.events.wording import about, one_in

    promise = telling.promise
    if promise.promised is None:
        return f'nothing is promised of "{promise.level_name}" for class {telling.client_class}'
    kind = "certified" if promise.certified else f"conditional; aimed at {one_in(promise.budget)}"
    share = one_in(promise.promised)
    text = f'"{promise.level_name}" alarms {share} ordinary clients a day ({kind}), by {promise.certificate}'
    if promise.expected is None:
        return text
    return (
        f"{text}. Of the {promise.clients:,} clients of class {telling.client_class} on that day,"
        f" {about(promise.expected)} are expected to be alarmed falsely"
    )


def _side_by_side(requests: "SideBySide", columns: int) -> Table:
    table = _table("field", *(f"row {rows_seen:,}" for rows_seen in requests.rows_seen[:columns]))
    for field in requests.fields[:DIFFERENCES_SHOWN]:
        cells = [
            Text(f"{_short(value)}{' *' if differs else ''}", "bold" if differs else "")
            for value, differs in zip(field.values[:columns], field.differs, strict=False)
        ]
        table.add_row(Text(printable(field.field)), *cells)
    more = len(requests.fields) - DIFFERENCES_SHOWN
    if more > 0:
        table.add_row(Text(f"{more:,} more, see --json", style="dim"))
    return table


def _short(value: str | None) -> str:
    text = printable(value or "")
    return text if len(text) <= VALUE_COLUMNS - 4 else f"{text[: VALUE_COLUMNS - 5]}…"


def _table(*headers: str) -> Table:
    """A leading ">" aligns a column to the right."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    for header in headers:
        table.add_column(header.removeprefix(">"), justify="right" if header.startswith(">") else "left")
    return table
