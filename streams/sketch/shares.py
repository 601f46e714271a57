"""One id that carries a large share of a model's rows: "anonymous", a default key, a proxy in front of everybody.

What looks like a probe there may be many people, which the fold cannot know. So it is told early, and a person says
what it is: many people (`policy.shared_clients`), or one client that is known (`input.registry`).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from detector.frame import RowFrame
from models.pseudonym import client_of, pseudonym
from models.rows import U8, U64

WINDOW_ROWS = 20_000
"""Rows of a model that one share is taken of."""

LARGE = 0.2
CLIENTS_MIN = 20
"""Of few clients each has a large share."""

REMEDY = "if many people share it, name it in policy.shared_clients; if it is one broker or system, in input.registry"


class Share(NamedTuple):
    """The client with most rows of a model, but for declared ones. client : its pseudonym. large : to be told."""

    model: str
    client: str
    share: float
    large: bool


class _Window(NamedTuple):
    key_ids: list[str]
    clients: list[U64]
    tails: list[U8]


class Shares:
    """The largest share of each model, window by window of WINDOW_ROWS rows.

    declared : pseudonyms of which a person has said what they are.
    """

    def __init__(self, declared: Iterable[str]) -> None:
        self._declared = np.array(sorted(map(client_of, declared)), np.uint64)
        self._windows: dict[str, _Window] = {}
        self._rows: dict[str, int] = {}

    def add(self, frame: RowFrame) -> Share | None:
        """The share of the window that this frame completes, if it completes one."""
        window = self._windows.setdefault(frame.model, _Window([], [], []))
        window.key_ids.append(frame.key_id)
        window.clients.append(frame.rows.client)
        window.tails.append(frame.rows.client_tail)
        rows = self._rows[frame.model] = self._rows.get(frame.model, 0) + frame.rows.count
        if rows < WINDOW_ROWS:
            return None
        del self._windows[frame.model], self._rows[frame.model]
        return self._largest(frame.model, window)

    def rest(self, rows_min: int) -> list[Share]:
        """Of windows that are not complete and hold so many rows."""
        full = [model for model, rows in sorted(self._rows.items()) if rows >= rows_min]
        found = (self._largest(model, self._windows[model]) for model in full)
        return [share for share in found if share is not None]

    def _largest(self, model: str, window: _Window) -> Share | None:
        clients, tails = np.concatenate(window.clients), np.concatenate(window.tails)
        names, first, counts = np.unique(clients, return_index=True, return_counts=True)
        counts = np.where(np.isin(names, self._declared), 0, counts)
        most = int(np.argmax(counts))
        if not counts[most]:
            return None
        share = float(counts[most]) / len(clients)
        name = pseudonym(_at(window, int(first[most])), int(names[most]), tails[first[most]].tobytes())
        return Share(model, name, share, share >= LARGE and len(names) >= CLIENTS_MIN)


def _at(window: _Window, row: int) -> str:
    """The key id of a row."""
    lengths: Sequence[int] = np.cumsum([len(clients) for clients in window.clients]).tolist()
    return window.key_ids[int(np.searchsorted(lengths, row, side="right"))]
