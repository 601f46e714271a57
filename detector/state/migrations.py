"""Layouts of stored state: each step brings a decoded body from one version of it to the next.

A change of what is stored raises the number (`engine.BLOCK_LAYOUT`, `drift.STATE_LAYOUT`) and adds the step that leads
there from the layout before. A step works on plain values, never on today's types: those will change again.
"""

from collections.abc import Callable, Mapping
from typing import Any

Body = dict[str, Any]
Steps = Mapping[int, Callable[[Body], Body]]
"""layout -> what makes a body of it one of the next layout."""


def unchanged(body: Body) -> Body:
    """Layout 3 of blocks put a checksum before the body."""
    return body


def with_blocked(body: Body) -> Body:
    """Layout 4 remembers whom people blocked."""
    return body | {"blocked": []}


def without_cuts(body: Body) -> Body:
    """Layout 2 of link's state knows what is closed in each partition; before, it was what is closed everywhere."""
    return body | {"cuts": []}


BLOCKS: Steps = {2: unchanged, 3: with_blocked}
LINK: Steps = {1: without_cuts}


def can_read(layout: int, wanted: int, steps: Steps) -> bool:
    return layout <= wanted and all(number in steps for number in range(layout, wanted))


def migrated(body: Body, layout: int, wanted: int, steps: Steps) -> Body:
    """The body in the wanted layout. Raises KeyError if no step leads there."""
    for number in range(layout, wanted):
        body = steps[number](body)
    return body
