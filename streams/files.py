"""Files that appear complete or not at all, and that only their owner may read."""

import os
from collections.abc import Iterable
from pathlib import Path

from models import private

UNFINISHED = ".unfinished"
"""Suffix of a file that is being written; one that a crash left behind is overwritten."""


def write(path: Path, content: bytes) -> None:
    """Replace a file by this content; missing folders are made. Readers see the old file or the new one. Both are for
    their owner alone.

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
    """An empty file, to be written, that `finish` completes; its folder is made if it is missing. Raises OSError."""
    private.folder(path.parent)
    private.create(_other_name(path))
    return _other_name(path)


def finish(path: Path) -> None:
    """Sync the file written as `unfinished(path)` and give it its own name. Raises OSError."""
    with _other_name(path).open("rb") as file:
        os.fsync(file.fileno())
    _other_name(path).replace(path)


def discard(path: Path) -> None:
    """Remove what was written as `unfinished(path)`, if anything. Raises OSError."""
    _other_name(path).unlink(missing_ok=True)


def _other_name(path: Path) -> Path:
    return path.with_name(path.name + UNFINISHED)
