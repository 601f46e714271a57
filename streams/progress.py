"""Progress for people: bars on standard error, on a terminal only, and only for what takes longer than two seconds."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column

from detector.events.escape import printable

PATIENCE_S = 2.0

Advance = Callable[[int], None]


class Reporter(Protocol):
    """Receives the progress of a long computation."""

    def task(self, description: str, total: int | None) -> Advance:
        """Announce work of `total` units, None if unknown. Call the result with the units done since the last call."""
        ...

    def tell(self, text: str) -> None:
        """Show a note about the current work. It replaces the note before."""
        ...


class Silent:
    """Reports nothing."""

    def task(self, description: str, total: int | None) -> Advance:
        return lambda _: None

    def tell(self, text: str) -> None:
        pass


class Bars:
    """Use as a context. Nothing is drawn before PATIENCE_S have passed, and nothing remains afterwards."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._shown = False
        self._last: TaskID | None = None
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True, min_width=5)),  # the bar gives way
            TextColumn("{task.fields[note]}", markup=False),
        )
        self._progress = Progress(
            *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
        )

    def task(self, description: str, total: int | None) -> Advance:
        task = self._progress.add_task(printable(description), total=total, note="")
        self._last = task

        def advance(units: int) -> None:
            self._progress.advance(task, units)
            if not self._shown and time.monotonic() - self._begun > PATIENCE_S:
                self._shown = True
                self._progress.start()

        return advance

    def tell(self, text: str) -> None:
        if self._last is not None:
            self._progress.update(self._last, note=printable(text))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._progress.stop()
