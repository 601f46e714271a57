"""Options that all commands about events share, and the filter they ask for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from streams.analyst.events import Filter
    from streams.config.config import Config

From = Annotated[
    str,
    typer.Option(
        "--from", metavar="PLACE", help="A replay's folder, a file of events, or kafka: the configured topics."
    ),
]
Since = Annotated[
    str, typer.Option("--since", metavar="TIME", help="Not before: a date, RFC 3339, or a span back (90m, 24h, 7d).")
]
Until = Annotated[str, typer.Option("--until", metavar="TIME", help="Before: likewise.")]
ForClient = Annotated[str, typer.Option("--client", metavar="CLIENT", help="Pseudonym (k1-...), or the client id.")]
ForModel = Annotated[str, typer.Option("--model", metavar="NAME", help="Only about this model.")]
ForDetector = Annotated[str, typer.Option("--detector", metavar="NAME", help="Only of this detector.")]
Level = Annotated[int, typer.Option("--level", min=0, max=4, help="At least: 1 watch, 2 soft, 3 hard, 4 block.")]
Mode = Annotated[Literal["shadow", "enforce"] | None, typer.Option("--mode", help="Only decided in this mode.")]
Follow = Annotated[bool, typer.Option("--follow", help="Go on as they come, until Ctrl-C; JSON is then one a line.")]
KAFKA = "kafka"


def filter_of(
    config: Path | None,
    since: str = "",
    until: str = "",
    client: str = "",
    model: str = "",
    detector: str = "",
    level: int = 0,
    mode: str | None = None,
) -> "tuple[Config, Filter]":
    """The configuration, and the filter that these options ask for; who names a pseudonym needs no keys."""
    from streams.analyst.events import Filter, now
    from streams.analyst.times import time_of
    from streams.config.input import PSEUDONYM
    from streams.secrets.load import load_secrets, load_settings
    from streams.sketch.identity import pseudonyms_of

    settings, at = load_settings(config), now()
    secrets = None if not client or PSEUDONYM.fullmatch(client) else load_secrets(settings, settings.artefacts)
    return settings, Filter(
        since=time_of(since, "--since", at, "past") if since else None,
        until=time_of(until, "--until", at, "past") if until else None,
        client=pseudonyms_of(client, secrets) if client else (),
        model=model,
        detector=detector,
        level=level,
        mode=mode or "",
    )


def place_of(text: str) -> Path | None:
    return None if text == KAFKA else Path(text)
