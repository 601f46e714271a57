"""Files of training rows to sets that only answer "was this one of them?"; assignment of sets to models."""

import csv
import io
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import msgspec
import numpy as np

from models import encoders
from models.artefacts.training_set import Members, MembersError, add, empty_bits
from models.encoders.base import Encoder, RowLayout
from models.encoders.table_reader import Value
from streams import files
from streams.adapters.json_text import UNREADABLE, is_deep
from streams.adapters.request import Request
from streams.history.base import BATCH_RECORDS, SourceError
from streams.history.sources import RECORD_SUFFIXES, RecordFile
from streams.progress import Advance, Reporter

CSV_SUFFIX = ".csv"
MISSING_WORDS = frozenset(("", "na", "nan", "null", "none"))
"""How tables write "no value" into a column of numbers; among categories only the empty cell is one."""
BOOLEANS: dict[str, Value] = {"true": True, "false": False}

TABLE = "features"
"""The input that a line without a record's fields is: an object, or a line of CSV."""

_as_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_as_features = msgspec.json.Decoder(dict[str, float | str | bool | None]).decode
_as_anything = msgspec.json.Decoder().decode
_as_input = {
    name: msgspec.json.Decoder(type_).decode for name, type_ in get_type_hints(Request, include_extras=True).items()
}
"""How a record's fields are read: as `sketch` reads them, numbers as floats."""


class NumberedLine(NamedTuple):
    """One row of a file."""

    place: str  # for people
    model: str | None  # None where the line names none
    reads: str  # the field of a request that the row is for
    row: Any


class FileLayout(NamedTuple):
    """What a file's rows are."""

    model: str  # "" for any
    encoder: type[Encoder]
    layout: RowLayout
    rows: int


def make_set(path: Path, out: Path, seed: bytes, reporter: Reporter, model: str, leave_out: Sequence[str]) -> Members:
    """Read `path` several times and write the set to `out`, atomically.

    model : only rows of this model, where lines name one. leave_out : fields that requests to the model do not have.
    Raises SourceError with place, field, expected and got.
    """
    lines = _open(path, reporter)
    found = _survey(path, lines("looking at"), model, frozenset(leave_out))
    keys_of, bits = found.encoder.row_keys(found.layout, seed), empty_bits(found.rows)
    chosen = (line for line in lines("hashing") if _is_chosen(line, model))
    while batch := list(itertools.islice(chosen, BATCH_RECORDS)):
        keys, faults = keys_of([line.row for line in batch])
        for row, *fault in faults:
            raise _bad(batch[row].place, *fault)
        add(bits, keys)
    made = Members(found.model, found.encoder.kind, found.layout, found.rows, bits, seed)
    stored = io.BytesIO()
    np.savez(stored, allow_pickle=False, **made.arrays())
    files.write(out, stored.getvalue())
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
    """Sets by model. A set that names its model is used for it, any other for every model that it fits.

    sets : by file name. encoders : by model. Raises SourceError for a set that fits no model, and for a second set of
    one model.
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
    """The first row decides which encoder the set is for."""
    survey = _Survey(model, leave_out)
    rows = survey.rows(lines)
    first = next(rows, None)
    encoder = next((kind for kind in encoders.ENCODERS if kind.reads == survey.reads), None)
    layout = None if encoder is None else encoder.row_layout(itertools.chain([first], rows))
    models = sorted(survey.models - {None}, key=str)
    if len(models) > 1:
        raise SourceError(f"{path}: expected rows of one model (--model NAME); got {len(models)} models")
    if survey.count and survey.missing:
        names = ", ".join(sorted(survey.missing))
        raise SourceError(f"{path}: --leave-out: expected fields of this file; got {names}")
    if encoder is None or layout is None:
        raise SourceError(f"{path}: expected rows with a value{f' of the model {model}' if model else ''}; got none")
    return FileLayout(model or str(*models), encoder, layout, survey.count)


class _Survey:
    """What the lines of a file were."""

    def __init__(self, model: str, leave_out: frozenset[str]) -> None:
        self.reads = ""
        self.count = 0
        self.models: set[str | None] = set()
        self.missing = set(leave_out)  # of the fields to leave out
        self._model, self._leave_out = model, leave_out

    def rows(self, lines: Iterator[NumberedLine]) -> Iterator[Any]:
        """Rows of the chosen model, without what is left out. Raises SourceError for a row of another kind."""
        for line in lines:
            if not _is_chosen(line, self._model):
                continue
            self.reads = self.reads or line.reads
            if line.reads != self.reads:
                raise SourceError(f"{line.place}: line: expected {self.reads}, as in the first; got {line.reads}")
            self.count += 1
            self.models.add(line.model)
            if line.reads != TABLE:
                yield line.row
                continue
            self.missing -= line.row.keys()
            yield {name: value for name, value in line.row.items() if name not in self._leave_out}


def _bad(place: str, field: str, expected: str, got: str) -> SourceError:
    return SourceError(f"{place}: {field}: expected {expected}; got {got}")


def _open(path: Path, reporter: Reporter) -> Callable[[str], Iterator[NumberedLine]]:
    """A function that reads the file once; it takes the progress bar's text."""
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
        with suppress(*UNREADABLE):
            if (line := _record_line(text, place)) is not None:
                return line
        with suppress(*UNREADABLE):
            return NumberedLine(place, None, TABLE, _as_features(text))
    raise _unreadable(text, place)


def _record_line(text: bytes, place: str) -> NumberedLine | None:
    """Of a record with several inputs the one that `calibrate` takes. Raises one of UNREADABLE if it has a bad one."""
    members = _as_members(text)
    inputs = {
        kind.reads: _as_input[kind.reads](members[kind.reads]) for kind in encoders.ENCODERS if kind.reads in members
    }
    model = _as_anything(members["model"]) if "model" in members else None
    for reads, row in inputs.items():
        if row is not None:
            return NumberedLine(place, model if isinstance(model, str) else None, reads, row)
    return None


def _unreadable(text: bytes, place: str) -> SourceError:
    """Names the faulty field, never its value."""
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
        reported, width = 0, 0
        try:
            reader = csv.reader(file)
            for cells in reader:
                width = width or len(cells)
                if len(cells) != width:
                    raise _bad(f"{path}:{reader.line_num}", "line", f"{width} cells", f"{len(cells)} of them")
                yield reader.line_num, cells
                advance(binary.tell() - reported)
                reported = binary.tell()
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
        yield NumberedLine(f"{path}:{number}", None, TABLE, {name: reader(cell) for (name, reader), cell in named})


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
