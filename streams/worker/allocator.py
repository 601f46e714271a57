"""What the process does with memory: it asks little while batches run, and keeps nothing that has gone for good."""

import ctypes
import gc

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Parameters of glibc's mallopt."""

MAPPED_BYTES = 4 * 2**20
"""What is larger, such as the state of many clients, is mapped alone and returned at once. The columns of a batch are
smaller, and come and go with each."""

KEPT_BYTES = 256 * 2**20

_libc = ctypes.CDLL(None)


def settle() -> None:
    """For a process that handles batches, when everything is imported.

    The cycle collector is kept away from what never goes (imported modules), and from every few hundred records: a
    batch makes tens of thousands of objects without cycles. Freed memory stays with the allocator, where it is glibc's:
    that gave each batch's columns back and had the next one's zeroed anew, up to a quarter of the work of `sketch`.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, MAPPED_BYTES)
        mallopt(TRIM_THRESHOLD, KEPT_BYTES)


def give_back() -> None:
    """To be called when much has gone, as with each rebalance: it takes tens of milliseconds.

    Whatever hangs in cycles would stay until the collector comes by, for hours. What the allocator holds free between
    things that are still needed is handed to the system.
    """
    gc.collect()
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)
