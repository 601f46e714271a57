"""Files that appear complete or not at all."""

import os
from collections.abc import Iterable
from pathlib import Path

UNFINISHED = ".unfinished"
"""Suffix of a file that is being written; one that a crash left behind is overwritten."""


def write(path: Path, content: bytes) -> None:
    """Replace a file by this content; missing folders are made. Readers see the old file or the new one.

    The content is on disk when this returns. Raises OSError.
    """
    with unfinished(path).open("wb") as file:
        file.write(content)
    finish(path)


def write_lines(path: Path, lines: Iterable[bytes]) -> None:
    """Replace a file by these lines, as `write` does."""
    with unfinished(path).open("wb") as file:
        file.writelines(line + b"\n" for line in lines)
    finish(path)


def unfinished(path: Path) -> Path:
    """The name under which to write a file that `finish` completes; its folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(path.name + UNFINISHED)


def finish(path: Path) -> None:
    """Sync the file written as `unfinished(path)` and give it its own name. Raises OSError."""
    with unfinished(path).open("rb") as file:
        os.fsync(file.fileno())
    unfinished(path).replace(path)
