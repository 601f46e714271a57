"""The configuration's keys as a list: one source for error messages and the reference page."""

import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import AwareDatetime, BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from models.errors import UserError

ANY = "NAME"
"""Stands for the reader's own word in a key such as `models.NAME.decision_threshold`."""


INTRODUCTION = f"""# Configuration

A TOML file: `--config FILE`, else the file named by `PROBEWATCH_CONFIG`, else `probewatch.toml` in the working folder,
else the defaults below, which suit a trial on one machine. Dots are tables: `policy.mode` is `mode` in `[policy]`.
`{ANY}` stands for a model's own name. Relative paths in the file start from the file's folder.

The environment overrides the file: `PROBEWATCH_` and the key in capitals, with two underscores for a dot
(`PROBEWATCH_POLICY__MODE=enforce`). An unknown key or section is an error, in the file and in the environment.

Every event carries the hash of the configuration. It covers the keys that can change an event (models, policy, state,
drift, input), never addresses, paths or secrets.

This page is written by `make docs` from `streams/config/config.py`.

"""


class ConfigError(UserError, ValueError):
    """The configuration cannot be used. One line for each fault: key, range, value."""


class Key(NamedTuple):
    """One setting. name is dotted; allowed says type and range; default as it would be written."""

    name: str
    allowed: str
    default: str
    description: str


def comma_separated(value: object) -> object:
    """A list as the environment writes it, `a,b`; anything else unchanged."""
    return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value


def sections(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(model.model_fields)


def keys(model: type[BaseModel], prefix: str = "", defaults: BaseModel | None = None) -> Iterator[Key]:
    """Every leaf setting, in the order of the classes."""
    for name, field in model.model_fields.items():
        inner = _submodel(field)
        default = getattr(defaults, name) if defaults is not None else field.get_default(call_default_factory=True)
        if inner is None:
            yield Key(prefix + name, allowed(field), _written(default), field.description or "")
        elif isinstance(default, dict):
            yield from keys(inner, f"{prefix}{name}.{ANY}.")
        else:
            yield from keys(inner, f"{prefix}{name}.", default)


def allowed(field: FieldInfo) -> str:
    """Type and range of a field in words: "a whole number, 1 to 1,024"."""
    text = _kind(field.annotation)
    low = next((m.ge for m in field.metadata if getattr(m, "ge", None) is not None), None)
    high = next((m.le for m in field.metadata if getattr(m, "le", None) is not None), None)
    pattern = next((m.pattern for m in field.metadata if getattr(m, "pattern", None) is not None), None)
    if pattern is not None:
        return f"{text} like `{pattern}`"
    return f"{text}, {low:,} to {high:,}" if low is not None and high is not None else text


def explain(model: type[BaseModel], fault: ErrorDetails) -> str:
    """One line about one fault of pydantic's: `policy.soft.duration_s: a whole number, 1 to 2,592,000; got 0`."""
    name = ".".join(str(part) for part in fault["loc"]) or "configuration"
    if fault["type"] == "extra_forbidden":
        parent = ".".join(str(part) for part in fault["loc"][:-1])
        owner = _owner(model, fault["loc"][:-1])
        known = f"; known here: {', '.join(sections(owner))}" if owner else ""
        return f"{name}: unknown key{f' in [{parent}]' if parent else ''}{known}"
    owner = _owner(model, fault["loc"][:-1])
    field = owner.model_fields.get(str(fault["loc"][-1])) if owner and fault["loc"] else None
    if fault["type"] == "value_error":
        return f"{name}: {fault['ctx']['error']}" if fault["loc"] else str(fault["ctx"]["error"])
    expected = (
        allowed(field)
        if field is not None and _submodel(field) is None
        else fault["msg"].removeprefix("Input should be ")
    )
    secret = name.startswith("secrets") or (
        field is not None and SecretStr in (field.annotation, *get_args(field.annotation))
    )
    return f"{name}: expected {expected}; got {'a value that is not shown' if secret else _shown(fault['input'])}"


def absolute_paths(model: type[BaseModel], table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A copy of a TOML table whose relative paths are taken from `folder`."""
    result: dict[str, Any] = {}
    for name, value in table.items():
        field = model.model_fields.get(name)
        inner = _submodel(field) if field is not None else None
        if inner is not None and isinstance(value, dict) and get_origin(field.annotation) is not dict:  # type: ignore[union-attr]
            result[name] = absolute_paths(inner, value, folder)
        elif field is not None and isinstance(value, str) and Path in (field.annotation, *get_args(field.annotation)):
            result[name] = folder / value
        else:
            result[name] = value
    return result


def page(model: type[BaseModel]) -> str:
    """The reference page, docs/configuration.md."""
    rows = []
    for key in keys(model):
        default = f"`{key.default}`" if key.default else "none"
        rows.append(f"| `{key.name}` | {key.allowed} | {default} | {key.description} |")
    return INTRODUCTION + "\n".join(["| key | may be | default | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _submodel(field: FieldInfo) -> type[BaseModel] | None:
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _owner(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The class that holds the last key of a path; names of a dictionary are skipped."""
    owner: type[BaseModel] = model
    parts = iter(path)
    for part in parts:
        field = owner.model_fields.get(str(part))
        inner = _submodel(field) if field is not None else None
        if field is None or inner is None:
            return None
        if get_origin(field.annotation) is dict:
            next(parts, None)
        owner = inner
    return owner


def _kind(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _kind(next(a for a in inner if a is not type(None)))
    if origin is Literal:
        return "one of " + ", ".join(f"`{word}`" for word in inner)
    if origin is tuple:
        return "a list of names"
    if origin is dict:
        return f"a table of name = {_kind(inner[1])}"
    if annotation is AwareDatetime or AwareDatetime in inner:
        return "a date, or a time with its zone"
    return {int: "a whole number", float: "a number", bool: "true or false", Path: "a path", SecretStr: "a secret"}.get(
        annotation, "text"
    )


def _written(value: Any) -> str:
    if value is None or value == {}:
        return ""
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,}".replace(",", "_")
    return str(getattr(value, "isoformat", lambda: value)())


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
