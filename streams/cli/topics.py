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
            "--raw-partitions", metavar="N", min=0, max=1024, help="Also create the raw topics, with N partitions."
        ),
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Create missing topics. Existing topics are not changed; `topics check` checks them.

    Example: probewatch topics create --raw-partitions 3
    """
    from streams.kafka import topics
    from streams.secrets.load import load_settings

    made = asyncio.run(topics.create(load_settings(config), raw_partitions))
    show(map(CreatedTopic, made), as_json)
    if not made:
        say("all topics exist")


@topics_app.command("check")
@speaking
def topics_check(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Check the topics and their settings. Exit code 1 if something is wrong. Advice about raw topics is no fault.

    Example: probewatch topics check --json
    """
    from streams.kafka import topics
    from streams.secrets.load import load_settings

    settings = load_settings(config)
    problems = asyncio.run(topics.check(settings))
    for text in asyncio.run(topics.advice(settings)):
        say(f"advice: {text}")
    show(map(TopicProblem, problems), as_json)
    if problems:
        raise typer.Exit(1)
    say("all topics are correct")


@topics_app.command("acls")
@speaking
def topics_acls(
    config: ConfigFile = None,
    principal: Annotated[
        list[str] | None,
        typer.Option("--principal", metavar="ROLE=NAME", help="Principal of a role: worker=User:CN=w. Repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the ACLs that each role needs, as `kafka-acls.sh` commands. Nothing is changed.

    A role without --principal is User:GROUP-ROLE, where GROUP is kafka.group.

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
