"""`probewatch allow | lift | block`: orders, written to `requests`; they take effect at their offset there."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import msgspec
import typer

from streams.cli.arguments import AsJson, ConfigFile, JsonOutput, output
from streams.terminal import print_json, say, speaking

if TYPE_CHECKING:
    from streams.config.config import Config
    from streams.secrets.load import Secrets

Client = Annotated[str, typer.Argument(metavar="CLIENT", help="Pseudonym (k1-...) or client id.", show_default=False)]
ModelName = Annotated[str, typer.Option("--model", metavar="NAME", help="Only this model.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; stored with the order.")]


class SentOrder(msgspec.Struct, frozen=True):
    """An order that was sent. clients : the client's pseudonyms, two while keys rotate. until : RFC 3339, empty for
    `lift`. partitions : number of partitions of `requests` that it was written to."""

    action: Literal["allow", "lift", "block"]
    clients: tuple[str, ...]
    model: str
    until: str
    reason: str
    partitions: int


def outputs() -> dict[str, JsonOutput]:
    return dict.fromkeys(("allow", "lift", "block"), output("The order that was sent.", SentOrder))


def add_to(app: typer.Typer, panel: str) -> None:
    app.command(rich_help_panel=panel)(allow)
    app.command(rich_help_panel=panel)(lift)
    app.command(rich_help_panel=panel)(block)


@speaking
def allow(
    client: Client,
    until: Annotated[
        str,
        typer.Option("--until", metavar="TIME", help="RFC 3339, a date, or a time from now (7d); client's clock."),
    ],
    reason: Reason,
    model: ModelName = "",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Exempt a client from decisions until a time, for example during a permitted test. Ends a block of the client.

    Its evidence is kept.

    Example: probewatch allow acct-1842 --until 2031-05-01 --reason "red team, ticket 12"
    """
    from streams.analyst.times import shown

    end = _end(until)
    _give(config, client, _Order("allow", model, end, reason), f"allowed until {shown(end)}", as_json)


@speaking
def lift(
    client: Client,
    reason: Reason = "",
    model: ModelName = "",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """End all decisions in force on a client, including blocks, and reset its evidence.

    Example: probewatch lift k1-abcdefghijklmnopqrstuvwxyz --reason "false alarm"
    """
    _give(config, client, _Order("lift", model, None, reason), "lifted", as_json)


@speaking
def block(
    client: Client,
    until: Annotated[
        str,
        typer.Option("--until", metavar="TIME", help="RFC 3339, a date, or a time from now (24h, at most 90d)."),
    ],
    reason: Reason,
    model: ModelName = "",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Make gateways refuse a client until a time, whatever its evidence, also in shadow mode. `lift` ends the block.

    Example: probewatch block k1-abcdefghijklmnopqrstuvwxyz --until 24h --reason "copies the model, ticket 13"
    """
    from streams.analyst.times import shown
    from streams.ops.orders import check_block

    end = _end(until)
    check_block(end)
    _give(config, client, _Order("block", model, end, reason), f"blocked until {shown(end)}", as_json)


class _Order(NamedTuple):
    action: Literal["allow", "lift", "block"]
    model: str
    until: datetime | None
    reason: str

    @property
    def until_ms(self) -> int:
        return 0 if self.until is None else int(self.until.timestamp() * 1000)


def _end(text: str) -> datetime:
    from streams.analyst.events import now
    from streams.analyst.times import time_of

    return time_of(text, "--until", now(), "future")


def _give(config: Path | None, client: str, order: _Order, done: str, as_json: bool) -> None:
    from streams.analyst.times import shown
    from streams.ops.orders import send
    from streams.sketch.identity import pseudonyms_of

    settings, secrets = order_settings(config, client)
    sent = send(settings, secrets, order.action, client, order.model, order.until_ms, order.reason)
    if as_json:
        names = tuple(pseudonyms_of(client, secrets))
        print_json(SentOrder(order.action, names, order.model, shown(order.until), order.reason, sent))
    else:
        where = f"{sent} partitions" if sent > 1 else "one partition"
        say(f"{done}; written to {where} of {settings.topics.requests}")


def order_settings(file: Path | None, client: str) -> "tuple[Config, Secrets | None]":
    """The configuration, and the secrets unless `client` is a pseudonym, which needs no keys."""
    from streams.config.input import PSEUDONYM
    from streams.secrets.load import load_secrets, load_settings

    settings = load_settings(file)
    return settings, None if PSEUDONYM.fullmatch(client) else load_secrets(settings, settings.artefacts)
