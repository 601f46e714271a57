"""Raw requests by position, compared field by field. Needs the right to read the raw topics."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from streams.adapters import Formats
from streams.adapters.base import Adapter
from streams.adapters.json_text import UNREADABLE
from streams.adapters.request import Request
from streams.config.config import Config
from streams.history.base import RawBatch, Source, SourceError
from streams.history.sources import open_sources
from streams.progress import Reporter
from streams.sketch.sketcher import RawRecord

CELL_CHARS = 60
NUMBERS_SHOWN = 8


class Place(NamedTuple):
    """Where a row came from. source : "topic[3]"."""

    source: str
    offset: int
    index: int  # type: ignore[assignment]  # as in Rows


class FieldDifference(msgspec.Struct, frozen=True):
    """One field of several requests. values : in their order, null where one lacks it. differs : from the first's."""

    field: str
    values: tuple[str | None, ...]
    differs: tuple[bool, ...]


class SideBySide(msgspec.Struct, frozen=True):
    """Requests of one client. rows_seen : which of its rows they are, the explained one first."""

    rows_seen: tuple[int, ...]
    fields: tuple[FieldDifference, ...]


def requests_at(
    places: Collection[Place], sources: Sequence[Source], config: Config, reporter: Reporter
) -> dict[Place, dict[str, str]]:
    """Fields of the requests at these places, as text, as far as the sources have them. Raises SourceError."""
    wanted: dict[tuple[str, int], list[Place]] = defaultdict(list)
    for place in places:
        wanted[place.source, place.offset].append(place)
    formats = Formats(config)
    requests: dict[Place, dict[str, str]] = {}
    for source in sources:
        for batch in source.batches(reporter.task(f"reading requests: {source.name}", source.size)):
            if not isinstance(batch, RawBatch):
                raise SourceError(f"{source.name}: frames hold no inputs; --raw takes raw records")
            name = f"{batch.topic}[{batch.partition}]"
            for record in batch.records:
                for place in wanted.get((name, record.offset), ()):
                    requests[place] = _fields(record, place.index, formats.of(batch.topic))
            if len(requests) == len(places):
                return requests
    return requests


def open_raw(specs: Sequence[str], places: Collection[Place], config: Config) -> list[Source]:
    """Sources of raw records. Of a topic given without a range only the stretch that holds the places is read."""
    opened: list[Source] = []
    for spec in specs:
        if spec.startswith("kafka://") and "?" not in spec:
            topic = spec.rstrip("/").rpartition("/")[2]
            opened += open_sources([f"{spec}?{span}" for span in _spans(topic, places)], config)
        else:
            opened += open_sources([spec], config)
    return opened


def _spans(topic: str, places: Collection[Place]) -> Iterator[str]:
    offsets: dict[str, list[int]] = defaultdict(list)
    for place in places:
        name, _, partition = place.source.rstrip("]").rpartition("[")
        if name == topic:
            offsets[partition].append(place.offset)
    for partition, there in sorted(offsets.items()):
        yield f"from={min(there)}&to={max(there) + 1}&partition={partition}"


def _fields(record: RawRecord, index: int, adapter: Adapter) -> dict[str, str]:
    """Every member of the request's JSON under its dotted name, read or not; of other text, the fields of Request."""
    elements = adapter.elements(record.value or b"")
    if index >= len(elements):
        return {}
    try:
        members = msgspec.json.decode(elements[index])
    except UNREADABLE:
        items = adapter.decode(elements[index], record.headers, frozenset())
        request = next((item for item in items if isinstance(item, Request)), None)
        members = {name: value for name, value in msgspec.to_builtins(request or {}).items() if value is not None}
    return dict(_flat(members)) if isinstance(members, dict) else {}


def _flat(members: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in members.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        elif name != "_kafka":
            yield f"{above}{name}", _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list) and len(value) > NUMBERS_SHOWN:
        return f"{len(value):,} values"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= CELL_CHARS else f"{text[: CELL_CHARS - 1]}…"


def compared(requests: Sequence[dict[str, str]]) -> tuple[FieldDifference, ...]:
    """Every field that one of them has, those that differ first."""
    names = list(dict.fromkeys(name for request in requests for name in request))
    rows = [(name, tuple(request.get(name) for request in requests)) for name in names]
    found = [FieldDifference(name, values, tuple(value != values[0] for value in values)) for name, values in rows]
    return tuple(sorted(found, key=lambda field: not any(field.differs)))
