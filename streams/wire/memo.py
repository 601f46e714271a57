"""A bounded memo."""

import sys
from collections.abc import Callable
from typing import Generic, TypeVar

KEY_BYTES_MAX = 4_096
"""Larger keys are not kept: nobody's names of a megabyte fill the memory."""

K = TypeVar("K")
V = TypeVar("V")


class TwoGenerations(dict[K, V], Generic[K, V]):
    """A bounded memo: what was not asked for since the last but one time it filled up is forgotten.

    A hit costs one dict lookup in C (an exact LRU would reorder in Python on every hit). Holds at most 2 * `limit`.
    """

    def __init__(self, compute: Callable[[K], V], limit: int) -> None:
        super().__init__()
        self._compute = compute
        self._limit = limit
        self._old: dict[K, V] = {}

    def __missing__(self, key: K) -> V:
        if sys.getsizeof(key) > KEY_BYTES_MAX:
            return self._compute(key)
        if len(self) >= self._limit:
            self._old = dict(self)
            self.clear()
        value = self._old[key] if key in self._old else self._compute(key)
        self[key] = value
        return value
