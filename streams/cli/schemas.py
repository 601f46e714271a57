"""docs/schemas: JSON Schema 2020-12 of what commands print with --json, generated from the structs that they print.

    python -m streams.cli.schemas docs/schemas

Each command's module declares its outputs (`outputs`). Every field of a struct is required and no other field is
allowed, but for fields that may be UNSET.
"""

import itertools
import json
import re
import sys
import textwrap
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec

from streams.cli import PANELS
from streams.cli.arguments import JsonOutput

SUFFIX = ".schema.json"
LINE_COLUMNS = 120
_NAMES = re.compile(r"((?:\w+, )*\w+) : ")
PUBLISHED = {"Throttle": "urn:probewatch:throttle:1"}
"""Structs with a schema of their own in docs/formats, whose readers must accept more fields."""

Schema = dict[str, Any]


def schemas() -> dict[str, Schema]:
    """By command, as a user types it."""
    modules = [module for modules in PANELS.values() for module in modules]
    found = {
        command: out for module in modules if hasattr(module, "outputs") for command, out in module.outputs().items()
    }
    return {command: _schema(command, out) for command, out in found.items()}


def _schema(command: str, out: JsonOutput) -> Schema:
    types, definitions = msgspec.json.schema_components(out.types, ref_template="#/$defs/{name}")
    body: Schema = types[0] if len(types) == 1 else {"anyOf": list(types)}
    body, definitions = _published((body, {name: _strict(known) for name, known in definitions.items()}))
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:probewatch:output:{command.replace(' ', '-')}",
        "title": f"probewatch {command} --json",
        "description": out.description,
    }
    needed = _reachable(body, definitions)
    return {**head, **body, **({"$defs": {name: definitions[name] for name in sorted(needed)}} if needed else {})}


def _strict(definition: Schema) -> Schema:
    """Every field required, no other allowed. msgspec gives a default to each optional field except UNSET ones."""
    if "properties" not in definition:
        return definition
    fields: dict[str, Schema] = definition["properties"]
    required = [name for name, field in fields.items() if name in definition["required"] or "default" in field]
    about, texts = _described(definition.get("description", ""), fields)
    plain = {name: {key: value for key, value in field.items() if key != "default"} for name, field in fields.items()}
    properties = {name: field | texts.get(name, {}) for name, field in plain.items()}
    return {**about, "type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _described(docstring: str, fields: Collection[str]) -> tuple[Schema, dict[str, Schema]]:
    """The descriptions of a struct and of its fields, which its docstring gives as `field, field : text`."""
    text = " ".join(docstring.split())
    named = [found for found in _NAMES.finditer(text) if set(found[1].split(", ")) <= set(fields)]
    texts: dict[str, Schema] = {}
    for found, after in itertools.zip_longest(named, named[1:]):
        about = {"description": text[found.end() : after.start() if after else None].strip(" ;")}
        texts |= {name: about for name in found[1].split(", ")}
    summary = text[: named[0].start()].strip() if named else text
    return ({"description": summary} if summary else {}), texts


def _published(schema: Any) -> Any:
    text = json.dumps(schema)
    for name, urn in PUBLISHED.items():
        text = text.replace(f'"#/$defs/{name}"', f'"{urn}"')
    return json.loads(text)


def _reachable(schema: Schema, definitions: dict[str, Schema]) -> set[str]:
    found: set[str] = set()
    waiting: list[Any] = [schema]
    while waiting:
        new = set(_references(waiting.pop())) - found
        found |= new
        waiting += [definitions[name] for name in new]
    return found


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if str(schema.get("$ref", "")).startswith("#/$defs/"):
            yield schema["$ref"].removeprefix("#/$defs/")
        for value in schema.values():
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def files() -> dict[str, str]:
    """Contents of docs/schemas, by name of the file."""
    named = {f"{command.replace(' ', '-')}{SUFFIX}": schema for command, schema in schemas().items()}
    return {name: _text(schema) + "\n" for name, schema in sorted(named.items())}


def _text(value: Any, indent: str = "") -> str:
    """JSON; what fits into a line stands on one."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(line) <= LINE_COLUMNS or not isinstance(value, dict | list):
        return line
    inner = indent + "  "
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return (
            "[\n"
            + textwrap.fill(line[1:-1], LINE_COLUMNS, initial_indent=inner, subsequent_indent=inner)
            + f"\n{indent}]"
        )
    if isinstance(value, list):
        return "[\n" + ",\n".join(inner + _text(one, inner) for one in value) + f"\n{indent}]"
    members = (f"{inner}{json.dumps(name)}: {_text(one, inner)}" for name, one in value.items())
    return "{\n" + ",\n".join(members) + f"\n{indent}}}"


def write(folder: Path) -> None:
    """Write every schema, and delete those of commands that are gone."""
    texts = files()
    for path in folder.glob(f"*{SUFFIX}"):
        path.unlink()
    for name, text in texts.items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
