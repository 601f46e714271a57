"""`make figures`: how the code is built, in figures, so that a refactoring can be judged before and after.

    make figures                                              this checkout
    make figures ARGS="--against ../old"                      two columns: the old checkout, this one
    make figures ARGS="--walk --json" > before.json           with names, and what one record enters (bench/walks.py)
    make figures ARGS="--walk --against before.json"          against figures that were kept

Figures are of the product's folders (`bench.structure.PACKAGES`), by syntax alone. `__init__.py` is not a loose file
and does not fill a folder. A function's length is from its `def` to its last line. A class is a record type if it is,
or descends from, a NamedTuple, a msgspec Struct, a dataclass or a pydantic model. Circles are strongly connected
components of the graph of imports; imports inside functions count, those under `if TYPE_CHECKING:` do not.
"""

import json
import math
import os
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bench import structure
from bench.structure import Class, Function, Module

LONG = 70
WALKS = Path("bench/walks.py")
ROOT = Path(__file__).resolve().parents[1]

Figures = Mapping[str, Any]


def main(
    root: Annotated[Path, typer.Option(metavar="DIR", help="The checkout to look at.")] = ROOT,
    against: Annotated[
        Path | None, typer.Option(metavar="DIR|FILE", help="An earlier checkout, or what --json said of it.")
    ] = None,
    walk: Annotated[bool, typer.Option("--walk", help="Run bench/walks.py of the checkout too; a minute.")] = False,
    since: Annotated[str, typer.Option(metavar="REV", help="Lines added and deleted from this revision on.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, which names what the table counts.")] = False,
) -> None:
    """Print structural figures of a checkout."""
    columns = {"now": figures(root, walk)}
    if since:
        columns["now"]["since"] = {"revision": since, "folders": changed(root, since)}
    if against is not None:
        before = json.loads(against.read_text()) if against.is_file() else figures(against, walk)
        columns = {"before": before, "after": columns["now"]}
    if as_json:
        print(json.dumps(columns if against is not None else columns["now"], indent=1))
    else:
        show(columns)


def figures(root: Path, walk: bool = False) -> dict[str, Any]:
    """All of a checkout. Raises typer.BadParameter if none of the product's folders is there."""
    modules = structure.read(root)
    if not modules:
        raise typer.BadParameter(f"{root}: none of {', '.join(structure.PACKAGES)} is there")
    found = {
        **_sizes(modules),
        "functions": _functions(structure.functions(modules)),
        "classes": _classes(structure.classes(modules)),
        "circles": structure.circles(structure.imports(modules)),
    }
    if walk and (root / WALKS).is_file():
        found["walks"] = walked(root)
    return found


def walked(root: Path) -> dict[str, list[str]]:
    """What the checkout's own walks print, run on its own code: its imports fit its layout."""
    command = [sys.executable, "-m", ".".join(WALKS.with_suffix("").parts)]
    output = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE).stdout
    walks: dict[str, list[str]] = json.loads(output)
    return walks


def _sizes(modules: Sequence[Module]) -> dict[str, Any]:
    folders: dict[str, dict[str, int]] = {}
    filled: Counter[str] = Counter()
    for module in modules:
        about = folders.setdefault(module.path.parts[0], {"files": 0, "lines": 0, "loose": 0})
        about["files"] += 1
        about["lines"] += len(module.text.splitlines())
        if module.path.name != "__init__.py":
            about["loose"] += len(module.path.parts) == 2
            filled[module.path.parent.as_posix()] += 1
    folder, files = max(filled.items(), key=lambda one: one[1], default=("", 0))
    return {"folders": folders, "fullest": {"folder": folder, "files": files}}


def _functions(found: Sequence[Function]) -> dict[str, Any]:
    lengths = sorted(function.lines for function in found)
    long = sorted((one for one in found if one.lines > LONG), key=lambda one: (-one.lines, one.name))
    return {
        "count": len(lengths),
        "median": statistics.median(lengths) if lengths else 0,
        "p90": lengths[math.ceil(0.9 * len(lengths)) - 1] if lengths else 0,  # nearest rank
        "long": {one.name: one.lines for one in long},
    }


