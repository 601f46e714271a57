"""Files and folders that only their owner may read, from the moment they exist, whatever the umask says."""

import os
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700


def folder(path: Path) -> None:
    """Make a folder and its parents where they are missing. Those that exist keep their mode. Raises OSError."""
    if path.is_dir():
        return
    folder(path.parent)
    path.mkdir(mode=FOLDER_MODE, exist_ok=True)


def create(path: Path) -> None:
    """Make an empty file, in place of one that is there: it would keep its mode. Raises OSError."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE))


def write(path: Path, content: bytes) -> None:
    """Make a file with this content, as `create` does. Raises OSError."""
    create(path)
    path.write_bytes(content)


def append(path: Path, content: bytes) -> None:
    """Add to a file, or make it. Raises OSError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE), "ab") as file:
        file.write(content)
