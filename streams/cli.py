"""`probewatch`: the commands. What they do stands in other modules, imported only by the command that needs them.

Exit codes: 0 done, 1 something was found wrong (`doctor`, `verify`, `certify-check`, `topics check`) or failed, 2 the
command line, the configuration or a source cannot be used.
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from streams import cli_artefacts
from streams.cli_arguments import AsJson, Classes, ConfigFile, Out, Sources
from streams.cli_artefacts import secrets_or_new
from streams.terminal import say, show, speaking

if TYPE_CHECKING:
    from detector.config import Config
    from models.artefacts import Artefacts
    from streams.secrets import Secrets
    from streams.sources import Source


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

Client = Annotated[
    str, typer.Argument(metavar="CLIENT", help="Pseudonym (k1-...), or the client id itself.", show_default=False)
]
RoleName = Annotated[
    Literal["gateway", "worker", "soc", "door", "analyst", "operator", "admin"],
    typer.Option("--role", help="Whose rights the configured user should have."),
]
ModelName = Annotated[str, typer.Option("--model", metavar="NAME", help="Only for this model.")]


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
def replay(
    sources: Sources,
    out: Out,
    artefacts: Annotated[
        Path | None,
        typer.Option("--artefacts", metavar="DIR", help="Folder that `calibrate` wrote; else the configured one."),
    ] = None,
    config: ConfigFile = None,
    classes: Classes = None,
    plain_clients: Annotated[
        bool, typer.Option("--plain-clients", help="Put the log's client ids, not pseudonyms, into `client`.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Judge history with the code that runs live: alerts, throttle, rejects (.jsonl) and summary.json go to DIR.

    Without artefacts the history itself is fitted first ("cold"): good for a first look, not for figures to rely on.

    Example: probewatch replay logs/june.jsonl.zst --out out/june --artefacts artefacts
    """
    from streams import replay as history
    from streams.lists import with_classes
    from streams.progress import Bars
    from streams.secrets import load_settings
    from streams.sources import open_sources

    settings = load_settings(config)
    opened = open_sources(sources, settings)
    with Bars() as bars:
        fitted, secrets, cold = _artefacts(settings, artefacts, classes, opened, out, bars)
        settings = with_classes(settings, classes, secrets)
        outcome = history.replay(opened, settings, fitted, secrets, bars, plain_clients=plain_clients)
    summary = outcome.summary | {"cold": cold}
    history.write(outcome._replace(summary=summary), out)
    if not summary["rows"]:
        say("no row was judged; see rejects.jsonl and `unjudged` in summary.json")
    if summary["evicted_clients"]:
        say(f"{summary['evicted_clients']:,} clients left for want of room and began anew: raise state.block_bytes")
    if as_json:
        print(json.dumps(summary))
    else:
        show(({"class": name, **counts} for name, counts in summary["classes"].items()), False)
        say(f"{summary['rows']:,} rows, {summary['alerts']:,} alerts in {summary['seconds']} s; written to {out}")


@app.command()
@speaking
def archive(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="kafka://host:port/topic?from=OFFSET&to=OFFSET", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Parquet file to write, FILE.parquet.")],
    config: ConfigFile = None,
) -> None:
    """Keep frames of `requests` beyond the topic's retention. `replay` reads the file and gives the live events.

    Example: probewatch archive kafka://localhost:9092/probewatch.requests.v1 --out june.parquet
    """
    from streams.kafka_source import KafkaSource
    from streams.progress import Bars
    from streams.secrets import load_settings
    from streams.sources import ARCHIVE_SUFFIX, SourceError

    if out.suffix != ARCHIVE_SUFFIX:
        raise SourceError(f"--out: expected a name that ends in {ARCHIVE_SUFFIX}; got {out}")
    with Bars() as bars:
        kept = KafkaSource(source, load_settings(config)).archive(out, bars.task(source, None))
    say(f"{kept:,} frames written to {out}")


@app.command()
@speaking
def allow(
    client: Client,
    until: Annotated[
        str, typer.Option("--until", metavar="TIME", help="RFC 3339, or a date; on the client's own clock.")
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept with the order.")],
    model: ModelName = "",
    config: ConfigFile = None,
) -> None:
    """Leave a client alone until a time: a permitted test, say. Its evidence is kept. Takes effect in every partition.

    Example: probewatch allow acct-1842 --until 2031-05-01 --reason "red team, ticket 12"
    """
    from streams.control import ControlError, send

    try:
        moment = datetime.fromisoformat(until)
    except ValueError:
        raise ControlError(f"--until: expected a date or an RFC 3339 time; got {until!r}") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    settings, secrets = _order(config, client)
    sent = send(settings, secrets, "allow", client, model, int(moment.timestamp() * 1000), reason)
    say(f"allowed until {moment.isoformat()}; written to {sent} partitions of {settings.topics.requests}")


@app.command()
@speaking
def lift(
    client: Client,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept with the order.")] = "",
    model: ModelName = "",
    config: ConfigFile = None,
) -> None:
    """End the decisions in force on a client and start its evidence anew.

    Example: probewatch lift k1-abcdefghijklmnopqrstuvwxyz --reason "false alarm"
    """
    from streams.control import send

    settings, secrets = _order(config, client)
    sent = send(settings, secrets, "lift", client, model, 0, reason)
    say(f"lifted; written to {sent} partitions of {settings.topics.requests}")


@app.command()
@speaking
def rekey(sources: Sources, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """While pseudonym keys rotate: give allowances again under the new names of clients.

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
    say(f"{len(found.orders)} allowances given again; {found.unknown} of clients that these records do not name")


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


def _order(file: Path | None, client: str) -> "tuple[Config, Secrets | None]":
    """Whoever names a pseudonym needs no keys."""
    from detector.config import PSEUDONYM
    from streams.secrets import load_secrets, load_settings

    settings = load_settings(file)
    return settings, None if PSEUDONYM.fullmatch(client) else load_secrets(settings, settings.artefacts)


def _artefacts(
    config: "Config",
    folder: Path | None,
    classes: Path | None,
    sources: "Sequence[Source]",
    out: Path,
    reporter: Any,
) -> "tuple[Artefacts, Secrets, bool]":
    """Fitted artefacts, their secrets, and whether this history itself had to be fitted."""
    from models.artefacts import ArtefactError, load_artefacts
    from streams.calibrate import calibrate as fit
    from streams.lists import with_classes
    from streams.secrets import load_secrets, trusted_keys

    if folder is not None and not folder.is_dir():
        raise ArtefactError(f"{folder}: no such folder; `probewatch calibrate SOURCE --out {folder}` fills it")
    if folder is None and config.artefacts.is_dir():
        folder = config.artefacts
    if folder is not None:
        secrets = load_secrets(config, folder)
        return load_artefacts(folder, secrets.projection_seed, trusted_keys(config)), secrets, False
    say("COLD: no artefacts; fitted on the replayed history itself, so thresholds are conditional on it")
    fitted = out / "artefacts"
    secrets = secrets_or_new(config, fitted)
    fit(sources, fitted, with_classes(config, classes, secrets), secrets, reporter, cold=True)
    return load_artefacts(fitted, secrets.projection_seed, trusted_keys(config)), secrets, True


if __name__ == "__main__":
    main()
