"""Training rows of a model's owner as a keyed Bloom filter: whether an input is one of them, and nothing else.

With the set and the projection seed any row can be tested; without the seed none can. The set depends on its rows and
the seed only, never on what an encoder was fitted to.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.encoders.base import Encoded, Encoder, RowLayout
from models.encoders.table_reader import derive
from models.kernels.encode.encode import add_keys, find_keys
from models.rows import U64

SCHEMA = "probewatch.training-set/1"
BITS_PER_ROW = 20
PROBES = 14
"""(1 - exp(-14 / 20))^14: 6.7e-5 of other rows look like members (Bloom 1970). A million rows take 2.5 MB."""


class MembersError(ValueError):
    """A training set that cannot be used; the text says why and how to fix it."""


@dataclass(frozen=True)
class Members:
    """One training set."""

    model: str  # "" for every model that it fits
    kind: str  # of the encoders that it is for
    layout: RowLayout  # as `Encoder.row_layout` gave it
    rows: int  # how many were added, equal ones too
    bits: U64  # (words,)
    seed: bytes = field(repr=False)

    @property
    def false_positive_rate(self) -> float:
        """Share of other rows that are taken for members, from the bits that are set."""
        share = int(np.bitwise_count(self.bits).sum()) / (64 * len(self.bits))
        return float(share**PROBES)

    def misfit(self, encoder: Encoder) -> str:
        """Why inputs of this encoder cannot be looked up; "" if they can."""
        if self.kind != encoder.kind:
            return f"expected {encoder.kind} rows; got {self.kind} rows"
        return encoder.row_misfit(self.layout)

    def lookup(self, encoder: Encoder) -> "Lookup":
        """The look-up for inputs that `encoder` encodes. Raises MembersError if they do not fit."""
        if reason := self.misfit(encoder):
            raise MembersError(f"training set: {reason}")
        return Lookup(self.bits, encoder.row_lookup(self.layout, self.seed))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Header, bits and a keyed checksum, as stored in a file of its own and in artefacts."""
        names = ("model", "kind", "layout", "rows")
        header: dict[str, Any] = {"schema": SCHEMA} | {name: getattr(self, name) for name in names}
        header |= {"false_positive_rate": self.false_positive_rate, "seed_check": _seed_check(self.seed)}
        text = json.dumps(header, sort_keys=True).encode()
        checksum = np.frombuffer(_checksum(text, self.bits, self.seed), np.uint8)
        return {"members.header": np.frombuffer(text, np.uint8), "members.bits": self.bits, "members.sum": checksum}

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]], seed: bytes) -> "Members | None":
        """None if none was stored. Raises MembersError for an altered one, or one of another seed or layout."""
        if "members.header" not in arrays:
            return None
        text, bits = arrays["members.header"].tobytes(), arrays["members.bits"]
        try:
            header = json.loads(text)
            if header["schema"] != SCHEMA:
                raise MembersError(f"expected the layout {SCHEMA}; got another; make the set again")
            if header["seed_check"] != _seed_check(seed):
                raise MembersError("made with another projection seed; give that one, or make the set again")
            if arrays["members.sum"].tobytes() != _checksum(text, bits, seed):
                raise MembersError("altered since it was written; restore it, or make the set again")
            return Members(header["model"], header["kind"], header["layout"], header["rows"], bits, seed)
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise MembersError("damaged; restore it, or make the set again") from error


class Lookup(NamedTuple):
    """A set that is ready for one encoder's inputs."""

    bits: U64
    keys: Callable[[Encoded], U64]

    def contains(self, encoded: Encoded) -> NDArray[np.bool_]:
        """(n,)"""
        keys = self.keys(encoded)
        is_member = np.empty(len(keys), np.uint8)
        find_keys(self.bits, keys, PROBES, is_member)
        return is_member.astype(np.bool_)


def empty_bits(rows: int) -> U64:
    return np.zeros(-(-max(rows, 1) * BITS_PER_ROW // 64), np.uint64)


def add(bits: U64, keys: U64) -> None:
    add_keys(bits, keys, PROBES)


def _seed_check(seed: bytes) -> str:
    return derive(seed, b"training set check").hex()[:16]


def _checksum(header: bytes, bits: U64, seed: bytes) -> bytes:
    digest = hashlib.blake2b(header, key=derive(seed, b"training set sum"), digest_size=16)
    digest.update(np.ascontiguousarray(bits).tobytes())
    return digest.digest()
