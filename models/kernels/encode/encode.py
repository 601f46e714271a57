"""Inputs to integers: standardise, rotate, project, hash."""

import math
from typing import NamedTuple

import numpy as np

from models.kernels.jit import kernel, making_kernel
from models.kernels.numbers import mix64
from models.rows import F32, F64, I16, I32, I64, U8, U16, U32, U64

SATURATION = 32_767


class TableTables(NamedTuple):
    """A fitted table encoder, f fields."""

    centre: F64  # (f,)
    scale: F64  # (f,)
    step: F64  # (f,) 0: no grid, -1: categories
    low: F64  # (f,) ordinary values lie in [low, high], unseen categories beyond
    high: F64
    required: U8  # (f,) 1 where history had a value in nearly every row
    known: F64  # values seen in history, sorted within each field; field i owns known_start[i:i+2]
    known_surprisals: U8
    known_start: I64  # (f + 1,)
    unknown: U8  # (f,) surprisal of a value that is not among them
    missing: U8  # (f,)
    unseen: U8  # (f,) surprisal of an unseen category
    order: I64  # (f,) secret order of the fields before rotation
    rotation: F64  # (f, min(64, f)) as `rotate` wants it
    salt: U64  # (f,)


class EncodedRows(NamedTuple):
    """Where n encoded rows go."""

    values: I16  # (n, f)
    fields: U16  # (n, f)
    surprisal: U8  # (n, f)
    offgrid: U32  # (n,)
    exact: U64  # (n,) a hash of what is no field's on entry, of the whole row on return
    odd: U32  # (n,)


@kernel
def compress_tail(z: float) -> float:
    """Identity up to 4 standard units, logarithmic beyond: keeps 57 units within 8, so that int16 has fine steps.

    Infinity, where value / scale overflows, stands at 1e300: the rotation would make NaN of it.
    """
    if z > 4.0:
        return 4.0 + math.log1p(min(z, 1e300) - 4.0)
    if z < -4.0:
        return -4.0 - math.log1p(min(-z, 1e300) - 4.0)
    return z


@kernel
def quantise(value: float) -> int:
    """1/2048 units, half to even, saturating."""
    scaled = np.rint(value * 2048.0)
    if scaled > SATURATION:
        return SATURATION
    if scaled < -SATURATION:
        return -SATURATION
    return int(scaled)


@kernel
def is_off_grid(value: float, step: float) -> bool:
    """step 0: no grid; step < 0: categories, which have none either."""
    if step <= 0.0:
        return False
    steps = value / step
    # rint, not round: compiled round() makes an int64, and a whole number beyond 2**63 would look off its grid
    return bool(abs(steps - np.rint(steps)) > 1e-9 * max(1.0, abs(steps)) + 1e-9)


@kernel
def unseen_place(value: float) -> float:
    """One of seven places within two standard units of the centre, by the digest of an unseen category.

    None is far out, so that it is no novelty; they lie further apart than variants reach, so that two unseen categories
    are as a rule not near each other: with all of them at the centre, whoever spells a field anew repeats himself.
    """
    return (np.int64(value - 1048576.0) % 7 - 3) * 0.6


@kernel
def known_surprisal(value: float, known: F64, surprisals: U8, start: int, end: int, unknown: int) -> int:
    """Surprisal of a value by binary search among the sorted known ones.

    Without a branch on what is found: half of them would be guessed wrongly.
    """
    low, length = start, end - start
    while length > 1:
        half = length >> 1
        low += half * int(known[low + half - 1] < value)
        length -= half
    if low < end and known[low] == value:
        return int(surprisals[low])
    return unknown


@making_kernel
def encode_table(raw: F64, table: TableTables, into: EncodedRows) -> None:
    """Encode n table rows in place. raw : (n, f), NaN where the field is missing.

    A missing value stands at the centre; it differs from a present one by its hash, not by distance. An
    unseen category, 2**20 or beyond, stands among the ordinary ones.
    """
    centre, scale, step, salt, missing, unknown = (
        table.centre, table.scale, table.step, table.salt, table.missing, table.unknown,
    )  # fmt: skip
    low, high, required, unseen = table.low, table.high, table.required, table.unseen
    known, known_surprisals, known_start = table.known, table.known_surprisals, table.known_start
    fields, surprisal = into.fields, into.surprisal
    n, f = raw.shape
    standard, sums = np.empty(f), np.empty(table.rotation.shape[1])
    for i in range(n):
        whole = into.exact[i]
        off, odd = np.uint32(0), np.uint32(0)
        for j in range(f):
            value, bit = raw[i, j], np.uint32(1) << np.uint32(min(j, 31))
            if np.isnan(value):
                standard[j] = 0.0
                surprisal[i, j] = missing[j]
                hashed = mix64(salt[j] ^ np.uint64(0x5BD1E9955BD1E995))
                if required[j]:
                    odd |= bit
            else:
                value = value + 0.0
                bits = np.float64(value).view(np.uint64)
                hashed = mix64(salt[j] ^ mix64(bits))
                if value < low[j] or value > high[j]:
                    odd |= bit
                if step[j] < 0.0 and value >= 1048576.0:
                    standard[j] = unseen_place(value)
                    surprisal[i, j] = unseen[j]
                else:
                    standard[j] = compress_tail((value - centre[j]) / scale[j])
                    start, end = known_start[j], known_start[j + 1]
                    surprisal[i, j] = known_surprisal(value, known, known_surprisals, start, end, unknown[j])
                    if is_off_grid(value, step[j]):
                        off |= bit
            fields[i, j] = np.uint16(hashed & np.uint64(0xFFFF))
            whole = mix64(whole ^ hashed)
        rotate(standard, table.order, table.rotation, sums, into.values[i])
        into.offgrid[i], into.odd[i] = off, odd
        into.exact[i] = whole


