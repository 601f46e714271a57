"""The published name of a client: a key id and letters of a keyed hash of the id that the gateway knows it by."""

import base64
import hmac
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

CLIENT_BYTES = 8
"""The first bytes of the digest, as a big-endian uint64, are how rows name a client."""

DIGEST_BYTES = 17
PSEUDONYM_LETTERS = 26
KEY_BYTES = 32
VARIABLE = "PROBEWATCH_PSEUDONYM_KEY"

_KEY_ID = re.compile(r"[a-z0-9]{1,16}")


class PseudonymKeyError(ValueError):
    """The key is missing or malformed. Names the source and the expected form, never the key."""


class RepeatedHeaderError(ValueError):
    """A request names its client more than once, and nobody knows which of the names is logged."""


class PseudonymKey(NamedTuple):
    """The secret behind pseudonyms, the same as the service's.

    key_id : first part of every pseudonym (`secrets.key_id` of the service).
    secret : 32 bytes, never shown.

    Example: `PseudonymKey.from_environment()`. All three ways to make one raise PseudonymKeyError.
    """

    key_id: str
    secret: bytes

    @classmethod
    def from_hex(cls, text: str, key_id: str = "k1", source: str = "pseudonym key") -> "PseudonymKey":
        """From 64 hexadecimal digits. source : what an error names."""
        if not _KEY_ID.fullmatch(key_id):
            raise PseudonymKeyError("key_id: expected 1 to 16 lower-case letters and digits, as in `k1`")
        try:
            secret = bytes.fromhex(text.strip())
        except ValueError:
            secret = b""
        if len(secret) != KEY_BYTES:
            raise PseudonymKeyError(f"{source}: expected {2 * KEY_BYTES} hexadecimal digits; got something else")
        return cls(key_id, secret)

    @classmethod
    def from_file(cls, path: str | Path, key_id: str = "k1") -> "PseudonymKey":
        """From a file with 64 hexadecimal digits."""
        try:
            text = Path(path).read_text(encoding="ascii", errors="replace")
        except OSError as error:
            raise PseudonymKeyError(f"{path}: {error.strerror}") from error
        return cls.from_hex(text, key_id, str(path))

    @classmethod
    def from_environment(cls, key_id: str = "k1", variable: str = VARIABLE) -> "PseudonymKey":
        """From the variable, or from the file that `variable`_FILE names."""
        if text := os.environ.get(variable):
            return cls.from_hex(text, key_id, variable)
        if path := os.environ.get(f"{variable}_FILE"):
            return cls.from_file(path, key_id)
        raise PseudonymKeyError(f"pseudonym key: not set; set {variable} or {variable}_FILE")

    def __repr__(self) -> str:
        return f"PseudonymKey(key_id={self.key_id!r}, …)"


def pseudonyms(client_id: str, keys: Iterable[PseudonymKey]) -> tuple[str, ...]:
    """The client's name under each key: two while keys rotate.

    client_id : the authenticated client, as the gateway's log names it.
    """
    return tuple(published_name(key.key_id, client_digest(key.secret, client_id.encode())) for key in keys)


def header_pseudonyms(values: Sequence[bytes], keys: Iterable[PseudonymKey]) -> tuple[str, ...]:
    """The names of the client that a request header carries; none without a header.

    values : the header's value each time it stands in the request, as bytes. Raises RepeatedHeaderError if it stands
        there more than once.

    A header is bytes, a log is text, and gateways differ in how they turn one into the other. The client is known by
    each reading: latin-1, as ASGI and WSGI frameworks have it, and UTF-8, as most others.
    """
    if len(values) > 1:
        raise RepeatedHeaderError("the header that names the client: expected once")
    if not values or not values[0]:
        return ()
    known = tuple(keys)
    readings = dict.fromkeys((values[0].decode("latin-1"), values[0].decode("utf-8", "replace")))
    return tuple(name for reading in readings for name in pseudonyms(reading, known))


def client_digest(secret: bytes, client_id: bytes) -> bytes:
    """The first 17 bytes of the HMAC-SHA-256."""
    return hmac.digest(secret, client_id, "sha256")[:DIGEST_BYTES]


def published_name(key_id: str, digest: bytes) -> str:
    """The published name: key id, hyphen, the first 26 base32 letters of the digest, lower case."""
    return f"{key_id}-{base64.b32encode(digest)[:PSEUDONYM_LETTERS].decode().lower()}"
