"""`probewatch`: the commands. What they do stands in other modules, imported only by the command that needs them.

Exit codes: 0 done, 1 something was found wrong (`doctor`, `verify`, `certify-check`, `topics check`) or failed, 2 the
command line, the configuration or a source cannot be used.
"""

import asyncio
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from streams import (
    cli_archive,
    cli_artefacts,
    cli_compare,
    cli_dead_letters,
    cli_desk,
    cli_feedback,
    cli_orders,
    cli_render,
    cli_replay,
    cli_selftest,
    cli_story,
)
from streams.cli_arguments import AsJson, ConfigFile, Sources
from streams.terminal import say, show, speaking

if TYPE_CHECKING:
    from detector.config import Config
    from streams.secrets import Secrets


app = typer.Typer(
    help="Finds clients that study a model, from the logs that AI gateways already write to Kafka.\n\n"
    "Begin with [bold]calibrate[/] on ordinary history, look at it with [bold]replay[/], then [bold]run[/].",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
topics_app = typer.Typer(help="The Kafka topics that the service needs.", no_args_is_help=True)
app.add_typer(topics_app, name="topics")
cli_artefacts.add_to(app)
cli_story.add_to(app)
cli_replay.add_to(app)
cli_compare.add_to(app)
cli_archive.add_to(app)
cli_dead_letters.add_to(app)
cli_desk.add_to(app)
cli_feedback.add_to(app)
cli_render.add_to(app)
cli_orders.add_to(app)
cli_selftest.add_to(app)

RoleName = Annotated[
    Literal["gateway", "worker", "soc", "door", "analyst", "operator", "admin"],
    typer.Option("--role", help="Whose rights the configured user should have."),
]


def main() -> None:
    # A client that cannot connect is an error of the command, told once; the library would tell it once more.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    app()


@app.command()
@speaking
def run(
    stage: Annotated[
        Literal["sketch", "judge", "link"] | None,
        typer.Option("--stage", help="Only this stage; all three by default."),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Work until SIGTERM: read gateway logs, judge clients, watch models, write throttle decisions and alerts.

    Start as many as there is work for; partitions are shared among them. A worker that fails ends with exit code 1 and
    loses nothing: start it again. /live, /ready and /metrics are served at web.host and web.port.

    Example: probewatch run --config probewatch.toml
    """
    from streams.app import STAGES, run_worker
    from streams.secrets import load_settings

    raise typer.Exit(run_worker(load_settings(config), (stage,) if stage else STAGES))


@app.command("client-id")
@speaking
def client_id(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The client id as the gateway logs it.", show_default=False)
    ],
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """The pseudonym of a client: what alerts and throttle records call it.

    Example: probewatch client-id acct-1842
    """
    from streams.control import pseudonym_of

    _, secrets = _settings(config)
    found = pseudonym_of(name, secrets)
    print(json.dumps({"client": found}) if as_json else found)


@app.command()
@speaking
def rekey(sources: Sources, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """While pseudonym keys rotate: give allowances and blocks again under the new names of clients.

    SOURCE are raw records that name the clients. Prints the lines of input.registry under the new names; orders are
    written into every partition of `requests`. Set secrets.previous_key_id first.

    Example: probewatch rekey kafka://localhost:9092/gateway-logs
    """
    from streams import rekey as rotation
    from streams.progress import Bars
    from streams.sources import open_sources

    settings, secrets = _settings(config)
    with Bars() as bars:
        found = rotation.rekey(settings, secrets, open_sources(sources, settings), bars)
    show(({"client": name, "class": klass} for name, klass in found.registry.items()), as_json)
    say(f"{len(found.orders)} orders given again; {found.unknown} clients with orders that these records do not name")


@app.command()
@speaking
def doctor(config: ConfigFile = None, role: RoleName = "worker", as_json: AsJson = False) -> None:
    """Look at configuration, secrets, artefacts, broker, rights and topics: what is wrong, and how to mend it.

    Example: probewatch doctor --config probewatch.toml
    """
    from streams.doctor import examine

    checks = examine(config, role)
    show((check._asdict() for check in checks), as_json)
    if any(check.state == "fault" for check in checks):
        raise typer.Exit(1)


@topics_app.command("create")
@speaking
def topics_create(
    config: ConfigFile = None,
    raw_partitions: Annotated[
        int,
        typer.Option(
            "--raw-partitions", metavar="N", min=0, max=1024, help="Also make the raw topics, with N partitions."
        ),
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Make the topics that are missing. Those that exist are left as they are: `topics check` looks at them.

    Example: probewatch topics create --raw-partitions 3
    """
    from streams import topics
    from streams.secrets import load_settings

    made = asyncio.run(topics.create(load_settings(config), raw_partitions))
    show(({"made": name} for name in made), as_json)
    if not made:
        say("every topic is there already")


@topics_app.command("check")
@speaking
def topics_check(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Say what is wrong with the topics; exit code 1 if anything is.

    Example: probewatch topics check --json
    """
    from streams import topics
    from streams.secrets import load_settings

    problems = asyncio.run(topics.check(load_settings(config)))
    show(({"problem": problem} for problem in problems), as_json)
    if problems:
        raise typer.Exit(1)
    say("topics are as they should be")


@topics_app.command("acls")
@speaking
def topics_acls(
    config: ConfigFile = None,
    principal: Annotated[
        list[str] | None,
        typer.Option("--principal", metavar="ROLE=NAME", help="Who a role is: worker=User:CN=w. Give it once a role."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print who needs which right, as `kafka-acls.sh` commands to read and run; nothing is changed.

    A role that is not named is the principal User:GROUP-ROLE, GROUP being kafka.group.

    Example: probewatch topics acls --principal worker=User:CN=probewatch,O=example
    """
    from streams.roles import bindings, commands
    from streams.secrets import load_settings

    named = dict(one.partition("=")[::2] for one in principal or ())
    settings = load_settings(config)
    if as_json:
        print(json.dumps([binding._asdict() for binding in bindings(settings, named)]))
    else:
        print("\n".join(commands(settings, named)))


def _settings(file: Path | None) -> "tuple[Config, Secrets]":
    from streams.secrets import load_secrets, load_settings

    settings = load_settings(file)
    return settings, load_secrets(settings, settings.artefacts)


if __name__ == "__main__":
    main()
