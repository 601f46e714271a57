"""`probewatch render`: alerts as lines for a SIEM."""

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from streams.cli.event_options import EventOptions, path_of, with_event_options
from streams.terminal import speaking

if TYPE_CHECKING:
    from streams.analyst.events import Event


def add_to(app: typer.Typer, panel: str) -> None:
    app.command(rich_help_panel=panel)(render)


@speaking
@with_event_options()
def render(
    options: EventOptions,
    style: Annotated[
        Literal["ecs", "hec", "cef"],
        typer.Option("--as", help="Elastic Common Schema, Splunk HTTP Event Collector, or Common Event Format."),
    ],
    alert: Annotated[
        str, typer.Argument(metavar="[ALERT]", help="Only this alert: its id or first digits.", show_default=False)
    ] = "",
) -> None:
    """Print alerts in a format for SIEMs without OCSF, one a line.

    Example: probewatch render --as hec --since 1h
    """
    import asyncio
    import contextlib

    from streams.analyst.events import Alert, Kind, follow, read_events
    from streams.analyst.siem import FORMATS

    kinds: tuple[Kind, ...] = ("alert",)
    settings, wanted = options.filter()

    def put(event: "Event") -> None:
        if isinstance(event, Alert) and event.uid.startswith(alert):
            sys.stdout.buffer.write(FORMATS[style](event) + b"\n")
            sys.stdout.buffer.flush()

    async def put_all() -> None:
        async for event in follow(settings, wanted, kinds, past=True):
            put(event)

    if options.follow:
        options.check_follow()
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(put_all())
        return
    for event in read_events(path_of(options.place), settings, wanted, kinds):
        put(event)
