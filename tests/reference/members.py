"""Training rows written again for reading: a key a row, and a Bloom filter whose bits are a set of numbers."""

import hashlib
from collections.abc import Mapping
from typing import Any

from tests.reference.encode import WORD, SlowTable, bits_of, derive, mix64

PROBES = 14


def row_key(row: Mapping[str, Any], kinds: Mapping[str, str], seed: bytes) -> int:
    """kinds : field to "number" or "category". Fields are added up, so that their order does not matter."""
    total = 0
    for name, kind in kinds.items():
        salt = int.from_bytes(derive(seed, b"member", name.encode())[:8], "big")
        value = row.get(name)
        if value is None:
            total += mix64(salt ^ 0x5BD1E9955BD1E995)
        elif kind == "category":
            digest = hashlib.blake2b(
                SlowTable.name(value).encode(), key=derive(seed, b"unseen"), digest_size=4
            ).digest()
            total += mix64(salt ^ mix64(int.from_bytes(digest, "big")))
        else:
            total += mix64(salt ^ mix64(bits_of(float(value) + 0.0, "d")))
    return mix64(total & WORD)


def places(key: int, size: int) -> set[int]:
    """Bits of a key in a filter of `size` bits."""
    step = mix64(key) | 1
    return {((key + probe * step) & WORD) % size for probe in range(PROBES)}
