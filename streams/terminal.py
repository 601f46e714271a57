"""Output of commands: results go to standard output, messages and errors to standard error."""

import contextlib
import functools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType
from typing import Any, ParamSpec

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from detector.events.escape import printable
from models.errors import UserError, WorldError

P = ParamSpec("P")

PIPED_COLUMNS = 10_000
"""Width of a table in a pipe, so that no line wraps."""

WORD_COLUMNS = 40
"""Sentences wrap at this width. Ids and times never break: people copy them."""


def print_json(value: Any) -> None:
    """One value on one line: a struct, a list of structs, or plain values. ASCII only, so safe for any terminal."""
    print(json.dumps(msgspec.to_builtins(value)))


PIPE_CLOSED = 128 + signal.SIGPIPE
"""Exit code of a command whose output nobody reads any more, as shells give it."""


def show(rows: Iterable[Mapping[str, Any] | msgspec.Struct], as_json: bool = False) -> None:
    """Print rows as a table, or as a JSON list. A struct is a row of its fields."""
    listed = list(rows)
    if as_json:
        print_json(listed)
    elif listed:
        _print_table([row if isinstance(row, Mapping) else msgspec.to_builtins(row) for row in listed])


def _print_table(listed: list[Mapping[str, Any]]) -> None:
    cells = [
        [f"{value:,}" if isinstance(value, int) else printable(str(value)) for value in row.values()] for row in listed
    ]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, column in zip(listed[0], zip(*cells, strict=True), strict=True):
        words = [len(word) for text in column for word in text.split()]
        table.add_column(name, min_width=min(WORD_COLUMNS, max(words, default=0)))
    for row in cells:
        table.add_row(*map(Text, row))
    Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS).print(table, crop=False)


def say(text: str) -> None:
    print(printable(text, "\n"), file=sys.stderr, flush=True)


def speaking(command: Callable[P, None]) -> Callable[P, None]:
    """Print errors that the user can fix as one message without a traceback, and exit with their code."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()  # here, and not at the end of Python, which makes it exit code 120
        except BrokenPipeError as error:
            # The reader of standard output has left, as `head` does. What is still buffered must not be tried again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(PIPE_CLOSED) from error
        except Exception as error:
            code = _exit_code(error)
            if code is None:
                raise
            say(f"probewatch: {error}")
            raise typer.Exit(code) from error

    return wrapped


def _exit_code(error: Exception) -> int | None:
    """2 for errors in files and arguments, 1 for errors of the environment (Kafka, disk), None for bugs."""
    from aiokafka.errors import KafkaError  # most commands do not need the client library

    if isinstance(error, UserError):
        return 2
    return 1 if isinstance(error, WorldError | KafkaError | OSError) else None


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM as a question to be asked at the next good place; the second one does not wait for it.

    Only for the main thread.
    """
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
