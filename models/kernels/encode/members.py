"""Keys of table rows, and a Bloom filter of keys."""

import numpy as np

from models.kernels.jit import kernel
from models.kernels.numbers import mix64
from models.rows import F64, I64, U8, U64


@kernel
def row_keys(plain: F64, columns: I64, salt: U64, categorical: U8, digests: U64, digest_start: I64, keys: U64) -> None:
    """A key for each of n rows, which depends on no order of fields.

    plain : (n, f) as TableReader gives it   columns, salt, categorical : (s,) of the set's fields; their places in
    `plain`   digests : of known categories; field i owns digest_start[i:i+2]   keys : (n,)
    """
    for i in range(len(plain)):
        total = np.uint64(0)
        for s in range(len(columns)):
            value = plain[i, columns[s]]
            if np.isnan(value):
                total += mix64(salt[s] ^ np.uint64(0x5BD1E9955BD1E995))
                continue
            if categorical[s] == 0:
                word = np.float64(value + 0.0).view(np.uint64)  # -0.0 is 0.0
            elif value >= 1048576.0:
                word = np.uint64(value - 1048576.0)
            else:
                word = digests[digest_start[s] + np.int64(value)]
            total += mix64(salt[s] ^ mix64(word))
        keys[i] = mix64(total)


@kernel
def add_keys(bits: U64, keys: U64, probes: int) -> None:
    """Set `probes` bits a key: a Bloom filter with double hashing (Kirsch, Mitzenmacher 2006)."""
    size = np.uint64(64 * len(bits))
    for key in keys:
        at, step = key, mix64(key) | np.uint64(1)
        for _ in range(probes):
            place = at % size
            bits[place >> np.uint64(6)] |= np.uint64(1) << (place & np.uint64(63))
            at += step


@kernel
def find_keys(bits: U64, keys: U64, probes: int, found: U8) -> None:
    """found : (n,) 1 for a key that was added, or that agrees with added ones in all its bits; else 0."""
    size = np.uint64(64 * len(bits))
    for i in range(len(keys)):
        at, step = keys[i], mix64(keys[i]) | np.uint64(1)
        found[i] = 1
        for _ in range(probes):
            place = at % size
            if (bits[place >> np.uint64(6)] >> (place & np.uint64(63))) & np.uint64(1) == np.uint64(0):
                found[i] = 0
                break
            at += step
