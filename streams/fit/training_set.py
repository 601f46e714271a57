"""A file of training rows to a set that only answers "was this one of them?", and sets to the models that they fit."""

import csv
import io
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from models.artefacts.training_set import KINDS, Members, MembersError, add, empty_bits, keying
from models.encoders.base import Encoder, EncodingFault
from models.encoders.embedding import EmbeddingEncoder
from models.encoders.table_reader import TableReader, Value
from models.rows import U64
from streams.adapters import embeddings
from streams.adapters.json_text import UNREADABLE, is_deep
from streams.adapters.request import EmbeddingObject
from streams.history.base import BATCH_RECORDS, SourceError
from streams.history.sources import RECORD_SUFFIXES, RecordFile
from streams.progress import Advance, Reporter

CSV_SUFFIX = ".csv"
MISSING_WORDS = frozenset(("", "na", "nan", "null", "none"))
"""How tables write "no value" into a column of numbers; among categories only the empty cell is one."""
BOOLEANS: dict[str, Value] = {"true": True, "false": False}

Row = dict[str, Value] | list[float] | str | EmbeddingObject
"""A table row, or an embedding as logs write it."""


class _Record(msgspec.Struct):
    """A native record, of which only its input matters."""

    model: object = None
    features: dict[str, float | str | bool | None] | None = None
    embedding: list[float] | str | EmbeddingObject | None = None


_as_record = msgspec.json.Decoder(_Record).decode
_as_features = msgspec.json.Decoder(dict[str, float | str | bool | None]).decode
_as_anything = msgspec.json.Decoder().decode


class NumberedLine(NamedTuple):
    """place : for people. model : None where the line names none. row : numbers as floats, as the log's are."""

    place: str
    model: str | None
    row: Row


class FileLayout(NamedTuple):
    """What the rows hold: sorted fields of a table with their kinds, or dim of embeddings, else 0."""

    model: str
    fields: tuple[str, ...]
    kinds: tuple[str, ...]
    dim: int
    rows: int


def make_set(path: Path, out: Path, seed: bytes, reporter: Reporter, model: str, leave_out: Sequence[str]) -> Members:
    """Read `path` several times, write the set to `out`, complete or not at all.

    model : only rows of this one, where lines name a model. leave_out : fields that the model is not asked with.
    Raises SourceError with place, field, expected and got.
    """
    lines = _open(path, reporter)
    layout = _survey(path, lines("looking at"), model, frozenset(leave_out))
    keys_of, bits = _hasher(layout, seed), empty_bits(layout.rows)
    chosen = (line for line in lines("hashing") if _is_chosen(line, model))
    while batch := list(itertools.islice(chosen, BATCH_RECORDS)):
        add(bits, keys_of(batch))
    made = Members(layout.model, layout.fields, layout.kinds, layout.dim, layout.rows, bits, seed)
    beside = out.with_name(out.name + ".new")
    out.parent.mkdir(parents=True, exist_ok=True)
    with beside.open("wb") as file:
        np.savez(file, allow_pickle=False, **made.arrays())
    beside.replace(out)
    return made


