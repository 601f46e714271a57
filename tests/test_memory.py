"""What has gone is given back, though it hangs in a cycle or lies between things that stay."""

import gc
import weakref
from pathlib import Path

import pytest

from streams import memory

PIECES, PIECE_BYTES = 20_000, 4_096


class Node:
    def __init__(self) -> None:
        self.itself = self


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096


@pytest.mark.skipif(not hasattr(memory._libc, "malloc_trim"), reason="this C library gives memory back by itself")
def test_what_lies_free_between_what_stays_goes_back() -> None:
    pieces = [bytes(PIECE_BYTES) for _ in range(PIECES)]
    stay = pieces[7::8]
    full = resident_bytes()
    del pieces
    memory.give_back()
    assert full - resident_bytes() > PIECES * PIECE_BYTES // 2 and len(stay) == PIECES // 8


def test_cycles_go_though_the_collector_seldom_comes() -> None:
    thresholds = gc.get_threshold()
    try:
        memory.spare_collector()
        gone = weakref.ref(Node())
        assert gone() is not None
        memory.give_back()
        assert gone() is None
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def test_a_c_library_that_cannot_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_libc", object())
    memory.give_back()
