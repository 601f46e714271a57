"""`probewatch selftest`: an empty list of alerts means that all is quiet, or that the pipeline is broken."""

from typing import Annotated

import typer

from streams.cli.arguments import AsJson, ConfigFile, JsonOutput, output
from streams.terminal import print_json, say, show, speaking


def outputs() -> dict[str, JsonOutput]:
    from streams.ops.selftest.selftest import SelftestReport

    return {"selftest": output("What was sent, what was expected, and each step.", SelftestReport)}


def add_to(app: typer.Typer, panel: str) -> None:
    app.command(rich_help_panel=panel)(selftest)


@speaking
def selftest(
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="Model to probe. Default: the first by name.")
    ] = "",
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=1, max=3600, help="Time limit of each step.")
    ] = 60.0,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Send a synthetic prober through the live pipeline and check that decision and alert arrive. Exit code 1 if not.

    The prober is a client of its own (probewatch-selftest-...). Afterwards its decisions are lifted and its alert is
    suppressed. The command needs the same secrets and artefacts as the workers.

    Example: probewatch selftest --model loan
    """
    import time

    from models.artefacts.store import load_artefacts
    from streams.ops.selftest.rehearsal import rehearse
    from streams.ops.selftest.selftest import SelftestReport, reserved_name
    from streams.ops.selftest.selftest import selftest as run
    from streams.secrets.load import load_secrets, load_settings, trusted_keys

    settings = load_settings(config)
    secrets = load_secrets(settings, settings.artefacts)
    artefacts = load_artefacts(settings.artefacts, secrets.projection_seed, trusted_keys(settings))
    now_ms = time.time_ns() // 1_000_000
    rehearsal = rehearse(settings, artefacts, secrets, model, name=reserved_name(), end_ms=now_ms)
    say(f"{len(rehearsal.values)} requests to model {rehearsal.model} as {rehearsal.client}")
    steps = run(settings, rehearsal, timeout_s)
    passed = all(step.state == "ok" for step in steps)
    if as_json:
        requests = len(rehearsal.values)
        print_json(SelftestReport(rehearsal.model, rehearsal.client, requests, passed, rehearsal.due, steps))
    else:
        show(steps)
    if not passed:
        raise typer.Exit(1)
