"""What commands print with --json matches docs/schemas: every command is run, and every field is in its schema."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from streams.cli import schemas
from tests.json_outputs import Output, Runner, offline, online, with_json

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs/schemas"
THROTTLE = json.loads((ROOT / "docs/formats/throttle.schema.json").read_text())
REGISTRY: Registry[Any] = Registry().with_resource(THROTTLE["$id"], Resource.from_contents(THROTTLE))


def path_of(command: str) -> Path:
    return FOLDER / f"{command.replace(' ', '-')}.schema.json"


def validator(command: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(path_of(command).read_text()), registry=REGISTRY)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, embedded_broker: str) -> Iterator[list[Output]]:
    """Run under a umask that keeps nobody out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("outputs"))
        run = Runner()
        before = os.umask(0)
        try:
            offline(run)
            online(run, embedded_broker, f"outputs-{id(run)}")
        finally:
            os.umask(before)
        yield run.outputs


WRITTEN_BY_THE_TEST = {"benign.jsonl", "later.jsonl", "day.jsonl", "rows.csv", "strict.toml", "probewatch.toml", "old"}


def test_what_commands_write_is_for_their_owner_alone(outputs: list[Output]) -> None:
    """Files and folders, whatever the umask."""
    written = [path for path in Path().rglob("*") if path.name not in WRITTEN_BY_THE_TEST]
    names = {path.name for path in written}
    assert {"artefacts.json", "signing_key", "highest.csv", "rejects.jsonl", "feedback.jsonl"} <= names
    assert any(path.suffix == ".parquet" for path in written) or "archive" in names
    assert [str(path) for path in written if path.stat().st_mode & 0o077] == []


def test_every_command_with_json_has_a_schema_and_every_schema_a_command() -> None:
    files = {path.name.removesuffix(".schema.json") for path in FOLDER.glob("*.schema.json")}
    assert len(with_json()) > 20
    assert files == {command.replace(" ", "-") for command in with_json()}


def test_schemas_are_the_ones_that_the_code_writes() -> None:
    """`make docs` writes them."""
    assert {path.name: path.read_text() for path in FOLDER.glob("*.schema.json")} == schemas.files()


def test_every_command_was_run_and_printed_what_its_schema_says(outputs: list[Output]) -> None:
    assert {output.command for output in outputs} == with_json()
    faults = [
        (" ".join(output.words), fault.json_path, fault.message[:300])
        for output in outputs
        for fault in validator(output.command).iter_errors(output.value)
    ]
    assert faults == []


def test_most_of_them_had_something_to_say(outputs: list[Output]) -> None:
    """An empty list is valid whatever the schema."""
    assert {output.command for output in outputs if not output.value} <= {"rekey"}
    kinds = [output.value for output in outputs if output.command == "alerts"]
    assert any(isinstance(kind, dict) and kind["label"] for kind in kinds)


def test_a_field_too_many_or_too_few_is_found_out(outputs: list[Output]) -> None:
    """The guard of the guard, for every output."""
    for output in outputs:
        if not output.value:
            continue
        first = output.value[0] if isinstance(output.value, list) else output.value
        open_format = first.get("schema") == "probewatch.throttle/1"  # readers of that one must expect more fields
        for broken in (dict(list(first.items())[1:]), *([] if open_format else [{**first, "unsaid": 1}])):
            value = [broken] if isinstance(output.value, list) else broken
            assert not validator(output.command).is_valid(value), output.words


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.schema.json")), ids=lambda path: path.stem)
def test_each_is_a_schema(path: Path) -> None:
    schema = json.loads(path.read_text())
    Draft202012Validator.check_schema(schema)
    assert schema["title"] and schema["description"]
    assert all(struct["description"] for struct in schema.get("$defs", {}).values())
