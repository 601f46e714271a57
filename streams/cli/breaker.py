"""`probewatch breaker show | explain | reset`."""

import asyncio
from typing import Annotated

import msgspec
import typer

from streams.cli.arguments import AsJson, ConfigFile, JsonOutput, output
from streams.terminal import print_json, say, show, speaking

breaker_app = typer.Typer(
    help="What keeps a model's decisions in shadow when far more clients are decided on than promised.",
    no_args_is_help=True,
)
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.", show_default=False)]


class SentReset(msgspec.Struct, frozen=True):
    """A reset that was written to `requests`."""

    model: str
    reason: str


def outputs() -> dict[str, JsonOutput]:
    from streams.ops.breaker import BreakerCount

    return {
        "breaker show": output("Every count that has begun, open or not.", list[BreakerCount]),
        "breaker reset": output("The reset that was sent.", SentReset),
    }


def add_to(app: typer.Typer, panel: str) -> None:
    app.add_typer(breaker_app, name="breaker", rich_help_panel=panel)


@breaker_app.command("show")
@speaking
def breaker_show(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List, by model and level, how many clients were decided on within an hour, and what is open.

    Example: probewatch breaker show
    """
    from streams.ops.breaker import counts
    from streams.secrets.load import load_settings

    found = asyncio.run(counts(load_settings(config)))
    show(found, as_json)
    if not found:
        say("nothing counted yet: the breaker acts with policy.mode = enforce")


@breaker_app.command("explain")
@speaking
def breaker_explain(model: ModelArgument, config: ConfigFile = None) -> None:
    """Say in sentences whether a model's breaker is open, why, whom it holds back and what to do.

    Example: probewatch breaker explain loan
    """
    from streams.ops.breaker import counts, explained
    from streams.secrets.load import load_settings

    print("\n".join(explained(model, asyncio.run(counts(load_settings(config))))))


@breaker_app.command("reset")
@speaking
def breaker_reset(
    model: ModelArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; stored with the order.")],
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Close a model's breaker: what has not run out is enforced again, and the count begins anew.

    Example: probewatch breaker reset loan --reason "many accounts of one attacker, blocked"
    """
    from streams.ops.breaker import reset
    from streams.secrets.load import load_settings

    settings = load_settings(config)
    asyncio.run(reset(settings, model, reason))
    if as_json:
        print_json(SentReset(model, reason))
    else:
        say(f"reset; written to {settings.topics.requests}")
