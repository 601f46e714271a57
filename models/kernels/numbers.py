"""Small functions that every other kernel stands on: integers, buckets, and bytes of a text."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array
from numpy.typing import NDArray

from models.kernels.jit import kernel, part
from models.kernels.layout import SIZE_BUCKETS
from models.rows import U8

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


# Bytes of a text, one or eight at a time, where an array's own indexing is too slow. Numba checks of every signed index
# whether it counts from the end: a third of the time of a loop over bytes. Callers guarantee 0 <= at, and seven more
# bytes after `at` where eight are read.

ONES = np.uint64(0x0101010101010101)
HIGHS = np.uint64(0x8080808080808080)


def _place(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    array = make_array(signature.args[0])(context, builder, args[0])  # type: ignore[no-untyped-call]
    return builder.gep(array.data, [args[1]])


def _byte(_: Any, text: Any, at: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(builder.load(_place(context, builder, signature, args)), cgutils.intp_t)

    return types.intp(text, types.intp), code


def _word(_: Any, text: Any, at: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.bitcast(_place(context, builder, signature, args), cgutils.intp_t.as_pointer())
        return builder.load(place, align=1)

    return types.uint64(text, types.intp), code


def _zero_bits(_: Any, word: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], cgutils.true_bit)

    return types.intp(types.uint64), code


byte_at = cast(Callable[[U8, int], int], intrinsic(_byte))
"""text[at], as an integer."""

word_at = cast(Callable[[U8, int], np.uint64], intrinsic(_word))
"""text[at:at + 8], the first byte lowest."""

zero_bits_below = cast(Callable[[np.uint64], int], intrinsic(_zero_bits))
"""How many zero bits stand below the lowest one of a number that is not 0."""


@kernel
def bytes_equal(word: np.uint64, byte: int) -> np.uint64:
    """The high bit of each byte of a word that is `byte`; above the lowest of them others may be set too."""
    other = word ^ (ONES * np.uint64(byte))
    return (other - ONES) & ~other & HIGHS
