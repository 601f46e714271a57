"""What has gone is given back, though it hangs in a cycle or lies between things that stay."""

import gc
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from streams.worker import allocator

PIECES, PIECE_BYTES = 20_000, 4_096


class Node:
    def __init__(self) -> None:
        self.itself = self


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096


only_glibc = pytest.mark.skipif(not hasattr(allocator._libc, "malloc_trim"), reason="a C library with other habits")

BATCHES = """
import resource, sys
import numpy as np
from streams.worker import allocator

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def batch():
    return [np.ones(2**18) for _ in range(20)]

if sys.argv[1] == "settled":
    allocator.settle()
batch()
before = faults()
for _ in range(20):
    batch()
print(faults() - before)
"""


@only_glibc
def test_a_batch_works_in_the_memory_of_the_one_before() -> None:
    found = {
        name: int(subprocess.run([sys.executable, "-c", BATCHES, name], capture_output=True, check=True).stdout)
        for name in ("settled", "as it is")
    }
    assert found["settled"] < 1_000 and found["as it is"] > 50_000


@only_glibc
def test_what_lies_free_between_what_stays_goes_back() -> None:
    pieces = [bytes(PIECE_BYTES) for _ in range(PIECES)]
    stay = pieces[7::8]
    full = resident_bytes()
    del pieces
    allocator.release_memory()
    assert full - resident_bytes() > PIECES * PIECE_BYTES // 2 and len(stay) == PIECES // 8


def test_cycles_go_though_the_collector_seldom_comes() -> None:
    thresholds = gc.get_threshold()
    try:
        allocator.settle()
        gone = weakref.ref(Node())
        assert gone() is not None
        allocator.release_memory()
        assert gone() is None
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def test_a_c_library_that_cannot_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_libc", object())
    gone = weakref.ref(Node())
    allocator.release_memory()
    assert gone() is None, "the rest is done"
