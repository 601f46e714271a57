"""What the syntax of a checkout says of its structure: files, functions, classes, imports. Nothing is imported."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("detector", "models", "streams", "door", "probewatch_door")
"""Top-level folders that are the product, as far as a checkout has them."""

RECORDS = {
    "typing.NamedTuple": "NamedTuple",
    "msgspec.Struct": "Struct",
    "pydantic.BaseModel": "pydantic",
    "pydantic_settings.BaseSettings": "pydantic",
}
"""Bases that make a class a record type. A dataclass is told by its decorator."""

DATACLASS = "dataclasses.dataclass"

Names = Mapping[str, str]
"""What a name in a module stands for: its own classes and what it imports, as a full dotted name."""


class Module(NamedTuple):
    """path : relative to the checkout. name : as others import it."""

    path: Path
    name: str
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        """The package that relative imports begin at."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


class Function(NamedTuple):
    """name : with the module, classes and functions around it. lines : from `def` to its last line."""

    name: str
    lines: int


class Class(NamedTuple):
    """kind : of a record type, "" for any other class."""

    module: str
    name: str
    kind: str


def read(root: Path) -> list[Module]:
    """The product's modules. Raises OSError if a file cannot be read, SyntaxError if it is no Python."""
    modules = []
    for folder in (root / name for name in PACKAGES):
        base = root if (folder / "__init__.py").exists() else _base(root, folder)
        for path in sorted(folder.rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            parts = path.relative_to(base).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            modules.append(Module(path.relative_to(root), name, text, ast.parse(text, str(path))))
    return modules


def _base(root: Path, folder: Path) -> Path:
    """Where imports begin: a folder without `__init__.py` that holds packages is a project of its own."""
    return folder if any(folder.glob("*/__init__.py")) else root


def functions(modules: Iterable[Module]) -> list[Function]:
    """All functions: methods and nested ones too."""
    found: list[Function] = []

    def visit(node: ast.AST, inside: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = inside
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{inside}.{child.name}"
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                found.append(Function(name, (child.end_lineno or child.lineno) - child.lineno + 1))
            visit(child, name)

    for module in modules:
        visit(module.tree, module.name)
    return found


def classes(modules: Iterable[Module]) -> list[Class]:
    """All classes, nested ones too. A class is the kind of record that a base of it is, wherever that stands."""
    read = list(modules)
    names = {module.name: _names(module) for module in read}
    bases: dict[str, list[str]] = {}
    kinds = dict(RECORDS)
    found = []
    for module in read:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                full = f"{module.name}.{node.name}"
                found.append((module.name, node.name))
                bases[full] = [_defined(_meant(base, names[module.name]), names) for base in node.bases]
                if any(_meant(one, names[module.name]) == DATACLASS for one in node.decorator_list):
                    kinds[full] = "dataclass"
    return [Class(module, name, _kind(f"{module}.{name}", bases, kinds)) for module, name in found]


def _names(module: Module) -> dict[str, str]:
    """Imports of functions count for the whole module: that is close enough to say what a base class is."""
    names: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef):
            names.setdefault(node.name, f"{module.name}.{node.name}")
        elif isinstance(node, ast.Import):
            for one in node.names:
                names[one.asname or one.name.partition(".")[0]] = one.name if one.asname else one.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            source = _source(node, module)
            names |= {one.asname or one.name: f"{source}.{one.name}" for one in node.names}
    return names


def _source(node: ast.ImportFrom, module: Module) -> str:
    """The full name of what a `from` names."""
    if not node.level:
        return node.module or ""
    parts = module.package.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])


def _meant(node: ast.expr, names: Names) -> str:
    """The full name of a base or decorator, with arguments or without; "" if it is no dotted name."""
    if isinstance(node, ast.Call):
        return _meant(node.func, names)
    if isinstance(node, ast.Subscript):
        return _meant(node.value, names)
    if isinstance(node, ast.Attribute):
        return f"{_meant(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def _defined(full: str, names: Mapping[str, Names]) -> str:
    """Where a class that a package passes on is defined."""
    for _ in range(len(names)):
        module, _, name = full.rpartition(".")
        further = names.get(module, {}).get(name, full)
        if further == full:
            break
        full = further
    return full


def _kind(full: str, bases: Mapping[str, list[str]], kinds: Mapping[str, str], depth: int = 0) -> str:
    if full in kinds:
        return kinds[full]
    if depth > len(bases):
        return ""
    return next((kind for base in bases.get(full, []) if (kind := _kind(base, bases, kinds, depth + 1))), "")


def repeated(found: Iterable[Class]) -> dict[str, list[str]]:
    """Class names used twice or more, with the modules that use them."""
    places: dict[str, list[str]] = defaultdict(list)
    for one in found:
        places[one.name].append(one.module)
    return {name: sorted(modules) for name, modules in sorted(places.items()) if len(modules) > 1}


def imports(modules: Iterable[Module]) -> dict[str, set[str]]:
    """Module -> modules of the product that it imports, anywhere but under `if TYPE_CHECKING:`.

    Imports inside functions count: they are put there because of circles. That `import a.b` also runs `a` does not.
    """
    read = {module.name: module for module in modules}
    edges: dict[str, set[str]] = {}
    for name, module in read.items():
        targets = {target for node in _running(module.tree) for target in _imported(node, module, read)}
        edges[name] = targets - {name}
    return edges


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in child.orelse:
                yield other
                yield from _running(other)
        else:
            yield child
            yield from _running(child)


def _imported(node: ast.AST, module: Module, known: Mapping[str, Module]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (one.name for one in node.names if one.name in known)
    elif isinstance(node, ast.ImportFrom):
        source = _source(node, module)
        for one in node.names:
            inside = f"{source}.{one.name}"
            if inside in known or source in known:
                yield inside if inside in known else source


def circles(edges: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Strongly connected components of two modules or more (Tarjan's), the largest first."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for other in sorted(edges[name]):
            if other not in number:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], number[other])
        if low[name] == number[name]:
            at = stack.index(name)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for name in sorted(edges):
        if name not in number:
            visit(name)
    return sorted(found, key=lambda circle: (-len(circle), circle))
