"""Which clients sent odd values, by window of event time: small samples that any order of rows gives alike.

A sample keeps the clients with the least keys (bottom-k: Cohen, Kaplan 2007); keys are keyed hashes, so nobody chooses
to be in it. A client that is kept has been kept since its first row, and its bits are joined by OR: neither order nor
redelivery changes a sample.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from models.rows import FLAG_AHEAD, FLAG_UNJUDGED, FLAG_UNKNOWN_MODEL, FLAG_UNREADABLE, I64, U32, U64, Rows

SAMPLED_CLIENTS = 128
"""Of a window. A tenth of the 64 that are needed stands out among as many; 20 bytes each."""

ODD, OFFGRID, FLAGS = 0, 1, 2
SIGNALS = 3
"""Bitmaps of a row that are looked at: two by field, and its flags."""
BITS = 32
FLAGS_TOLD = FLAG_UNREADABLE | FLAG_UNJUDGED | FLAG_UNKNOWN_MODEL | FLAG_AHEAD


class Sample(NamedTuple):
    """m clients, rising. signals : (m, SIGNALS), the bits that any of a client's rows had."""

    client: U64
    signals: U32


NOBODY = Sample(np.zeros(0, np.uint64), np.zeros((0, SIGNALS), np.uint32))


def signals_of(rows: Rows) -> U32:
    """(n, SIGNALS)"""
    flags = (rows.flags & np.uint16(FLAGS_TOLD)).astype(np.uint32)
    return np.stack([rows.odd, rows.offgrid, flags], axis=1)


def samples(window: I64, client: U64, signals: U32) -> Iterator[tuple[int, Sample]]:
    """Of n rows, by window, rising. window, client : (n,)   signals : (n, SIGNALS)"""
    order = np.lexsort((client, window))
    window, client, signals = window[order], client[order], signals[order]
    cuts = np.flatnonzero(np.diff(window)) + 1
    for start, stop in zip([0, *cuts.tolist()], [*cuts.tolist(), len(window)], strict=True):
        if start < stop:
            yield int(window[start]), _least(client[start:stop], signals[start:stop], SAMPLED_CLIENTS)


def merged(one: Sample, other: Sample) -> Sample:
    """The sample of both together."""
    return _least(*_sorted([one, other]), SAMPLED_CLIENTS)


def together(parts: Sequence[Sample]) -> Sample:
    """All clients of all parts."""
    return _least(*_sorted(parts), None)


def counts(sample: Sample) -> I64:
    """(SIGNALS, BITS) how many clients have each bit."""
    bits = (sample.signals[:, :, None] >> np.arange(BITS, dtype=np.uint32)) & np.uint32(1)
    found: I64 = bits.sum(axis=0, dtype=np.int64)
    return found


def _sorted(parts: Sequence[Sample]) -> tuple[U64, U32]:
    client = np.concatenate([part.client for part in parts])
    order = np.argsort(client, kind="stable")
    return client[order], np.concatenate([part.signals for part in parts])[order]


def _least(client: U64, signals: U32, most: int | None) -> Sample:
    """client : rising, with repetitions."""
    if not len(client):
        return NOBODY
    starts = np.flatnonzero(np.r_[True, client[1:] != client[:-1]])
    return Sample(client[starts][:most], np.bitwise_or.reduceat(signals, starts, axis=0)[:most])
