"""Files appear complete or not at all."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from models import private
from streams import files

ROOT = Path(__file__).parents[1]


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


@pytest.fixture(params=[0, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.usefixtures("umask")
def test_what_is_written_is_for_its_owner_from_the_beginning(tmp_path: Path) -> None:
    """A folder on the way and a file that is not finished too; one that was open to others before is not any more."""
    tmp_path.chmod(0o755)
    path = tmp_path / "new" / "folder" / "events.jsonl"
    half = files.unfinished(path)
    assert (mode(half), mode(path.parent), mode(path.parent.parent)) == (0o600, 0o700, 0o700)
    files.finish(path)
    path.chmod(0o644)
    path.with_name("events.jsonl.unfinished").touch(0o644)
    files.write(path, b"a")
    assert (mode(path), mode(tmp_path)) == (0o600, 0o755)
    path.chmod(0o644)
    private.write(path, b"b")
    assert (mode(path), path.read_bytes()) == (0o600, b"b")
    private.append(tmp_path / "feedback.jsonl", b"c\n")
    private.append(tmp_path / "feedback.jsonl", b"d\n")
    assert (mode(tmp_path / "feedback.jsonl"), (tmp_path / "feedback.jsonl").read_bytes()) == (0o600, b"c\nd\n")


def test_an_unfinished_name_that_points_elsewhere_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "somebody's"
    target.write_bytes(b"kept")
    (tmp_path / "events.jsonl.unfinished").symlink_to(target)
    files.write(tmp_path / "events.jsonl", b"a")
    assert target.read_bytes() == b"kept"


OPENS = re.compile(
    r"""write_text|write_bytes|\bopen\([^)]*["'][wax]|os\.open|\.touch\(|\bmkdir\(|mkstemp|NamedTemporaryFile"""
)
ALLOWED = {
    "models/private.py": 4,
    "streams/cli/schemas.py": 1,  # documentation
    "streams/history/archive/writer.py": 1,  # a lock on the folder, read-only
    "streams/files.py": 2,  # what `unfinished` has made
    "streams/secrets/load.py": 1,  # with a mode of its own, and never over an old one
    "streams/terminal.py": 1,  # /dev/null
}


def test_nothing_is_written_past_these() -> None:
    found = {}
    for path in sorted(path for layer in ("streams", "detector", "models") for path in (ROOT / layer).rglob("*.py")):
        if hits := len(OPENS.findall(path.read_text())):
            found[str(path.relative_to(ROOT))] = hits
    assert found == ALLOWED
