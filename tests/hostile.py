"""Strings that do something where they are shown, and records that carry them wherever a record may carry a string."""

from typing import Any

from tests.history import Row, sweeps

NASTY = {
    "colour and clear": "\x1b[31m\x1b[2J",
    "title": "\x1b]0;owned\x07",
    "link": "\x1b]8;;https://example.com\x1b\\click\x1b]8;;\x1b\\",
    "clipboard": "\x1b]52;c;cm0gLXJmIC8=\x07",
    "C1 controls": "\x9b31m\x9d52;c;eA==\x9c",
    "overrides": "\u202eyfirev\u2066x\u2069",
    "zero width": "a\u200bb\u200d\ufeffc",
    "nothing": "a\0b\x7fc",
    "lines": "a\r\nprobewatch: all is well\u2028b\x85c",
    "tags": "\U000e0041\U000e007f",
    "script": "</script><script>alert('x')</script><img src=x onerror=alert(1)>&amp;",
}
ALL = "".join(NASTY.values())
MARKUP = "<>&"


def dressed(row: Row, text: str, number: int) -> dict[str, Any]:
    """The row with a text in everything that is not needed to judge it, and in its request id."""
    output = row["output"] | {"scores": {f"{text}{place}": 0.1 * place for place in range(2)}, "finish_reason": text}
    return row | {
        "request_id": f"{number}{text}",
        "features": row["features"] | {text: 1.0, f"x{text}": text, "purpose": f"{text}{number}"},
        "output": output | {"label": f"{row['output']['label']}{text}"[:256]},
        "operation": text,
        "session_id": text,
        "user_agent": text,
        "prompt": text,
        text: {text: [text]},
    }


def attack(text: str, rows: int = 40) -> list[dict[str, Any]]:
    """A client whose every string is hostile, its id too."""
    lines = [dressed(row, text, number) for number, row in enumerate(sweeps(1, rows, seed=6))]
    return [line | {"client_id": f"evil{text}"} for line in lines]


def is_plain(text: str, kept: str = "\n") -> bool:
    """Whether it can be shown on a terminal as it is."""
    return all(letter.isprintable() or letter in kept for letter in text)
