"""Short names for contents."""

import hashlib


def short_hash(content: bytes, digits: int = 16) -> str:
    """The first hex digits of SHA-256: 16 name artefacts and keys, 32 name events."""
    return hashlib.sha256(content).hexdigest()[:digits]
