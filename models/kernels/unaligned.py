"""Bytes of a text, one or eight at a time, where an array's own indexing is too slow.

Numba asks of every signed index whether it counts from the end, which is a third of the time of a loop over bytes. Here
nobody asks: the caller vouches for 0 <= at, and for seven more bytes behind `at` where eight are read.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from models.kernels.jit import kernel
from models.rows import U8

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
