"""What several commands share: arguments, and how a module declares the JSON output of its commands."""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer


class JsonOutput(NamedTuple):
    """What a command prints with --json; docs/schemas is generated from it (streams/cli/schemas.py).

    types : a struct, or a list of structs; several for a command that prints one of several things.
    """

    description: str
    types: tuple[Any, ...]


def output(description: str, *types: Any) -> JsonOutput:
    return JsonOutput(description, types)


ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Configuration; see docs/configuration.md.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write to; created if missing.")]
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="A .jsonl, .jsonl.gz or .jsonl.zst file of native records, a folder of them, an archive,"
        " or kafka://host:port/topic?from=OFFSET&to=OFFSET&partition=N",
        show_default=False,
    ),
]
RawSources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="A .jsonl, .jsonl.gz or .jsonl.zst file of native records, a folder of them,"
        " or kafka://host:port/topic?from=OFFSET&to=OFFSET&partition=N",
        show_default=False,
    ),
]
Classes = Annotated[
    Path | None,
    typer.Option(
        "--classes", metavar="FILE", help="Declared clients: CSV `client_id,class`, or a .toml or .json table."
    ),
]
ArtefactFolder = Annotated[
    Path | None,
    typer.Option("--artefacts", metavar="DIR", help="Folder that `calibrate` wrote. Default: the configured one."),
]
