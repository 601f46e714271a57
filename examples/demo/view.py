"""The demo on the screen: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from examples.demo.report import HEADERS, ClassRow

FEED_LINES = 8
PLAIN_EVERY_S = 5.0


class View:
    """Stages, a table that refreshes itself, and a feed of decisions."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self._begun = time.monotonic()
        self._feed: list[str] = []

    def say(self, text: str) -> None:
        self.console.print(self._timed(text), soft_wrap=True)

    def _timed(self, text: str) -> str:
        return f"[dim]{time.monotonic() - self._begun:6.1f} s[/]  {text}"

    def fail(self, text: str) -> None:
        """What went wrong, taken literally: it may quote a log."""
        self.console.print(text, style="red", markup=False)

    def event(self, text: str) -> None:
        """One decision as it happens."""
        self._feed.append(self._timed(text))
        if not self.console.is_terminal:
            self.say(text)

    @contextmanager
    def live(self, rows: Callable[[], Iterable[ClassRow]]) -> Iterator[Callable[[], None]]:
        """Show rows() as they change. The caller calls what is given, a few times a second."""
        if not self.console.is_terminal:
            yield self._plain(rows)
            return
        with Live(console=self.console, auto_refresh=False, transient=True) as screen:

            def refresh() -> None:
                screen.update(Group(as_table(rows()), *self._feed[-FEED_LINES:]), refresh=True)

            yield refresh
        self.console.print(*self._feed, sep="\n", soft_wrap=True)

    def _plain(self, rows: Callable[[], Iterable[ClassRow]]) -> Callable[[], None]:
        due = time.monotonic() + PLAIN_EVERY_S

        def refresh() -> None:
            nonlocal due
            if time.monotonic() < due:
                return
            due += PLAIN_EVERY_S
            listed = list(rows())
            sent, refused = sum(row.requests for row in listed), sum(row.refused for row in listed)
            self.say(f"{sent:,} requests, {sum(len(row.rows) for row in listed)} clients throttled, {refused} refused")

        return refresh


def as_table(rows: Iterable[ClassRow]) -> Table:
    table = Table(*HEADERS, box=None, header_style="bold", pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row.cells(), style="red" if row.rows else None)
    return table