def _classes(found: Sequence[Class]) -> dict[str, Any]:
    twice = structure.repeated(found)
    return {
        "count": len(found),
        "records": dict(sorted(Counter(one.kind for one in found if one.kind).items())),
        "public_twice": {name: places for name, places in twice.items() if not name.startswith("_")},
        "private_twice": {name: places for name, places in twice.items() if name.startswith("_")},
    }


def changed(root: Path, revision: str) -> dict[str, dict[str, int]]:
    """Lines by top-level folder from a revision to the last commit. A file that only moved adds and deletes none."""
    command = ["git", "-C", str(root), "diff", "--numstat", "-z", "--find-renames", f"{revision}..HEAD"]
    fields = iter(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0"))
    folders: dict[str, dict[str, int]] = {}
    for field in fields:
        if not field:
            continue
        added, deleted, name = field.split("\t")
        if not name:  # moved: the old name and the new one follow
            _, name = next(fields), next(fields)
        top = name.partition("/")[0] if "/" in name else "."
        about = folders.setdefault(top, {"added": 0, "deleted": 0})
        if added != "-":  # of binary files nothing is counted
            about["added"] += int(added)
            about["deleted"] += int(deleted)
    return dict(sorted(folders.items()))


def show(columns: Mapping[str, Figures]) -> None:
    """A table with a column for each checkout, and the circles by name."""
    table = Table(title="structure; circles without imports for type checkers")
    for number, name in enumerate(("", *columns, "aim")):
        table.add_column(name, justify="right" if number else "left")
    rows = {name: dict(_rows(found)) for name, found in columns.items()}
    for label in dict.fromkeys(label for found in rows.values() for label in found):
        table.add_row(label, *(found.get(label, "-") for found in rows.values()), AIMS.get(label, ""))
    console = Console(width=None if os.isatty(1) else 140, highlight=False)
    console.print(table)
    for name, found in columns.items():
        for circle in found["circles"]:
            console.print(f"circle, {name}: {' '.join(circle)}", soft_wrap=True)


AIMS = {
    "public class names used twice or more": "0",
    "modules entered by one record": "≤ 30",
    "modules of explain alone": "≤ 8",
}


def _rows(found: Figures) -> Iterator[tuple[str, str]]:
    """What the table says, by label."""
    for name, about in found["folders"].items():
        yield (
            f"{name}/: files, loose at its top, lines",
            "  ".join(f"{about[what]:,}" for what in ("files", "loose", "lines")),
        )
    for what in ("files", "lines"):
        yield f"all {what}", f"{sum(about[what] for about in found['folders'].values()):,}"
    yield "folder with most files", f"{found['fullest']['folder']}/: {found['fullest']['files']}"
    functions, classes, circles = found["functions"], found["classes"], found["circles"]
    yield "functions", f"{functions['count']:,}"
    yield "their lines: median, p90", f"{functions['median']:g}  {functions['p90']}"
    yield f"functions over {LONG} lines", str(len(functions["long"]))
    yield "classes", str(classes["count"])
    yield "record types", str(sum(classes["records"].values()))
    for kind, count in classes["records"].items():
        yield f"  {kind}", str(count)
    for who in ("public", "private"):
        yield f"{who} class names used twice or more", str(len(classes[f"{who}_twice"]))
    yield "circles of imports", str(len(circles))
    yield "modules in circles", str(sum(map(len, circles)))
    for name, label in WALK_LABELS.items():
        if name in found.get("walks", {}):
            yield label, str(len(found["walks"][name]))
    for folder, about in found.get("since", {"folders": {}})["folders"].items():
        yield f"lines since {found['since']['revision']}: {folder}", f"+{about['added']:,}  -{about['deleted']:,}"


WALK_LABELS = {
    "record": "modules entered by one record",
    "sketch": "  from Kafka to requests",
    "judge": "  from requests to the throttle record",
    "explain": "modules entered by explain",
    "own": "modules of explain alone",
}


if __name__ == "__main__":
    typer.run(main)