def read_set(path: Path, seed: bytes) -> Members:
    """Raises SourceError, naming the file."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            members = Members.from_arrays(dict(stored), seed)
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file; `probewatch training-set FILE --out {path}` makes it") from None
    except MembersError as error:
        raise SourceError(f"{path}: {error}") from error
    except Exception as error:  # zip and numpy raise many kinds for damaged bytes
        raise SourceError(f"{path}: no training set, or a damaged one ({type(error).__name__})") from error
    if members is None:
        raise SourceError(f"{path}: no training set; `probewatch training-set FILE --out SET` makes one")
    return members


def assign(sets: Mapping[str, Members], encoders: Mapping[str, Encoder]) -> dict[str, Members]:
    """Sets by model. A set that names its model goes there, another to every model that it fits.

    sets : by the name of their file. encoders : by model. Raises SourceError for a set that fits none, and for a second
    one of a model.
    """
    assigned: dict[str, Members] = {}
    for name, members in sets.items():
        if members.model and members.model not in encoders:
            raise SourceError(f"{name}: made for the model {members.model}, which this history does not hold")
        wanted = [members.model] if members.model else sorted(encoders)
        misfits = {model: members.misfit(encoders[model]) for model in wanted}
        for model, misfit in misfits.items():
            if not misfit and model in assigned:
                raise SourceError(f"{name}: the model {model} has a training set already; put all rows into one file")
            if not misfit:
                assigned[model] = members
        if all(misfits.values()):
            raise SourceError("; ".join(f"{name}: model {model}: {misfit}" for model, misfit in misfits.items()))
    return assigned


def _is_chosen(line: NumberedLine, model: str) -> bool:
    return not model or line.model in (None, model)


def _survey(path: Path, lines: Iterator[NumberedLine], model: str, leave_out: frozenset[str]) -> FileLayout:
    """A field with a string in any row is a category, as an encoder decides; one without any value is left out."""
    is_category: dict[str, bool] = {}
    names, models, rows, dim = set(leave_out), set(), 0, 0
    for line in lines:
        if not _is_chosen(line, model):
            continue
        if rows and isinstance(line.row, dict) != (dim == 0):
            raise SourceError(f"{line.place}: line: expected rows of one kind; got features and embeddings")
        rows += 1
        models.add(line.model)
        if not isinstance(line.row, dict):
            dim = dim or embeddings.dimension(line.row) or 1  # one that cannot be read is told when it is hashed
            continue
        for name, value in line.row.items():
            names.discard(name)
            if value is not None and name not in leave_out:
                is_category[name] = is_category.get(name, False) or isinstance(value, str)
    found = sorted(models - {None}, key=str)
    if len(found) > 1:
        raise SourceError(f"{path}: expected rows of one model (--model NAME); got {len(found)} models")
    if rows and names:
        raise SourceError(f"{path}: --leave-out: expected fields of this file; got {', '.join(sorted(names))}")
    if not rows or not (is_category or dim):
        raise SourceError(f"{path}: expected rows with a value{f' of the model {model}' if model else ''}; got none")
    fields = tuple(sorted(is_category))
    kinds = tuple(KINDS[is_category[name]] for name in fields)
    return FileLayout(model or str(*found), fields, kinds, dim, rows)


def _hasher(layout: FileLayout, seed: bytes) -> Callable[[Sequence[NumberedLine]], U64]:
    """Keys of lines. They read inputs as `sketch` does, so that both agree on what is the same input."""
    if layout.dim:
        encoder = EmbeddingEncoder(layout.dim, 1.0, seed)

        def of_embeddings(lines: Sequence[NumberedLine]) -> U64:
            read = embeddings.vectors([line.row for line in lines], layout.dim)  # type: ignore[misc]  # no dicts
            encoded = encoder.encode(read.vectors)  # type: ignore[arg-type]  # an array is what it takes fastest
            for row, fault in sorted(read.faults.items()):
                raise _bad(lines[row].place, *fault[:3])
            for found in encoded.faults:
                raise _bad(lines[found.row].place, *found[1:])
            return encoded.exact

        return of_embeddings
    categories = [() if kind == "category" else None for kind in layout.kinds]
    reader = TableReader(layout.fields, categories, seed)
    keyed = keying(layout.fields, range(len(layout.fields)), categories, seed)

    def of_tables(lines: Sequence[NumberedLine]) -> U64:
        faults: list[EncodingFault] = []
        plain = reader.read([line.row for line in lines], faults)  # type: ignore[misc]  # dicts only
        for found in sorted(faults):
            raise _bad(lines[found.row].place, *found[1:])
        return keyed.keys(plain)

    return of_tables


def _bad(place: str, field: str, expected: str, got: str) -> SourceError:
    return SourceError(f"{place}: {field}: expected {expected}; got {got}")


def _open(path: Path, reporter: Reporter) -> Callable[[str], Iterator[NumberedLine]]:
    """A function that reads the file once more; it takes what the progress bar says."""
    if not path.is_file():
        raise SourceError(f"{path}: no such file")

    def advance(doing: str) -> Advance:
        return reporter.task(f"{doing} {path.name}", path.stat().st_size)

    if path.name.endswith(CSV_SUFFIX):
        readers = _column_readers(path, advance("reading"))
        return lambda doing: _table_lines(path, readers, advance(doing))
    if path.name.endswith(RECORD_SUFFIXES):
        return lambda doing: _json_lines(path, advance(doing))
    raise SourceError(f"{path}: expected {', '.join((*RECORD_SUFFIXES, CSV_SUFFIX))}; got another kind of file")


def _json_lines(path: Path, advance: Advance) -> Iterator[NumberedLine]:
    file = RecordFile(path, path.name)
    for batch in file.batches(advance):
        for record in batch.records:
            moved = batch.topic != file.name  # the line carries a position in Kafka
            place = f"{batch.topic}[{batch.partition}]@{record.offset}" if moved else f"{path}:{record.offset + 1}"
            yield _json_line(record.value or b"", place)


def _json_line(text: bytes, place: str) -> NumberedLine:
    """A native record if the line has its input, else an object of features."""
    if not is_deep(text):
        try:
            record = _as_record(text)
        except UNREADABLE:
            record = _Record()
        row = record.features if record.embedding is None else record.embedding
        if row is not None:
            return NumberedLine(place, record.model if isinstance(record.model, str) else None, row)
        try:
            return NumberedLine(place, None, _as_features(text))
        except UNREADABLE:
            pass
    raise _unreadable(text, place)


def _unreadable(text: bytes, place: str) -> SourceError:
    """Names the field that is to blame; field names may be told, values never."""
    try:
        found = None if is_deep(text) else _as_anything(text)
    except UNREADABLE:
        found = None
    if isinstance(found, dict):
        inner = found.get("features")
        for name, value in (inner if isinstance(inner, dict) else found).items():
            if isinstance(value, dict | list):
                got = "an object" if isinstance(value, dict) else "a list"
                return _bad(place, name, "a number, a string, true, false or null", got)
    expected = "an object of features, or a record with features or an embedding"
    return _bad(place, "line", expected, "something else")


def _cells(path: Path, advance: Advance) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells of a CSV file, the header first."""
    with path.open("rb") as binary, io.TextIOWrapper(binary, "utf-8-sig", newline="") as file:
        told, width = 0, 0
        try:
            reader = csv.reader(file)
            for cells in reader:
                width = width or len(cells)
                if len(cells) != width:
                    raise _bad(f"{path}:{reader.line_num}", "line", f"{width} cells", f"{len(cells)} of them")
                yield reader.line_num, cells
                advance(binary.tell() - told)
                told = binary.tell()
        except (UnicodeDecodeError, csv.Error) as error:
            raise SourceError(f"{path}: expected CSV in UTF-8; got something else") from error


