"""`probewatch explain`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.arguments import ArtefactFolder, AsJson, ConfigFile, JsonOutput, output
from streams.terminal import PIPED_COLUMNS, print_json, speaking

if TYPE_CHECKING:
    from streams.explain.find import HistoryContext
    from streams.progress import Reporter


def outputs() -> dict[str, JsonOutput]:
    from streams.explain.find import Explanation

    return {"explain": output("How a decision came about.", Explanation)}


def add_to(app: typer.Typer, panel: str) -> None:
    app.command(rich_help_panel=panel)(explain)


@speaking
def explain(
    what: Annotated[
        str,
        typer.Argument(
            metavar="ALERT|REQUEST|CLIENT",
            help="Beginning of the id of an alert, incident or decision; a request id; a pseudonym, or a client id.",
            show_default=False,
        ),
    ],
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE]...",
            help="The history it stands in, as `replay` reads it; the topic of frames by default.",
            show_default=False,
        ),
    ] = None,
    events: Annotated[
        Path | None,
        typer.Option("--events", metavar="DIR", help="Where alerts are looked up: a replay's folder; else the topics."),
    ] = None,
    raw: Annotated[
        list[str] | None,
        typer.Option("--raw", metavar="SOURCE", help="Raw records, to show requests side by side. May be repeated."),
    ] = None,
    artefacts: ArtefactFolder = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Tell how a decision came about: log line, adapter, row, features, evidence against its threshold, decision.

    With what the certificate promises, the nearest earlier requests and the fields that varied. Raw records, as SOURCE
    or by --raw, also show the requests side by side.

    Example: probewatch explain 0f4b2c9d archive/ --events out/june
    """
    import msgspec
    from rich.console import Console

    from streams.adapters import REGISTRY
    from streams.explain import find, tree
    from streams.progress import Bars

    with Bars() as bars:
        history = _history(sources, artefacts, config, bars)
        told = find.told(find.seek(what, history, events), history)
        telling, beside = find.tell(told, history), find.side_by_side(told, history, raw or ())
    if as_json:
        print_json(find.Explanation(**msgspec.structs.asdict(telling), requests=beside))
    else:
        console = Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS, highlight=False)
        tree.show_telling(telling, beside, REGISTRY[0].name, console)


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
