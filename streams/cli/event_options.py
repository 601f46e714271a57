"""The options of commands that read events: where from, which ones, and whether to follow."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_type_hints

import typer

from streams.cli.arguments import ConfigFile

if TYPE_CHECKING:
    from streams.analyst.events import Filter
    from streams.config.config import Config

KAFKA = "kafka"

From = Annotated[
    str,
    typer.Option("--from", metavar="PLACE", help="A replay's folder, a file of events, or kafka: the topics."),
]
Since = Annotated[
    str,
    typer.Option("--since", metavar="TIME", help="From this time on: a date, RFC 3339, or an age (90m, 24h, 7d)."),
]
Until = Annotated[str, typer.Option("--until", metavar="TIME", help="Before this time.")]
ForClient = Annotated[str, typer.Option("--client", metavar="CLIENT", help="Pseudonym (k1-...) or client id.")]
ForModel = Annotated[str, typer.Option("--model", metavar="NAME", help="Only this model.")]
ForDetector = Annotated[str, typer.Option("--detector", metavar="NAME", help="Only this detector.")]
Level = Annotated[
    int, typer.Option("--level", min=0, max=4, help="This level or higher: 1 watch, 2 soft, 3 hard, 4 block.")
]
Mode = Annotated[Literal["shadow", "enforce"] | None, typer.Option("--mode", help="Only decisions of this mode.")]
Follow = Annotated[
    bool,
    typer.Option(
        "--follow",
        help="Go on until Ctrl-C and print each new event as one line; for `clients`, each decision about one.",
    ),
]


class EventOptions(NamedTuple):
    """What a user asked for with the options below."""

    place: From = KAFKA
    since: Since = ""
    until: Until = ""
    client: ForClient = ""
    model: ForModel = ""
    detector: ForDetector = ""
    level: Level = 0
    mode: Mode = None
    follow: Follow = False
    config: ConfigFile = None

    def check_follow(self) -> None:
        """Raises EventError if the place cannot be followed."""
        from streams.analyst.events import EventError

        if self.place != KAFKA:
            raise EventError(f"--follow: expected --from kafka, the configured topics; got {self.place}")

    def filter(self, client: str = "") -> "tuple[Config, Filter]":
        """The configuration, and the filter. client : of an argument, instead of --client."""
        from streams.analyst.events import Filter, now
        from streams.analyst.times import time_of
        from streams.secrets.load import load_settings

        settings, at = load_settings(self.config), now()
        return settings, Filter(
            since=time_of(self.since, "--since", at, "past") if self.since else None,
            until=time_of(self.until, "--until", at, "past") if self.until else None,
            client=pseudonyms(settings, client or self.client),
            model=self.model,
            detector=self.detector,
            level=self.level,
            mode=self.mode or "",
        )


def with_event_options(*left_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command all options of EventOptions but those left out. It receives them as its parameter `options`.

    Typer reads a command's options from its signature, so the decorated command gets the signature of both.
    """
    hints = get_type_hints(EventOptions, include_extras=True)
    names = [name for name in EventOptions._fields if name not in left_out]
    added = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=EventOptions._field_defaults[name], annotation=hints[name]
        )
        for name in names
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(command).parameters.values()
            if parameter.name != "options"
        ]

        @functools.wraps(command)
        def wrapped(**arguments: Any) -> None:
            options = EventOptions(**{name: arguments.pop(name) for name in names})
            command(options=options, **arguments)

        parameters = [*own, *added]
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapped

    return decorate


def pseudonyms(settings: "Config", client: str) -> tuple[str, ...]:
    """Of a client id, one for each pseudonym key in use; () for "". A pseudonym stands for itself and needs no keys."""
    from streams.config.input import PSEUDONYM
    from streams.secrets.load import load_secrets
    from streams.sketch.identity import pseudonyms_of

    if not client:
        return ()
    secrets = None if PSEUDONYM.fullmatch(client) else load_secrets(settings, settings.artefacts)
    return tuple(pseudonyms_of(client, secrets))


def path_of(place: str) -> Path | None:
    """None for the topics."""
    return None if place == KAFKA else Path(place)
