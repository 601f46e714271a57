"""`probewatch dlq`: dead letters, and sending their records again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from streams.cli.arguments import ArtefactFolder, AsJson, ConfigFile, JsonOutput, output
from streams.terminal import say, show, speaking

if TYPE_CHECKING:
    from streams.config.config import Config
    from streams.ops.dead_letters import Letter

dlq_app = typer.Typer(
    help="Dead letters: records that could not be read. [bold]list[/] them, fix the cause, then [bold]retry[/].",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

From = Annotated[
    Path | None,
    typer.Option(
        "--from", metavar="DIR", help="A replay's folder, or its rejects.jsonl. Default: the dead-letter topic."
    ),
]
Places = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PLACE]...", help="As `show` prints them: gateway-logs[3]@18842#7", show_default=False),
]
Reason = Annotated[str, typer.Option("--reason", metavar="WORD", help="Only this reason: malformed, type, time, …")]
Field = Annotated[str, typer.Option("--field", metavar="NAME", help="Only this field.")]
Topic = Annotated[str, typer.Option("--topic", metavar="NAME", help="Only this raw topic or file.")]
Raw = Annotated[
    list[str] | None,
    typer.Option("--raw", metavar="SOURCE", help="Where to find records that are not in the dead letters. Repeatable."),
]


def outputs() -> dict[str, JsonOutput]:
    from streams.ops.dead_letters import DeadLetterGroup, DeadLetterLine, Retried

    return {
        "dlq list": output("Dead letters, counted by reason, field and topic.", list[DeadLetterGroup]),
        "dlq show": output("Dead letters one by one.", list[DeadLetterLine]),
        "dlq retry": output("What became of each dead letter.", list[Retried]),
    }


def add_to(app: typer.Typer, panel: str) -> None:
    app.add_typer(dlq_app, name="dlq", rich_help_panel=panel)


@dlq_app.command("list")
@speaking
def list_letters(
    place: From = None,
    reason: Reason = "",
    field: Field = "",
    topic: Topic = "",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Count dead letters by reason, field and topic, with an example of each. Retried ones are left out.

    Example: probewatch dlq list --from out/june
    """
    from streams.ops.dead_letters import Wanted, grouped

    _, letters = _letters(config, place, Wanted(reason, field, topic))
    show(grouped(letters), as_json)
    if not letters:
        say("no dead letters")


@dlq_app.command("show")
@speaking
def show_letters(
    places: Places = None,
    place: From = None,
    reason: Reason = "",
    field: Field = "",
    topic: Topic = "",
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Maximum number to show.")] = 20,
    record: Annotated[bool, typer.Option("--record", help="Also show the record, with client ids and inputs.")] = False,
    raw: Raw = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show each dead letter: what was expected and what was found, without its content unless --record is given.

    Example: probewatch dlq show --reason time --limit 5
    """
    from streams.history.sources import open_sources
    from streams.ops.dead_letters import Wanted, line_of, looked_up

    settings, found = _letters(config, place, Wanted(reason, field, topic, tuple(places or ())))
    letters = found[:limit]
    if record:
        letters = looked_up(letters, open_sources(raw or [], settings), settings)
    show((line_of(letter, with_record=record) for letter in letters), as_json)
    if len(found) > limit:
        say(f"{len(found) - limit:,} more; --limit shows them")


@dlq_app.command("retry")
@speaking
def retry_letters(
    places: Places = None,
    place: From = None,
    reason: Reason = "",
    field: Field = "",
    topic: Topic = "",
    raw: Raw = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be sent.")] = False,
    artefacts: ArtefactFolder = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Send records to their raw topic again, unchanged, if they can be read now.

    They are judged as new requests with the time that is in them. Records that still cannot be read stay dead letters.

    Example: probewatch dlq retry --reason time --dry-run
    """
    from streams.history.sources import open_sources
    from streams.ops.dead_letters import RetryOutcome, Wanted, looked_up, retry

    settings, letters = _letters(config, place, Wanted(reason, field, topic, tuple(places or ())))
    letters = looked_up(letters, open_sources(raw or [], settings), settings)
    done = retry(letters, settings, _sketcher(settings, artefacts), dry=dry_run)
    show(done, as_json)
    counts = {did: sum(one.did == did for one in done) for did in get_args(RetryOutcome)}
    say(", ".join(f"{count:,} {did}" for did, count in counts.items() if count) or "no dead letters")


def _letters(file: Path | None, place: Path | None, wanted: Any) -> "tuple[Config, list[Letter]]":
    from streams.ops.dead_letters import read_letters
    from streams.secrets.load import load_settings

    settings = load_settings(file)
    return settings, [letter for letter in read_letters(place, settings) if wanted.takes(letter)]


def _sketcher(config: "Config", folder: Path | None) -> Any:
    from models.artefacts.store import load_artefacts
    from streams.secrets.load import load_secrets, trusted_keys
    from streams.sketch.identity import Identity
    from streams.sketch.sketcher import Sketcher

    folder = folder or config.artefacts
    secrets = load_secrets(config, folder)
    artefacts = load_artefacts(folder, secrets.projection_seed, trusted_keys(config))
    return Sketcher(artefacts, Identity(secrets.pseudonym_key, secrets.key_id, secrets.projection_seed), config)
