"""Files appear complete or not at all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from streams import files


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "events.jsonl"
    files.write_lines(path, [b"a", b"b"])
    assert path.read_bytes() == b"a\nb\n"
    files.write(path, b"c")
    assert path.read_bytes() == b"c" and list(path.parent.iterdir()) == [path]


def test_what_fails_leaves_the_old_file_and_the_next_attempt_overwrites_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    files.write(path, b"old")

    def cut_off() -> Iterator[bytes]:
        yield b"new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_lines(path, cut_off())
    assert path.read_bytes() == b"old"
    files.write_lines(path, [b"new"])
    assert path.read_bytes() == b"new\n" and list(tmp_path.iterdir()) == [path]