@kernel
def rotate(standard: F64, order: I64, rotation: F64, sums: F64, out: I16) -> None:
    """Rotate blocks of at most 64 fields, taken in a secret order; lengths stay, fields cannot be read off.

    rotation : (f, w), transposed within each block: what a field adds to the w numbers of its block. All sums of a
    block side by side take a tenth of the time of one after the other. sums : (w,) to work in
    """
    f, width = len(standard), len(sums)
    for block in range(0, f, 64):
        sums[:] = 0.0
        for i in range(block, min(block + 64, f)):
            value = standard[order[i]]
            for k in range(width):
                sums[k] += rotation[i, k] * value
        for k in range(min(width, f - block)):
            out[block + k] = quantise(sums[k])


@kernel
def transpose_blocks(rotation: F64, turned: F64) -> None:
    """What `rotate` wants, of rows as `orthogonalise` leaves them. turned : (f, w) of zeros"""
    f = len(rotation)
    for j in range(f):
        block = (j >> 6) << 6
        for i in range(min(64, f - block)):
            turned[block + i, j - block] = rotation[j, i]


@kernel
def orthogonalise(rotation: F64) -> None:
    """Gram-Schmidt on the rows of each block, in place; plain loops so that every machine gets the same matrix."""
    f = rotation.shape[0]
    for j in range(f):
        block = (j >> 6) << 6
        width = min(64, f - block)
        for _ in range(2):  # once more: "twice is enough" (Giraud, Langou 2005)
            for other in range(block, j):
                dot = 0.0
                for i in range(width):
                    dot += rotation[j, i] * rotation[other, i]
                for i in range(width):
                    rotation[j, i] -= dot * rotation[other, i]
            norm = 0.0
            for i in range(width):
                norm += rotation[j, i] * rotation[j, i]
            norm = np.sqrt(norm)
            for i in range(width):
                rotation[j, i] /= norm


@making_kernel
def project(vectors: F32, bits: U32, flips: I32, salt: np.uint64, values: I16, exact: U64, faulty: U8) -> None:
    """Project n embeddings to 64 numbers by secret signs, in exact integer sums.

    vectors : (n, dim), and their bits   flips : (dim, 64) 0 for the sign 1 and -1 for -1   values : (n, 64)
    faulty : (n,) set to 1 for NaN or infinity, 2 for zero length.
    Unit vectors are cut to 2**-14; the sum over signs estimates length (Achlioptas 2003, random signs).
    """
    n, dim = vectors.shape
    sums, flipped = np.empty(64, np.int32), np.zeros(64, np.int32)
    for j in range(dim):
        for k in range(64):
            flipped[k] -= flips[j, k]
    norms = np.empty(n)
    for i in range(0, n, 4):
        measure(vectors, bits, i, min(i + 1, n - 1), min(i + 2, n - 1), min(i + 3, n - 1), salt, norms, exact)
    for i in range(n):
        if not np.isfinite(norms[i]):
            faulty[i] = 1
        elif norms[i] <= 0.0:
            faulty[i] = 2
        if faulty[i]:
            exact[i] = 0
            continue
        unit = 16384.0 / np.sqrt(norms[i])
        sums[:] = flipped
        for j in range(dim):
            part = np.int32(np.rint(np.float64(vectors[i, j]) * unit))
            for k in range(64):
                sums[k] += part ^ flips[j, k]  # ~part is -part - 1, and `flipped` counts the ones
        for k in range(64):
            values[i, k] = quantise(sums[k] / 131072.0)  # 2**14 for the cut, 8 = sqrt(64) for the projection


@kernel
def measure(vectors: F32, bits: U32, a: int, b: int, c: int, d: int, salt: np.uint64, norms: F64, exact: U64) -> None:
    """Squared lengths and hashes of four rows. Side by side, since each step of a hash waits for the one before."""
    p = q = r = s = 0.0
    one = two = three = four = salt
    for j in range(vectors.shape[1]):
        w, x, y, z = vectors[a, j], vectors[b, j], vectors[c, j], vectors[d, j]
        p += np.float64(w) * np.float64(w)
        q += np.float64(x) * np.float64(x)
        r += np.float64(y) * np.float64(y)
        s += np.float64(z) * np.float64(z)
        one = mix64(one ^ np.uint64(bits[a, j]))
        two = mix64(two ^ np.uint64(bits[b, j]))
        three = mix64(three ^ np.uint64(bits[c, j]))
        four = mix64(four ^ np.uint64(bits[d, j]))
    norms[a], norms[b], norms[c], norms[d] = p, q, r, s
    exact[a], exact[b], exact[c], exact[d] = one, two, three, four


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
