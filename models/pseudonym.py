"""The published name of a client, from and to the 64 bits that rows carry."""

import base64

from probewatch_door.pseudonym import CLIENT_BYTES, PSEUDONYM_LETTERS, published_name


def pseudonym(key_id: str, client: int, tail: bytes) -> str:
    """The published name: key id, hyphen, the first 26 base32 letters of the HMAC, lower case."""
    return published_name(key_id, client.to_bytes(CLIENT_BYTES, "big") + tail)


def client_of(pseudonym: str) -> int:
    """The uint64 inside a pseudonym. Raises ValueError for anything else."""
    _, hyphen, letters = pseudonym.rpartition("-")
    if not hyphen or len(letters) != PSEUDONYM_LETTERS or not letters.isascii() or letters != letters.lower():
        raise ValueError("a pseudonym is a key id, a hyphen and 26 lower-case letters and digits")
    # 26 letters carry 130 bits, the 17 bytes 136: the last, partly known byte is padding here and is not read.
    return int.from_bytes(base64.b32decode(letters.upper() + "AA" + "====")[:CLIENT_BYTES], "big")
