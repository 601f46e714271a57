"""`probewatch run | doctor | client-id | rekey`."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from streams.cli.arguments import AsJson, ConfigFile, JsonOutput, RawSources, output
from streams.terminal import print_json, say, show, speaking

if TYPE_CHECKING:
    from streams.config.config import Config
    from streams.secrets.load import Secrets

RoleName = Annotated[
    Literal["gateway", "worker", "soc", "door", "analyst", "operator", "admin"],
    typer.Option("--role", help="Role whose rights the configured Kafka user should have."),
]


class ClientPseudonym(msgspec.Struct, frozen=True):
    """A client's pseudonym under the current key."""

    client: Annotated[str, msgspec.Meta(pattern="^[a-z0-9]{1,16}-[a-z2-7]{26}$")]


class RegistryLine(msgspec.Struct, frozen=True):
    """A line of input.registry: a client's new pseudonym and its declared class."""

    client: str
    client_class: Literal["consumer", "broker", "system"] = msgspec.field(name="class")


def outputs() -> dict[str, JsonOutput]:
    from streams.ops.checks import Check

    return {
        "client-id": output("The client's pseudonym under the current key.", ClientPseudonym),
        "rekey": output("Lines of input.registry under the new pseudonyms.", list[RegistryLine]),
        "doctor": output("All checks that were made.", list[Check]),
    }


def add_to(app: typer.Typer, panel: str) -> None:
    app.command(rich_help_panel=panel)(run)
    app.command("client-id", rich_help_panel=panel)(client_id)
    app.command(rich_help_panel=panel)(rekey)
    app.command(rich_help_panel=panel)(doctor)


@speaking
def run(
    stage: Annotated[
        Literal["sketch", "judge", "link"] | None,
        typer.Option("--stage", help="Run only this stage. Default: all three."),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Run a worker until SIGTERM: reads gateway logs, writes throttle decisions, alerts and drift records.

    Workers share the partitions, so start as many as the load needs. A worker that fails exits with code 1 and loses
    nothing: let a supervisor restart it. /live, /ready and /metrics are served at web.host and web.port.

    Example: probewatch run --config probewatch.toml
    """
    from streams.secrets.load import load_settings
    from streams.worker.app import STAGES, run_worker

    raise typer.Exit(run_worker(load_settings(config), (stage,) if stage else STAGES))


@speaking
def client_id(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Client id as the gateway logs it.", show_default=False)],
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Print a client's pseudonym, as alerts and throttle records use it.

    Example: probewatch client-id acct-1842
    """
    from streams.sketch.identity import pseudonym_of

    _, secrets = _settings(config)
    found = pseudonym_of(name, secrets)
    print_json(ClientPseudonym(found)) if as_json else print(found)


@speaking
def rekey(sources: RawSources, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Rotate pseudonyms: send allowances and blocks again under the clients' new pseudonyms.

    SOURCE is raw records with the client ids. Prints the lines of input.registry under the new pseudonyms, and writes
    the orders into `requests`. Set secrets.previous_key_id first.

    Example: probewatch rekey kafka://localhost:9092/gateway-logs
    """
    from streams.history.sources import open_sources
    from streams.ops import rekey as rotation
    from streams.progress import Bars

    settings, secrets = _settings(config)
    with Bars() as bars:
        found = rotation.rekey(settings, secrets, open_sources(sources, settings), bars)
    show(itertools.starmap(RegistryLine, found.registry.items()), as_json)
    say(f"{len(found.orders)} orders sent again; {found.unknown} clients with orders do not occur in these records")


@speaking
def doctor(config: ConfigFile = None, role: RoleName = "worker", as_json: AsJson = False) -> None:
    """Check configuration, secrets, artefacts, broker, rights and topics, and print how to fix what is wrong.

    Example: probewatch doctor --config probewatch.toml
    """
    from streams.ops.doctor import examine

    checks = examine(config, role)
    show(checks, as_json)
    if any(check.state == "fault" for check in checks):
        raise typer.Exit(1)


def _settings(file: Path | None) -> "tuple[Config, Secrets]":
    from streams.secrets.load import load_secrets, load_settings

    settings = load_settings(file)
    return settings, load_secrets(settings, settings.artefacts)
