"""`probewatch`: the commands. What they do stands in other modules, imported only by the command that needs them.

Exit codes: 0 done, 1 something was found wrong (`doctor`, `verify`, `certify-check`, `topics check`) or failed, 2 the
command line, the configuration or a source cannot be used.
"""

import logging
import sys

import structlog
import typer

from streams.cli import (
    archive,
    artefacts,
    compare,
    dead_letters,
    desk,
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
    help="Finds clients that study a model, from the logs that AI gateways already write to Kafka.\n\n"
    "Begin with [bold]calibrate[/] on ordinary history, look at it with [bold]replay[/], then [bold]run[/].",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
PANELS = {
    "Calibration": (artefacts,),
    "Service": (service, topics, selftest),
    "The analyst's desk": (desk, explain, feedback, orders, render, dead_letters),
    "History": (archive, replay, compare),
}
for _panel, _modules in PANELS.items():
    for _commands in _modules:
        _commands.add_to(app, _panel)


@app.callback()
def _speak_apart() -> None:
    """What is logged goes to standard error: standard output belongs to the command's result."""
    # A client that cannot connect is an error of the command, told once; the library would tell it once more.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


def main() -> None:
    app()
