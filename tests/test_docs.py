"""The documents name what there is: detectors, metrics, commands, tests."""

import re
from pathlib import Path

import pytest

from detector.detectors import REGISTRY
from detector.detectors.__main__ import page
from detector.evidence import PROCESSES
from models.kernels.layout import FEATURES
from streams.cli import app
from streams.cli.topics import topics_app
from streams.metrics import Metrics

ROOT = Path(__file__).parents[1]
PACKAGES = ("detector", "models", "streams", "door/probewatch_door")
PAGES = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_every_detector_has_its_page_and_every_process_its_place() -> None:
    overview = (ROOT / "docs/detectors/README.md").read_text()
    assert overview == page(), "`make docs` writes it"
    for detector in REGISTRY:
        assert (ROOT / f"docs/detectors/{detector.name}.md").read_text().startswith(f"# {detector.name}\n")
        (line,) = [line for line in overview.splitlines() if line.startswith(f"| [{detector.name}]")]
        names = {process.name for process in PROCESSES if process.detector == detector.name}
        assert {name for name in names if not name.endswith("_sum")} == set(re.findall(r"`(\w+)`", line))


def test_every_feature_is_explained() -> None:
    text = (ROOT / "docs/engine.md").read_text()
    assert all(f"`{feature}`" in text for feature in FEATURES)


def test_every_metric_is_explained() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    names = [family.name + ("_total" if family.type == "counter" else "") for family in Metrics().registry.collect()]
    assert len(names) > 10
    assert [name for name in names if f"`{name}" not in text] == []


def test_the_changelog_names_every_command() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    assert len(names) >= 8 and topics_app.registered_commands
    assert [name for name in [*names, "topics"] if f"`{name}`" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_the_architecture_names_tests_that_exist() -> None:
    """Each invariant stands beside `tests/file.py::test_name`; an invariant whose test is gone is a wish."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "ARCHITECTURE.md").read_text())
    assert len(named) >= 20
    missing = [f"{file}::{test}" for file, test in named if f"def {test}(" not in _text(ROOT / file)]
    assert missing == []


def test_the_map_has_every_module_and_nothing_else() -> None:
    """Folders by indentation; a name ending in .py is a module of the folder above it."""
    (section,) = re.findall(r"## Map\n(.*?)\n## ", (ROOT / "ARCHITECTURE.md").read_text(), re.DOTALL)
    named: set[str] = set()
    folders: dict[int, str] = {}
    for line in section.splitlines():
        indent = len(line) - len(line.lstrip())
        if indent < 4 or not line.strip():
            continue
        if folder := re.match(r" *(\w+)/( |$)", line):
            parent = "".join(name for depth, name in sorted(folders.items()) if depth < indent)
            folders = {depth: name for depth, name in folders.items() if depth < indent} | {indent: f"{folder[1]}/"}
            assert (ROOT / parent / folder[1]).is_dir(), f"{parent}{folder[1]}/"
        folders = {depth: name for depth, name in folders.items() if depth < indent or folder}
        named |= {
            "".join(folders[depth] for depth in sorted(folders)) + name for name in re.findall(r"(\w+\.py)", line)
        }
    modules = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if not path.name.startswith("__")
    }
    assert len(modules) > 100
    assert named == modules


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_exist(page: Path) -> None:
    """Every path into the project that a document names."""
    pattern = r"(?<![\w/.-])((?:detector|models|streams|door|tests|bench|examples|deploy|docs)/[\w/.-]*\w)"
    text = (ROOT / page).read_text()
    paths = {found for found in re.findall(pattern, text) if "." in found.rsplit("/", 1)[-1]}
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