def _column_readers(path: Path, advance: Advance) -> dict[str, Callable[[str], Value]]:
    """How each column of a CSV file is read: as numbers or booleans if every cell is one, else as categories."""
    lines = _cells(path, advance)
    _, names = next(lines, (0, []))
    if not names or len(set(names)) != len(names) or "" in names:
        raise _bad(f"{path}:1", "header", "distinct names of fields", "none, an empty or a repeated one")
    candidates = [[_as_number, _as_boolean] for _ in names]
    for _, cells in lines:
        for readers, cell in zip(candidates, cells, strict=True):
            if readers:
                readers[:] = [reader for reader in readers if reader(cell) is not _UNREAD]
    return {name: readers[0] if readers else _as_category for name, readers in zip(names, candidates, strict=True)}


def _table_lines(path: Path, readers: Mapping[str, Callable[[str], Value]], advance: Advance) -> Iterator[NumberedLine]:
    for number, cells in itertools.islice(_cells(path, advance), 1, None):
        named = zip(readers.items(), cells, strict=True)
        yield NumberedLine(f"{path}:{number}", None, {name: reader(cell) for (name, reader), cell in named})


_UNREAD = object()


def _as_number(cell: str) -> Any:
    if cell.strip().lower() in MISSING_WORDS:
        return None
    try:
        number = float(cell)
    except ValueError:
        return _UNREAD
    return number if math.isfinite(number) else _UNREAD


def _as_boolean(cell: str) -> Any:
    text = cell.strip().lower()
    return None if text in MISSING_WORDS else BOOLEANS.get(text, _UNREAD)


def _as_category(cell: str) -> str | None:
    return cell or None
