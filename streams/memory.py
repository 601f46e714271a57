"""What the process does with memory that it no longer needs, and Python would keep."""

import ctypes
import gc

_libc = ctypes.CDLL(None)


def spare_collector() -> None:
    """Keep the cycle collector away from what never goes (imported modules), and from every few hundred records.

    A batch makes tens of thousands of short-lived objects without cycles; walking all the others each time is waste.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def give_back() -> None:
    """To be called when much has gone, as with each rebalance: it takes tens of milliseconds.

    Whatever hangs in cycles would stay until the collector comes by, for hours. What the allocator holds free between
    things that are still needed is handed to the system, where the C library knows how (glibc).
    """
    gc.collect()
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)
