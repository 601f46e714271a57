"""`probewatch topics create | check | acls`."""

import asyncio
from typing import Annotated

import msgspec
import typer

from streams.cli.arguments import AsJson, ConfigFile, JsonOutput, output
from streams.terminal import print_json, say, show, speaking

topics_app = typer.Typer(help="The Kafka topics that the service needs.", no_args_is_help=True)


class CreatedTopic(msgspec.Struct, frozen=True):
    """A topic that was created."""

    made: str


class TopicProblem(msgspec.Struct, frozen=True):
    """Something wrong with a topic, and what was expected."""

    problem: str


def outputs() -> dict[str, JsonOutput]:
    from streams.kafka.acl import Binding

    return {
        "topics create": output("Topics that were created. Existing ones are not listed.", list[CreatedTopic]),
        "topics check": output("What is wrong with the topics; empty if nothing is.", list[TopicProblem]),
        "topics acls": output("All ACLs that the roles need.", list[Binding]),
    }


def add_to(app: typer.Typer, panel: str) -> None:
    app.add_typer(topics_app, name="topics", rich_help_panel=panel)


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
    from streams.kafka import topics
    from streams.secrets.load import load_settings

    made = asyncio.run(topics.create(load_settings(config), raw_partitions))
    show(map(CreatedTopic, made), as_json)
    if not made:
        say("every topic is there already")


@topics_app.command("check")
@speaking
def topics_check(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Say what is wrong with the topics; exit code 1 if anything is.

    Example: probewatch topics check --json
    """
    from streams.kafka import topics
    from streams.secrets.load import load_settings

    problems = asyncio.run(topics.check(load_settings(config)))
    show(map(TopicProblem, problems), as_json)
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
    from streams.kafka.acl import bindings, commands
    from streams.secrets.load import load_settings

    named = dict(one.partition("=")[::2] for one in principal or ())
    settings = load_settings(config)
    if as_json:
        print_json(list(bindings(settings, named)))
    else:
        print("\n".join(commands(settings, named)))
