"""Text from outside, before people see it: a log may carry names that move a cursor, or hide and reorder letters."""

import re
from typing import Any

import msgspec

_SPECIAL = re.compile(rb"[<>&\x7f-\xff]")
_MARKUP = frozenset("<>&")


def printable(text: str, kept: str = "") -> str:
    r"""Escape sequences, controls, bidirectional overrides, zero-width letters and lone surrogates become `\x1b`,
    `\u202e`. kept : such characters that stay, a newline for instance."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in kept else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def json_bytes(value: Any) -> bytes:
    """JSON whose bytes hold neither such characters nor `<`, `>`, `&`; its values are what they were."""
    encoded = msgspec.json.encode(value)
    if _SPECIAL.search(encoded) is None:
        return encoded
    letters = (c if c.isprintable() and c not in _MARKUP else _json_escaped(c) for c in encoded.decode())
    return "".join(letters).encode()


def _json_escaped(letter: str) -> str:
    """One or, beyond the basic plane, two escapes (RFC 8259, section 7)."""
    units = letter.encode("utf-16-be")
    return "".join(rf"\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
