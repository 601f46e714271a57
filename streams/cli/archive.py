"""`probewatch archive`: history beyond the retention of the topic."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from typer.core import TyperGroup

from streams.cli.arguments import AsJson, ConfigFile, JsonOutput, output
from streams.terminal import say, show, speaking


class _WriteUnlessNamed(TyperGroup):
    """`archive SOURCE …` is `archive write SOURCE …`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["write", *args]
        return super().parse_args(ctx, args)


archive_app = typer.Typer(
    cls=_WriteUnlessNamed,
    help="Store frames of `requests` as Parquet by day, beyond the retention of the topic; for `replay` and DuckDB.\n\n"
    "Example: probewatch archive kafka://localhost:9092/probewatch.requests.v1 --out archive",
    no_args_is_help=True,
)


def outputs() -> dict[str, JsonOutput]:
    from streams.history.archive.erase import Erased
    from streams.ops.archive_topic import Taken

    return {
        "archive write": output("What was added to the archive.", list[Taken]),
        "archive erase": output("What was removed from the archive.", list[Erased]),
    }


def add_to(app: typer.Typer, panel: str) -> None:
    app.add_typer(archive_app, name="archive", rich_help_panel=panel)


@archive_app.command("write")
@speaking
def write(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="kafka://host:port/topic?from=OFFSET&to=OFFSET&partition=N",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Archive folder; created if missing, otherwise appended to.")
    ],
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Read `requests` from the end of the archive, and store a snapshot of judge's state.

    Run it daily or more often. After a run that was interrupted or skipped, the next one catches up, as long as the
    topic still has the messages.

    Example: probewatch archive kafka://localhost:9092/probewatch.requests.v1 --out archive
    """
    from streams.ops import archive_topic
    from streams.progress import Bars
    from streams.secrets.load import load_settings

    settings = load_settings(config)
    with Bars() as bars:
        taken = archive_topic.take_topic(source, settings, out, bars)
    show([taken] if as_json else [msgspec.structs.asdict(taken) | {"gaps": len(taken.gaps)}], as_json)
    for partition, first, end in taken.gaps:
        say(f"partition {partition}: offsets {first} to {end - 1} had expired; a replay across them differs from live")
    if not taken.snapshots:
        say("no snapshot of judge's state: its group has committed nothing yet, or this user may not read it")


@archive_app.command("erase")
@speaking
def erase(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An archive.", show_default=False)],
    client: Annotated[
        str, typer.Option("--client", metavar="CLIENT", help="Pseudonym (k1-...), or the client id itself.")
    ],
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Remove one client's rows, the orders about it and its state in snapshots. Events of others stay the same.

    Each file is rewritten and replaces the old one when it is complete. After an interruption, run it again.

    Example: probewatch archive erase archive --client acct-1842
    """
    from models.pseudonym import client_of
    from streams.config.input import PSEUDONYM
    from streams.history.archive.erase import erase as erased
    from streams.progress import Bars
    from streams.secrets.load import load_secrets, load_settings
    from streams.sketch.identity import pseudonyms_of

    settings = load_settings(config)
    secrets = None if PSEUDONYM.fullmatch(client) else load_secrets(settings, settings.artefacts)
    names = pseudonyms_of(client, secrets)
    with Bars() as bars:
        gone = erased(folder, [client_of(name) for name in names], bars)
    show([gone], as_json)
