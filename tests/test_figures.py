"""`make figures` on a small tree that was made up: what it counts, and what it leaves out."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import structure
from bench.figures import changed, figures

ROOT = Path(__file__).parents[1]
LONG = "def long():\n" + "    pass\n" * 70

TREE = {
    "models/__init__.py": "",
    "models/kinds.py": "from typing import NamedTuple as Base\nclass Record(Base):\n    n: int\n",
    "streams/__init__.py": "",
    "streams/loose.py": LONG + "class Outer:\n    def method(self):\n        def inner(): ...\n        return inner\n",
    "streams/one/__init__.py": "from streams.one.a import A\n",
    "streams/one/a.py": "import dataclasses\nfrom . import b\n@dataclasses.dataclass(frozen=True)\nclass A: ...\n"
    "class _Hidden: ...\n",
    "streams/one/b.py": "def late():\n    from streams.one.c import C\n",
    "streams/one/c.py": "import streams.one.a\nfrom models.kinds import Record\nclass C(Record): ...\n"
    "class _Hidden: ...\n",
    "streams/two.py": "from typing import TYPE_CHECKING\nfrom streams.one import A as Other\nimport msgspec\n"
    "if TYPE_CHECKING:\n    from streams.three import Three\nclass Record(msgspec.Struct, frozen=True): ...\n"
    "class Sub(Other): ...\n",
    "streams/three.py": "from streams import two\nclass Three(two.Record): ...\nclass Plain(ValueError): ...\n",
    "bench/ignored.py": "class Record: ...\n",
}  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_circles_go_through_functions_and_not_through_type_checking(tree: Path) -> None:
    assert figures(tree)["circles"] == [["streams.one.a", "streams.one.b", "streams.one.c"]]


def test_circles_that_touch_are_one_and_others_are_apart() -> None:
    edges = {"a": {"b", "d"}, "b": {"a", "c"}, "c": {"b"}, "d": {"e"}, "e": {"d"}, "f": {"a"}}
    assert structure.circles(edges) == [["a", "b", "c"], ["d", "e"]]


def test_class_names_used_twice_public_and_private(tree: Path) -> None:
    found = figures(tree)["classes"]
    assert found["public_twice"] == {"Record": ["models.kinds", "streams.two"]}
    assert found["private_twice"] == {"_Hidden": ["streams.one.a", "streams.one.c"]}


def test_record_types_descend_through_modules_that_pass_them_on(tree: Path) -> None:
    kinds = {(one.module, one.name): one.kind for one in structure.classes(structure.read(tree)) if one.kind}
    assert kinds == {
        ("models.kinds", "Record"): "NamedTuple", ("streams.one.c", "C"): "NamedTuple",
        ("streams.two", "Record"): "Struct", ("streams.three", "Three"): "Struct",
        ("streams.one.a", "A"): "dataclass", ("streams.two", "Sub"): "dataclass",
    }  # fmt: skip


def test_lengths_of_functions(tree: Path) -> None:
    lines = {one.name: one.lines for one in structure.functions(structure.read(tree))}
    assert lines == {
        "streams.loose.long": 71, "streams.loose.Outer.method": 3, "streams.loose.Outer.method.inner": 1,
        "streams.one.b.late": 2,
    }  # fmt: skip
    found = figures(tree)["functions"]
    assert found == {"count": 4, "median": 2.5, "p90": 71, "long": {"streams.loose.long": 71}}


def test_files_and_lines_of_the_product_only(tree: Path) -> None:
    found = figures(tree)
    assert list(found["folders"]) == ["models", "streams"]
    assert found["folders"]["models"] == {"files": 2, "loose": 1, "lines": 3}
    assert (found["folders"]["streams"]["files"], found["folders"]["streams"]["loose"]) == (8, 3)
    assert found["fullest"]["files"] == 3


def test_a_package_in_a_project_of_its_own_is_named_as_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "door/probewatch_door").mkdir(parents=True)
    for name in ("__init__", "view"):
        (tmp_path / f"door/probewatch_door/{name}.py").write_text("")
    assert [module.name for module in structure.read(tmp_path)] == ["probewatch_door", "probewatch_door.view"]


def test_a_file_that_only_moved_adds_and_deletes_nothing(tree: Path) -> None:
    def git(*words: str) -> None:
        about = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", str(tree), *about, *words], check=True, capture_output=True)

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "before")
    git("mv", "streams/loose.py", "streams/one/loose.py")
    (tree / "models/kinds.py").write_text("X = 1\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "after")
    assert changed(tree, "HEAD~1") == {"models": {"added": 1, "deleted": 3}, "streams": {"added": 0, "deleted": 0}}


def test_two_checkouts_stand_side_by_side_also_from_a_file(tree: Path, tmp_path: Path) -> None:
    kept = tmp_path / "before.json"
    kept.write_text(_printed("--root", str(tree), "--json"))
    (tree / "streams/two.py").unlink()
    (tree / "streams/three.py").unlink()
    said = _printed("--root", str(tree), "--against", str(kept))
    cells = {row[0]: row[1:3] for line in said.splitlines() if len(row := [c.strip() for c in line.split("│")][1:]) > 3}
    assert cells["public class names used twice or more"] == ["1", "0"]
    assert cells["all files"] == ["10", "8"]
    assert "circle, before: streams.one.a streams.one.b streams.one.c" in said


def _printed(*words: str) -> Any:
    command = [sys.executable, "-m", "bench.figures", *words]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
