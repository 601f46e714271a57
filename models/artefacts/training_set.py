"""Training rows of a model's owner as a keyed Bloom filter: whether an input is one of them, and nothing else.

Whoever holds the set and the projection seed can test any row; without the seed nobody can test anything. The set
depends on its rows and the seed only, never on what an encoder was fitted to.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.encoders.base import Encoded, Encoder
from models.encoders.embedding import EmbeddingEncoder
from models.encoders.table import TabularEncoder
from models.encoders.table_reader import TableReader, derive
from models.kernels.encode.members import add_keys, find_keys, row_keys
from models.rows import F64, I64, U8, U64

SCHEMA = "probewatch.training-set/1"
BITS_PER_ROW = 20
PROBES = 14
"""(1 - exp(-14 / 20))^14: 6.7e-5 of other rows look like members (Bloom 1970). A million rows take 2.5 MB."""

KINDS = ("number", "category")


class MembersError(ValueError):
    """A training set that cannot be used; the text says why and what to do."""


@dataclass(frozen=True)
class Members:
    """model : "" for any that its fields fit. fields, kinds : of a table, sorted by name. dim : of embeddings, else 0.

    rows : how many were added, equal ones too. bits : (words,).
    """

    model: str
    fields: tuple[str, ...]
    kinds: tuple[str, ...]
    dim: int
    rows: int
    bits: U64
    seed: bytes = field(repr=False)

    @property
    def false_positive_rate(self) -> float:
        """Share of other rows that are taken for members, from the bits that are set."""
        share = int(np.bitwise_count(self.bits).sum()) / (64 * len(self.bits))
        return float(share**PROBES)

    def misfit(self, encoder: Encoder) -> str:
        """Why inputs of this encoder cannot be looked up; "" if they can."""
        if isinstance(encoder, EmbeddingEncoder):
            if self.dim != encoder.dim_in:
                held = f"embeddings of {self.dim}" if self.dim else "table rows"
                return f"expected embeddings of {encoder.dim_in} numbers; got {held}"
            return ""
        assert isinstance(encoder, TabularEncoder)
        if self.dim:
            return f"expected table rows; got embeddings of {self.dim} numbers"
        foreign = sorted(set(self.fields) - set(encoder.field_names))
        if foreign:
            return f"the model's log does not carry the fields {', '.join(foreign)}; leave them out (--leave-out NAME)"
        known = dict(zip(encoder.field_names, encoder.fit.categories, strict=True))
        for name, kind in zip(self.fields, self.kinds, strict=True):
            expected = KINDS[bool(known[name])]
            if kind != expected:
                return f"field {name}: expected a {expected}, as in the model's log; got a {kind}"
        return ""

    def lookup(self, encoder: Encoder) -> "Lookup":
        """For inputs that `encoder` encodes. Raises MembersError where they do not fit."""
        if reason := self.misfit(encoder):
            raise MembersError(f"training set: {reason}")
        if not isinstance(encoder, TabularEncoder):
            return Lookup(self.bits, None)
        places = [encoder.field_names.index(name) for name in self.fields]
        known = [encoder.fit.categories[j] or None for j in places]
        return Lookup(self.bits, keying(self.fields, places, known, self.seed))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is stored, in a file of its own and among artefacts: description and bits, with a keyed checksum."""
        names = ("model", "fields", "kinds", "dim", "rows")
        header: dict[str, Any] = {"schema": SCHEMA} | {name: getattr(self, name) for name in names}
        header |= {"false_positive_rate": self.false_positive_rate, "seed_check": _seed_check(self.seed)}
        text = json.dumps(header, sort_keys=True).encode()
        checksum = np.frombuffer(_checksum(text, self.bits, self.seed), np.uint8)
        return {"members.header": np.frombuffer(text, np.uint8), "members.bits": self.bits, "members.sum": checksum}

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]], seed: bytes) -> "Members | None":
        """None where none was stored. Raises MembersError for an altered one, or one of another seed or layout."""
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
            fields, kinds = tuple(header["fields"]), tuple(header["kinds"])
            return Members(header["model"], fields, kinds, header["dim"], header["rows"], bits, seed)
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise MembersError("damaged; restore it, or make the set again") from error


class Keying(NamedTuple):
    """What `row_keys` takes after the rows."""

    columns: I64
    salt: U64
    categorical: U8
    digests: U64
    digest_start: I64

    def keys(self, plain: F64) -> U64:
        keys = np.empty(len(plain), np.uint64)
        row_keys(np.ascontiguousarray(plain), *self, keys)
        return keys


class Lookup(NamedTuple):
    """A set that is ready for one encoder's inputs. keying : None for embeddings, whose `exact` is the key."""

    bits: U64
    keying: Keying | None

    def contains(self, encoded: Encoded) -> NDArray[np.bool_]:
        """(n,)"""
        keys = encoded.exact if self.keying is None else self.keying.keys(encoded.plain)
        found = np.empty(len(keys), np.uint8)
        find_keys(self.bits, keys, PROBES, found)
        return found.astype(np.bool_)


def keying(
    names: Sequence[str], places: Sequence[int], categories: Sequence[Sequence[str] | None], seed: bytes
) -> Keying:
    """For these fields at these places of `plain`. categories : as its TableReader got them, None for numbers."""
    digest = TableReader((), (), seed).digest
    salts = [int.from_bytes(derive(seed, b"member", name.encode())[:8], "big") for name in names]
    digests = [[digest(category) for category in known or ()] for known in categories]
    return Keying(
        np.array(places, np.int64),
        np.array(salts, np.uint64),
        np.array([known is not None for known in categories], np.uint8),
        np.array([one for known in digests for one in known], np.uint64),
        np.concatenate(([0], np.cumsum([len(known) for known in digests]))).astype(np.int64),
    )


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
