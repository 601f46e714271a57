"""Decimal text to 64-bit floats, correctly rounded: the nearest float, as Python's `float` gives it, or a refusal."""

from typing import NamedTuple

import numpy as np

from models.kernels.jit import kernel
from models.kernels.numbers import HIGHS, ONES, byte_at, word_at, zero_bits_below
from models.rows import F64, U8, U64

EXACT_POWER = 22
"""Powers of ten up to here are floats, so that one division or multiplication rounds correctly (Clinger 1990)."""

POWER_MAX = 64
"""With at most 19 digits and powers of ten within these, nothing is subnormal or infinite."""

DIGITS_MAX = 19

MINUS, PLUS, DOT, ZERO, NINE, UPPER_E, LOWER_E = b"-+.09Ee"

_EXACT: F64 = np.array([10.0**power for power in range(EXACT_POWER + 1)])
_TENS: U64 = np.array([10**count for count in range(9)], np.uint64)


class Decimal(NamedTuple):
    """end : position behind the number, -1 for text that is none or not read here. whole : without point and power."""

    end: int
    value: float
    whole: bool


def _powers() -> tuple[U64, U64]:
    """5 ** q as 128 bits, high and low half: truncated, and rounded up for negative q (Lemire 2021, section 3)."""
    made = []
    for q in range(-POWER_MAX, POWER_MAX + 1):
        power: int = 5 ** abs(q)
        if q < 0:
            length = (power - 1).bit_length()
            made.append(_top(2 ** (length + 127 if q >= -27 else 2 * length + 128) // power + 1))
        else:
            made.append(_top(power << 128))
    return np.array([one >> 64 for one in made], np.uint64), np.array([one & (2**64 - 1) for one in made], np.uint64)


def _top(number: int) -> int:
    return number >> (number.bit_length() - 128) if number.bit_length() > 128 else number


_HIGH, _LOW = _powers()


@kernel
def read_decimal(text: U8, at: int) -> Decimal:
    """The JSON number that begins at `at`. text : ends with eight bytes that are not part of any number."""
    refused = Decimal(-1, 0.0, False)
    negative = byte_at(text, at) == MINUS
    at += negative
    first, digits = at, np.uint64(0)
    c = byte_at(text, at)
    while ZERO <= c <= NINE:
        digits = digits * np.uint64(10) + np.uint64(c - ZERO)
        at += 1
        c = byte_at(text, at)
    if at == first or (byte_at(text, first) == ZERO and at > first + 1):
        return refused
    count, power, whole = at - first, 0, True
    if c == DOT:
        point = at + 1
        at, digits = read_digits(text, point, digits)
        if at == point:
            return refused
        power, whole = point - at, False
        count += at - point
        c = byte_at(text, at)
    if count > DIGITS_MAX and count - leading_zeros(text, first) > DIGITS_MAX:
        return refused
    if c in (LOWER_E, UPPER_E):
        at, more = read_power(text, at + 1)
        power, whole = power + more, False
        if at < 0:
            return refused
    value = round_decimal(digits, power)
    if value < 0.0:
        return refused
    if negative and not (whole and digits == 0):  # decoders read -0 as an integer, which has no sign
        value = -value
    return Decimal(at, value, whole)


@kernel
def read_digits(text: U8, at: int, digits: np.uint64) -> tuple[int, np.uint64]:
    """Place behind the digits that begin at `at`, and what they make of `digits` before them. Up to eight in one step.

    The value of eight digits in three multiplications: Lemire 2021, section 4.
    """
    while True:
        word = word_at(text, at) ^ (ONES * np.uint64(ZERO))
        others = ((word + ONES * np.uint64(0x76)) | word) & HIGHS
        if others == np.uint64(0):
            count = 8
        else:
            count = zero_bits_below(others) >> 3
            if count == 0:
                return at, digits
            word <<= np.uint64(64 - 8 * count)
        word = (word * np.uint64(10)) + (word >> np.uint64(8))
        pairs = word & np.uint64(0x000000FF000000FF)
        rest = (word >> np.uint64(16)) & np.uint64(0x000000FF000000FF)
        word = (pairs * np.uint64(0x000F424000000064) + rest * np.uint64(0x0000271000000001)) >> np.uint64(32)
        digits = digits * _TENS[count] + word
        at += count
        if count < 8:
            return at, digits


@kernel
def leading_zeros(text: U8, at: int) -> int:
    zeros = 0
    while byte_at(text, at) == ZERO or byte_at(text, at) == DOT:
        zeros += byte_at(text, at) == ZERO
        at += 1
    return zeros


@kernel
def read_power(text: U8, at: int) -> tuple[int, int]:
    """End and value of the digits behind an E; -1 and 0 without any."""
    c = byte_at(text, at)
    negative = c == MINUS
    if negative or c == PLUS:
        at += 1
    first, power = at, 0
    while ZERO <= byte_at(text, at) <= NINE:
        power = min(10 * power + (byte_at(text, at) - ZERO), 100_000)
        at += 1
    if at == first:
        return -1, 0
    return at, -power if negative else power


@kernel
def round_decimal(digits: np.uint64, power: int) -> float:
    """digits * 10 ** power; -1.0 where that is not decided here.

    Eisel and Lemire's algorithm (Lemire 2021, "Number parsing at a gigabyte per second", algorithm 1; the fallback
    conditions of Mushtak and Lemire 2023): a product with 128 bits of the power of five.
    """
    if digits < np.uint64(1 << 53) and -EXACT_POWER <= power <= EXACT_POWER:
        exact = np.float64(digits)
        return float(exact / _EXACT[-power] if power < 0 else exact * _EXACT[power])
    if digits == np.uint64(0):
        return 0.0
    if not -POWER_MAX <= power <= POWER_MAX:
        return -1.0
    shift = 0
    for step in (32, 16, 8, 4, 2, 1):
        if digits < np.uint64(1) << np.uint64(64 - step):
            digits <<= np.uint64(step)
            shift += step
    high, low = multiply(digits, _HIGH[power + POWER_MAX])
    if high & np.uint64(0x1FF) == np.uint64(0x1FF):
        more, _ = multiply(digits, _LOW[power + POWER_MAX])
        low += more
        if low < more:
            high += np.uint64(1)
    if low == np.uint64(0xFFFFFFFFFFFFFFFF) and not -27 <= power <= 55:
        return -1.0
    upper = np.int64(high >> np.uint64(63))
    mantissa = high >> np.uint64(upper + 9)
    is_half = low <= np.uint64(1) and mantissa << np.uint64(upper + 9) == high
    if is_half and -4 <= power <= 23 and mantissa & np.uint64(3) == np.uint64(1):
        mantissa &= ~np.uint64(1)  # half way between two floats: to the even one
    mantissa = (mantissa + (mantissa & np.uint64(1))) >> np.uint64(1)
    binary = ((217_706 * power) >> 16) + 63 + upper - shift
    # The mantissa is below 2**53 or, rounded up, 2**53 itself: exact as a float either way.
    return np.float64(mantissa) * two_to(binary - 52)


@kernel
def two_to(power: np.int64) -> float:
    """2 ** power, a normal number."""
    return np.int64((power + 1023) << 52).view(np.float64)


@kernel
def multiply(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    """High and low half of the product of two uint64."""
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    a1, a0, b1, b0 = a >> half, a & mask, b >> half, b & mask
    low, first, second = a0 * b0, a1 * b0, a0 * b1
    middle = (low >> half) + (first & mask) + (second & mask)
    high = a1 * b1 + (first >> half) + (second >> half) + (middle >> half)
    return high, (middle << half) | (low & mask)
