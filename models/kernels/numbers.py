"""Small integer functions that every other kernel stands on."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.kernels.jit import kernel, part
from models.kernels.layout import SIZE_BUCKETS

NEVER = -100_000
"""Evidence of a process that has seen nothing: log 0, in milli-nats."""

CEILING = 2_000_000
"""No evidence grows beyond this; 2,000 nats are as certain as 200."""

COUNT_CEILING = 2_000_000_000
"""Counts are kept in thousandths too, and may be large."""

_SOFTPLUS_REACH = 8_000
SOFTPLUS = np.round(1000.0 * np.log1p(np.exp(-np.arange(_SOFTPLUS_REACH) / 1000.0))).astype(np.int32)
"""1000 log(1 + exp(-x / 1000)) for x = 0 .. 7,999 milli-nats; beyond that it rounds to 0 or 1 thousandth."""


@part
def softplus(evidence: int) -> int:
    """log(1 + M) for log M in milli-nats: the Shiryaev-Roberts restart, exact in integers on every processor."""
    size = evidence if evidence >= 0 else -evidence
    base = evidence if evidence > 0 else 0
    if size >= 8_000:
        return base
    return base + int(SOFTPLUS[size])


@part
def mix64(word: np.uint64) -> np.uint64:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit moves every output bit."""
    word = np.uint64(word) + np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@part
def copy(target: NDArray[Any], source: NDArray[Any]) -> None:
    """One line into another. An assignment would make a third in between, in case they overlap."""
    for i in range(len(target)):
        target[i] = source[i]


@part
def variant_bucket(variants: int) -> int:
    """Bucket of the number of earlier variants: 0, 1, 2, 3-4, 5-8, 9-16, 17-32, 33+."""
    if variants < 3:
        return variants
    if variants < 5:
        return 3
    if variants < 9:
        return 4
    if variants < 17:
        return 5
    if variants < 33:
        return 6
    return 7


@part
def gap_bucket(gap_ms: int) -> int:
    """Bucket of the time between two rows: .1, 1, 3, 10 s, 1, 10, 60 min and more."""
    if gap_ms < 3_000:
        if gap_ms < 100:
            return 0
        return 1 if gap_ms < 1_000 else 2
    if gap_ms < 60_000:
        return 3 if gap_ms < 10_000 else 4
    if gap_ms < 600_000:
        return 5
    return 6 if gap_ms < 3_600_000 else 7


@kernel
def size_bucket(count: int) -> int:
    """Number of bits of a count, at most 20: rows of the day in doubling steps."""
    bits = 0
    while count > 0 and bits < SIZE_BUCKETS - 1:
        count >>= 1
        bits += 1
    return bits
