"""Identities without names: keyed pseudonyms of clients, keyed hashes of labels, ids of raw partitions."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from models.errors import UserError
from models.pseudonym import client_of
from models.rows import U8, U32, U64
from probewatch_door.pseudonym import CLIENT_BYTES, DIGEST_BYTES, PseudonymKey, client_digest, pseudonyms
from streams.config.input import PSEUDONYM
from streams.secrets.load import Secrets
from streams.wire.memo import TwoGenerations

CACHED_CLIENTS = 65_536
CACHED_LABELS = 16_384


class IdentityError(UserError, ValueError):
    """A client cannot be named. Says why."""


class Former(NamedTuple):
    """The previous pseudonym key. names : the clients of the registry, under that key."""

    pseudonym_key: bytes
    names: frozenset[int]


class Identity:
    """Pseudonyms and label hashes of one installation.

    pseudonym_key : secret, for clients. key_id : its name, in front of every pseudonym. seed : the projection secret,
    for labels. former : while keys rotate. Same secrets, same results, on any machine.
    """

    def __init__(
        self,
        pseudonym_key: bytes,
        key_id: str,
        seed: bytes,
        cached_clients: int = CACHED_CLIENTS,
        former: Former | None = None,
    ) -> None:
        self.key_id = key_id
        self._key = pseudonym_key
        self._former = former
        self._renamed: dict[int, int] = {}
        self._label_key = hashlib.blake2b(b"label", key=seed[:64], digest_size=32).digest()
        self._digests = TwoGenerations(self._digest, cached_clients)
        self._labels = TwoGenerations(self._hash_label, CACHED_LABELS)

    def client(self, client_id: str) -> tuple[int, bytes]:
        """The client as uint64 and the 9 bytes that complete its pseudonym (models.rows.CLIENT_TAIL_BYTES)."""
        digest = self._digests[client_id.encode()]
        return int.from_bytes(digest[:CLIENT_BYTES], "big"), digest[CLIENT_BYTES:]

    def clients(self, client_ids: Sequence[str]) -> tuple[U64, U8]:
        """`client` for n ids at once: (n,) and (n, 9)."""
        return self.clients_of_utf8([client_id.encode() for client_id in client_ids])

    def clients_of_utf8(self, client_ids: Sequence[bytes]) -> tuple[U64, U8]:
        """`clients` from their ids in UTF-8."""
        digests = np.frombuffer(b"".join(map(self._digests.__getitem__, client_ids)), np.uint8)
        table = digests.reshape(len(client_ids), DIGEST_BYTES)
        keys = np.ascontiguousarray(table[:, :CLIENT_BYTES]).view(">u8").astype(np.uint64).reshape(-1)
        return keys, np.ascontiguousarray(table[:, CLIENT_BYTES:])

    def element(self, text: bytes) -> int:
        """A keyed uint64 of the text of a record, never 0."""
        digest = hashlib.blake2b(text, key=self._label_key, person=b"element", digest_size=8).digest()
        return int.from_bytes(digest, "big") or 1

    def label(self, label: str | int) -> int:
        """A keyed uint32 of an answer's label, never 0. 1 and "1" are the same label."""
        return self._labels[label]

    def labels(self, labels: Sequence[str | int | None]) -> U32:
        """`label` for n labels at once; 0 for None."""
        return np.fromiter(map(self._labels.__getitem__, labels), np.uint32, len(labels))

    def spoken_of(self, clients: U64) -> U64:
        """Clients, (n,), as the registry names them: under the previous key where it does, else unchanged."""
        if not self._renamed:
            return clients
        return np.array([self._renamed.get(client, client) for client in clients.tolist()], np.uint64)

    def _digest(self, client_id: bytes) -> bytes:
        today = client_digest(self._key, client_id)
        if self._former is not None:
            before = client_digest(self._former.pseudonym_key, client_id)
            name = int.from_bytes(before[:CLIENT_BYTES], "big")
            if name in self._former.names:
                self._renamed[int.from_bytes(today[:CLIENT_BYTES], "big")] = name
        return today

    def _hash_label(self, label: str | int | None) -> int:
        if label is None:
            return 0
        digest = hashlib.blake2b(str(label).encode(), key=self._label_key, digest_size=4).digest()
        return int.from_bytes(digest, "big") or 1


def pseudonym_keys(secrets: Secrets) -> tuple[PseudonymKey, ...]:
    """Every key in use: today's, and the one before while keys rotate."""
    keys = [(secrets.pseudonym_key, secrets.key_id), *([secrets.previous] if secrets.previous else [])]
    return tuple(PseudonymKey(key_id, secret) for secret, key_id in keys)


def identity_of(secrets: Secrets, registry: Iterable[str]) -> Identity:
    """Of the current key. registry : pseudonyms; while keys rotate, those under the previous key are recognised."""
    return Identity(secrets.pseudonym_key, secrets.key_id, secrets.projection_seed, former=former_of(secrets, registry))


def former_of(secrets: Secrets, registry: Iterable[str]) -> Former | None:
    if secrets.previous is None:
        return None
    key, key_id = secrets.previous
    names = frozenset(client_of(name) for name in registry if name.startswith(f"{key_id}-"))
    return Former(key, names) if names else None


def source_id(topic: str, partition: int, incarnation: str) -> int:
    """A uint32 for a raw partition; a re-created topic needs another incarnation, since its offsets restart."""
    text = f"{topic}\0{partition}\0{incarnation}".encode()
    return int.from_bytes(hashlib.blake2b(text, person=b"probewatch.src", digest_size=4).digest(), "big")


def pseudonym_of(client: str, secrets: Secrets) -> str:
    """The published pseudonym of a client id; a pseudonym is returned unchanged."""
    return pseudonyms_of(client, secrets)[0]


def pseudonyms_of(client: str, secrets: Secrets | None) -> tuple[str, ...]:
    """Every name of a client id: under today's key and, while keys rotate, under the one before.

    secrets : None suffices for a pseudonym, so that people who give orders need not hold the keys.
    """
    if PSEUDONYM.fullmatch(client):
        return (client,)
    if secrets is None:
        raise IdentityError(f"{client}: no pseudonym; a client id takes the pseudonym key")
    return pseudonyms(client, pseudonym_keys(secrets))
