"""The `probewatch` command. Each subcommand imports what it needs when it runs, so that `--help` is fast.

Exit codes: 0 success; 1 a check found something wrong (`doctor`, `verify`, `certify-check`, `topics check`) or the
command failed; 2 the command line, the configuration or a source cannot be used.
"""

import logging
import sys
from typing import Annotated

import structlog
import typer

from detector import __version__
from streams.cli import (
    alerts,
    archive,
    artefacts,
    breaker,
    compare,
    dead_letters,
    explain,
    feedback,
    orders,
    render,
    replay,
    selftest,
    service,
    topics,
)

app = typer.Typer(
    help="Detects clients that probe your models, from the request logs that AI gateways write to Kafka.\n\n"
    "Start with [bold]calibrate[/] on benign history, check the result with [bold]replay[/], then [bold]run[/].",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
PANELS = {
    "Calibration": (artefacts,),
    "Service": (service, topics, selftest),
    "Alerts": (alerts, explain, feedback, orders, breaker, render, dead_letters),
    "History": (archive, replay, compare),
}
for _panel, _modules in PANELS.items():
    for _commands in _modules:
        _commands.add_to(app, _panel)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"probewatch {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Log to standard error: standard output holds the result only."""
    # The command reports a client that cannot connect; the library would report it a second time.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


def main() -> None:
    app()
