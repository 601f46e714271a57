"""Settings of malloc and the garbage collector for a process that handles batches."""

import ctypes
import gc

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Parameters of glibc's mallopt."""

MAPPED_BYTES = 4 * 2**20
"""Larger allocations, such as the state of many clients, are mapped alone and returned at once. The columns of a batch
are smaller, and are allocated and freed with each batch."""

KEPT_BYTES = 256 * 2**20

_libc = ctypes.CDLL(None)


def settle() -> None:
    """Call once, after all imports.

    - The cycle collector skips imported modules, which never go, and runs less often: a batch makes tens of thousands
      of objects without cycles.
    - glibc keeps freed memory. By default it returned each batch's columns to the system and got them back zeroed: up
      to a quarter of the work of `sketch`.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, MAPPED_BYTES)
        mallopt(TRIM_THRESHOLD, KEPT_BYTES)


def release_memory() -> None:
    """Call when much has been freed, as after a rebalance; takes tens of milliseconds.

    Collects cycles, which would otherwise stay for hours, and returns the allocator's free memory to the system.
    """
    gc.collect()
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)
