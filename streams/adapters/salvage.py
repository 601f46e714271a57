"""A request from the members of an element that strict decoding refused: what can be read counts, the rest is absent.

Nothing that one client put into its request may hide that request: it is judged as long as client, model, time and some
input can be read, and held against the client otherwise (docs/adr/0019-salvage.md).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import msgspec

from models.encoders.table_reader import Unread, number_of
from models.rows import CLASSES
from streams.adapters.json_members import members, strict_text, text_in, whole_in
from streams.adapters.json_text import UNREADABLE, is_deep, is_json, is_unicode
from streams.adapters.request import (
    EXPECTED,
    IDENTIFIER_CHARS,
    UNKNOWN_MODEL,
    UNKNOWN_TIME,
    Count,
    Embedding,
    Label,
    Output,
    Request,
    Salvaged,
    Time,
)
from streams.wire.rejects import Fault

T = TypeVar("T")
Explain = Callable[[], Fault]

_WORDS: Mapping[bytes, bool | None] = {b"true": True, b"false": False, b"null": None}


class _UnreadError(Exception):
    """A value that cannot be read."""


def salvaged(text: bytes, explain: Explain) -> Request | Fault:
    """What can be read of a native element. explain : what strict decoding says of it. Never raises."""
    found = members(text)
    request = request_of(found.values, explain, is_whole=found.is_whole)
    if isinstance(request, Fault | Salvaged) or is_json(text):
        return request
    return Salvaged(**_fields(request), unread=("record",))


def request_of(values: Mapping[str, bytes], explain: Explain, *, is_whole: bool) -> Request | Fault:
    """A request from JSON texts by the names of Request's fields, present or not; a Fault if nobody can be named.

    is_whole : nothing of the element lies behind a broken place.
    """
    unread: list[str] = [] if is_whole else ["record"]

    def read(name: str, reader: Callable[[bytes], T], otherwise: T) -> T:
        value = values.get(name)
        if value is None or value == b"null":
            return otherwise
        try:
            return reader(value)
        except _UnreadError:
            unread.append(name)
            return otherwise

    client_id = read("client_id", _client_id, "")
    if not client_id:
        return explain()
    if len(client_id) > IDENTIFIER_CHARS or "\ufffd" in client_id:
        unread.append("client_id")
    request = Salvaged(
        ts=read("ts", _time, UNKNOWN_TIME),
        client_id=client_id,
        model=read("model", _name, UNKNOWN_MODEL),
        request_id=read("request_id", _request_id, None),
        features=read("features", lambda value: _features(value, unread), None),
        embedding=read("embedding", _embedding, None),
        output=read("output", lambda value: _output(value, unread), None),
        client_class=read("client_class", _class, None),
        operation=read("operation", _any_name, None),
        tokens_in=read("tokens_in", _count, None),
        tokens_out=read("tokens_out", _count, None),
    )
    request.lost = _lost(request, unread, values, explain)
    request.unread = tuple(dict.fromkeys(name if name in EXPECTED else "record" for name in unread))
    return request if request.unread or request.lost else Request(**_fields(request))


def _lost(request: Request, unread: list[str], values: Mapping[str, bytes], explain: Explain) -> Fault | None:
    """Why a request cannot be judged; None if it can, or if it brings no input, which is no fault."""
    has_input = request.features is not None or request.embedding is not None
    if request.ts == UNKNOWN_TIME:
        field = "ts"
    elif request.model == UNKNOWN_MODEL:
        field = "model"
    elif not has_input and unread:
        field = next((name for name in unread if name in ("features", "embedding", "record")), "")
    else:
        return None
    if not field:
        return None
    fault = explain()
    if fault.field.partition("[")[0].partition(".")[0] == field:
        return fault
    got, reason = ("something else", "type") if field in values else ("nothing", "missing")
    return Fault(field, EXPECTED.get(field, "an input"), got, reason)  # type: ignore[arg-type]  # one of Reason


def _fields(request: Request) -> dict[str, Any]:
    return {name: getattr(request, name) for name in Request.__struct_fields__}


def _decoded(kind: Any) -> Callable[[bytes], Any]:
    """A reader that takes exactly this type."""
    decode = msgspec.json.Decoder(kind).decode

    def read(value: bytes) -> Any:
        try:
            return decode(value)
        except UNREADABLE:
            raise _UnreadError from None

    return read


_PLAIN = (float, str, bool, type(None))
_any_table = msgspec.json.Decoder(dict[str, Any]).decode
_strict_time = _decoded(Time | float)
_strict_label = _decoded(Label)
_strict_count = _decoded(Count)
_strict_scores = _decoded(dict[str, float])
_strict_float = _decoded(float)
_strict_embedding = _decoded(Embedding)


def _embedding(value: bytes) -> Any:
    if is_deep(value):
        raise _UnreadError
    return _strict_embedding(value)


def _client_id(value: bytes) -> str:
    """As doors read the same bytes in a header: what is no UTF-8 is U+FFFD (probewatch_door.pseudonym)."""
    if value[:1] == b'"':
        text = text_in(value)
        try:
            return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        except UnicodeEncodeError:
            return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    whole = whole_in(value.decode("ascii", "replace"))
    if whole is None:
        raise _UnreadError
    return whole


def _name(value: bytes) -> str:
    name = strict_text(value)
    if not name or len(name) > IDENTIFIER_CHARS:
        raise _UnreadError
    return name


def _any_name(value: bytes) -> str:
    name = strict_text(value)
    if name is None:
        raise _UnreadError
    return name


def _request_id(value: bytes) -> str | None:
    name = strict_text(value)
    name = whole_in(value.decode("ascii", "replace")) if name is None else name
    if name is None or len(name) > IDENTIFIER_CHARS:
        raise _UnreadError
    return name


def _time(value: bytes) -> Any:
    try:
        return _strict_time(value)
    except _UnreadError:
        return _number(value)


def _number(value: bytes) -> float:
    """A number, or one in quotes; finite."""
    if value[:1] != b'"':
        return float(_strict_float(value))
    number = number_of(strict_text(value) or "")
    if math.isnan(number):
        raise _UnreadError
    return number


def _count(value: bytes) -> int:
    number = _number(value)
    if not number.is_integer():
        raise _UnreadError
    return int(_strict_count(b"%d" % int(number)))


def _class(value: bytes) -> Any:
    name = strict_text(value)
    if name not in CLASSES:
        raise _UnreadError
    return name


def _features(value: bytes, unread: list[str]) -> Any:
    found = members(value)
    if value[:1] != b"{":
        raise _UnreadError
    if not found.is_whole:
        unread.append("features")
    features = _scalars(value, found.values)
    if any(isinstance(item, Unread) for item in features.values()) or not is_unicode("".join(features)):
        unread.append("features")
    return features


def _scalars(table: bytes, values: Mapping[str, bytes]) -> dict[str, Any]:
    """All values of a table; at once if it is JSON, which takes a tenth of the time."""
    try:
        decoded = _any_table(table)
    except UNREADABLE:
        return {name: _scalar(text) for name, text in values.items()}
    for name, item in decoded.items():
        if type(item) is int and (0 < abs(item) < 2**53 or values[name] == b"0"):
            decoded[name] = float(item)
        elif type(item) not in _PLAIN:
            decoded[name] = _scalar(values[name])
    return decoded


def _scalar(value: bytes) -> float | str | bool | Unread | None:
    """A value of a table, or its text."""
    if value[:1] == b'"':
        text = strict_text(value)
        return Unread(value.decode("utf-8", "surrogateescape")) if text is None else text
    if value in _WORDS:
        return _WORDS[value]
    try:
        return cast(float, _strict_float(value))
    except _UnreadError:
        return Unread(value.decode("utf-8", "surrogateescape"))


def _output(value: bytes, unread: list[str]) -> Output:
    found = members(value)
    if value[:1] != b"{":
        raise _UnreadError
    if not found.is_whole:
        unread.append("output")
    readers = {"label": _strict_label, "score": _number, "scores": _strict_scores, "refused": _refused}
    output = Output()
    for name, read in readers.items():
        if found.values.get(name, b"null") != b"null":
            try:
                setattr(output, name, read(found.values[name]))
            except _UnreadError:
                unread.append(f"output.{name}")
    return output


def _refused(value: bytes) -> bool | None:
    if value not in _WORDS:
        raise _UnreadError
    return _WORDS[value]
