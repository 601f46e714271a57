"""Files that appear complete or not at all."""

import os
from collections.abc import Iterable
from pathlib import Path

UNFINISHED = ".unfinished"
"""Suffix of a file that is being written; one that a crash left behind is overwritten."""


def write(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Replace a file by this content, also on disk, before returning. Readers see the old file or the new one.

    content : all of it, or its parts. Raises OSError.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    with unfinished.open("wb") as file:
        file.writelines([content] if isinstance(content, bytes) else content)
    finish(unfinished)


def finish(unfinished: Path) -> None:
    """Give a file that was written under a name with the suffix UNFINISHED its own name. Raises OSError."""
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.replace(unfinished.with_name(unfinished.name.removesuffix(UNFINISHED)))
