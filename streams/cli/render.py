"""`render`: alerts as lines for a SIEM."""

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from streams.cli.arguments import ConfigFile
from streams.cli.events import (
    KAFKA,
    Follow,
    ForClient,
    ForDetector,
    ForModel,
    From,
    Level,
    Mode,
    Since,
    Until,
    filter_of,
    place_of,
)
from streams.terminal import speaking

if TYPE_CHECKING:
    from streams.analyst.events import Alert


def add_to(app: typer.Typer, panel: str) -> None:
    app.command(rich_help_panel=panel)(render)


@speaking
def render(
    style: Annotated[
        Literal["ecs", "hec", "cef"],
        typer.Option("--as", help="Elastic Common Schema, Splunk's HTTP Event Collector, or Common Event Format."),
    ],
    alert: Annotated[
        str, typer.Argument(metavar="[ALERT]", help="Only this one: the beginning of its id.", show_default=False)
    ] = "",
    place: From = KAFKA,
    since: Since = "",
    until: Until = "",
    client: ForClient = "",
    model: ForModel = "",
    detector: ForDetector = "",
    level: Level = 0,
    mode: Mode = None,
    following: Follow = False,
    config: ConfigFile = None,
) -> None:
    """Print alerts for a SIEM that does not read OCSF, one a line; what they say is the same.

    Example: probewatch render --as hec --since 1h
    """
    import asyncio
    import contextlib

    from streams.analyst.errors import EventError
    from streams.analyst.events import Alert, Kind, follow, read_events
    from streams.analyst.siem import FORMATS

    kinds: tuple[Kind, ...] = ("alert",)
    settings, wanted = filter_of(config, since, until, client, model, detector, level, mode)
    if following and place_of(place) is not None:
        raise EventError("--follow: expected the configured topics; a file does not go on")

    def put(found: "Alert") -> None:
        if found.uid.startswith(alert):
            sys.stdout.buffer.write(FORMATS[style](found) + b"\n")
            sys.stdout.buffer.flush()

    async def go_on() -> None:
        async for event in follow(settings, wanted, kinds, past=True):
            if isinstance(event, Alert):
                put(event)

    if following:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(go_on())
        return
    for event in read_events(place_of(place), settings, wanted, kinds):
        if isinstance(event, Alert):
            put(event)
