"""Raw records to rows: decode once, keep little. Pure: no clock, no Kafka; live and replay call the same function.

A row depends on its record alone, never on the batch: any cutting gives the same rows.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from traceback import extract_tb
from typing import NamedTuple, Protocol

import numpy as np

from detector.frame import RowFrame, label
from detector.settings import Model as ModelConfig
from models.artefacts.population import Population
from models.artefacts.training_set import Members
from models.encoders.base import Encoded, Encoder
from models.pseudonym import client_of
from models.reorder import joined
from models.rows import CLASSES, FLAG_MEMBER, U8, U32, U64, Rows, distinct
from streams.adapters import Formats
from streams.adapters.base import Adapter
from streams.adapters.scanner import Scanner
from streams.config.config import Config
from streams.sketch import columns
from streams.sketch.columns import UNDECLARED, RecordColumns
from streams.sketch.elements import RawMessage, Refusal, append_ms, read_records, refusals
from streams.sketch.fast_path import RawPlaces, Window, plain_rows
from streams.sketch.identity import Identity, source_id
from streams.sketch.model_names import ModelNames
from streams.sketch.slow_path import FEW_FIELDS, Elements, Space, lost_ones, slow_rows
from streams.wire.rejects import WHOLE_RECORD, Fault, Headers, Reject

DECISION_THRESHOLD = 0.5
CHUNK_RECORDS = 2_048
"""Records that are worked on at one time. The calls for a chunk take half a millisecond, whatever is in it: with 512 a
row of 23 features cost 7.1 us instead of 5.9, with all of a fetch no less."""

CHUNK_BYTES = 2**20
"""And their length: with dense messages, each byte of which costs a multiple, a caller waits a tenth of a second."""

DECODED_RECORDS = 256
"""Those of them whose inputs exist as Python objects at one time: half a megabyte. All of a fetch (4,096) at once made
a row of 23 features cost 8.4 us instead of 6.9."""

EMPTY_RECORD = "empty_record"


class RawRecord(NamedTuple):
    """One message of a raw topic. timestamp : ms, -1 for none. timestamp_type : LOG_APPEND if the broker set it; if the
    producer did, it is trusted as little as key and headers."""

    offset: int
    value: bytes | None
    key: bytes | None
    headers: Headers
    timestamp: int
    timestamp_type: int | None = None


class SketchResult(NamedTuple):
    """frames : sorted by model and partition, rows in raw order, offset -1 since none is known before they are written.
    rejects : sorted by place. unjudged : rows that are not judged, by reason, and records without a value, such as
    tombstones of a compacted topic. unread : fields that could not be read of rows that are judged, by name.
    """

    frames: list[RowFrame]
    rejects: list[Reject]
    unjudged: Counter[str]
    unread: Counter[str]


class SketchedModel(Protocol):
    """The part of a model's artefact that the sketch needs."""

    @property
    def space(self) -> str: ...

    @property
    def encoder(self) -> Encoder: ...

    @property
    def decision_threshold(self) -> float | None: ...

    @property
    def population(self) -> Population | None: ...

    @property
    def members(self) -> Members | None: ...


class SketchedModels(Protocol):
    @property
    def models(self) -> Mapping[str, SketchedModel]: ...


class RawRange(NamedTuple):
    """Records of one raw partition, offsets rising. source : its id in frames."""

    topic: str
    partition: int
    source: int
    records: Sequence[RawMessage]


def raw_range(topic: str, partition: int, incarnation: str, records: Sequence[RawMessage]) -> RawRange:
    return RawRange(topic, partition, source_id(topic, partition, incarnation), records)


class Piece(NamedTuple):
    """The result of some records. rows : of each model, parts in any order."""

    rows: dict[str, list[Rows]]
    rejects: list[Reject]
    unjudged: Counter[str]
    unread: Counter[str]


class Sketcher:
    """Immutable but for caches. formats : the log format of each topic. Raises ConfigError for an unknown format."""

    def __init__(self, artefacts: SketchedModels, identity: Identity, config: Config) -> None:
        self._models = artefacts.models
        self._identity = identity
        self._config = config
        self.formats = Formats(config)
        self._scanners: dict[str, Scanner] = {}
        self._names = ModelNames(self._models, config.models)
        self._first = min(self._models, default=None)
        self._window = Window(config.input.earliest_ms, config.input.latest_ms)
        self._spaces = {name: model.space for name, model in self._models.items()}
        self._encoders = {name: model.encoder for name, model in self._models.items()}
        self._thresholds = {
            name: _threshold(config.models.get(name), model.decision_threshold) for name, model in self._models.items()
        }
        self._features = frozenset(name for model in self._models.values() for name in model.encoder.field_names)
        self._members = {
            name: model.members.lookup(model.encoder) for name, model in self._models.items() if model.members
        }
        declared = sorted(
            (client_of(name), CLASSES.index(client_class)) for name, client_class in config.input.registry.items()
        )
        self._declared_clients = np.array([client for client, _ in declared], np.uint64)
        self._declared_classes = np.array([client_class for _, client_class in declared], np.uint8)

    def frames(
        self, topic: str, partition: int, incarnation: str, records: Sequence[RawMessage], n_partitions: int
    ) -> SketchResult:
        """Sketch records of one raw partition, offsets rising. n_partitions : of `requests`."""
        return self.frames_of([raw_range(topic, partition, incarnation, records)], n_partitions)

    def frames_of(self, stretches: Sequence[RawRange], n_partitions: int) -> SketchResult:
        """Sketch records of several raw partitions together: in the frames they stand in order of time."""
        return self.join(stretches, [self.piece(chunk) for chunk in chunks(stretches)], n_partitions)

    def piece(self, stretches: Sequence[RawRange]) -> Piece:
        """Rows of a few records. This takes the time, so that a caller can do other work between two pieces.

        A fault of this program on one record is the end of that record, not of those beside it: it becomes a Reject.
        """
        try:
            return self._piece(stretches)
        except Exception as error:  # whatever it is: it would come again after every restart
            halves = _halves(stretches)
            if not halves:
                (record,) = stretches[0].records
                return Piece({}, [internal(stretches[0], record.offset, WHOLE_RECORD, error)], Counter(), Counter())
        piece = Piece({}, [], Counter(), Counter())
        for half in map(self.piece, halves):
            for name, rows in half.rows.items():
                piece.rows.setdefault(name, []).extend(rows)
            piece.rejects.extend(half.rejects)
            piece.unjudged.update(half.unjudged)
            piece.unread.update(half.unread)
        return piece

    def _piece(self, stretches: Sequence[RawRange]) -> Piece:
        piece = Piece({}, [], Counter(), Counter())
        by_format: dict[str, tuple[Adapter, list[RawRange]]] = {}
        for one in stretches:
            one = _with_value(one, piece, self._config.input.max_record_bytes)
            adapter = self.formats.of(one.topic)
            by_format.setdefault(adapter.name, (adapter, []))[1].append(one)
        for adapter, own in by_format.values():
            for one in own if adapter.scanner is None else self._plain(own, self._scanner_of(adapter), piece):
                for start in range(0, len(one.records), DECODED_RECORDS):
                    self._decoded(one, one.records[start : start + DECODED_RECORDS], adapter, piece)
        return piece

    def _scanner_of(self, adapter: Adapter) -> Scanner:
        if adapter.name not in self._scanners:
            assert adapter.scanner is not None
            self._scanners[adapter.name] = adapter.scanner()
        return self._scanners[adapter.name]

    def join(self, stretches: Sequence[RawRange], pieces: Sequence[Piece], n_partitions: int) -> SketchResult:
        """Frames of all pieces of these ranges: fewer and fuller than the frames of each piece."""
        names = {one.source: f"{one.topic}[{one.partition}]" for one in stretches}
        rejects = sorted((one for piece in pieces for one in piece.rejects), key=_place)
        unjudged = sum((piece.unjudged for piece in pieces), Counter[str]())
        unread = sum((piece.unread for piece in pieces), Counter[str]())
        frames: list[RowFrame] = []
        for name in sorted({name for piece in pieces for name in piece.rows}):
            rows = joined([part for piece in pieces for part in piece.rows.get(name, ())])
            sources = label({source: names[source] for source in distinct(rows.source).tolist()})
            about = name, self._spaces[name], sources, self._identity.key_id
            frames += [RowFrame(target, -1, *about, part) for target, part in columns.cut(rows, n_partitions)]
        return SketchResult(frames, rejects, unjudged, unread)

    def _plain(self, stretches: Sequence[RawRange], scanner: Scanner, piece: Piece) -> Sequence[RawRange]:
        """Rows of the records that the scanner takes; returns the other records."""
        records = [record for one in stretches for record in one.records]
        scanned = scanner.scan([record.value or b"" for record in records], self._config.input.max_record_bytes)
        left = np.ones(len(records), np.bool_)
        offsets = np.array([record.offset for record in records], np.int64)
        appends = np.array([append_ms(record, self._config.input) for record in records], np.int64)
        lengths = [len(one.records) for one in stretches]
        sources = np.repeat(np.array([one.source for one in stretches], np.uint32), lengths)
        about = self._encoders, self._thresholds, self._identity, self._names, self._window
        for part in plain_rows(scanned, RawPlaces(offsets, appends), *about):
            left[part.rows] = False
            piece.unjudged[FEW_FIELDS] += int(np.count_nonzero(~part.encoded.usable))
            rows = self._rows(part.model, sources[part.rows], part.said, part.encoded)
            piece.rows.setdefault(part.model, []).append(rows)
        if not left.any():
            return []
        left_of = np.split(left, np.cumsum(lengths)[:-1])
        return [
            one._replace(records=[one.records[place] for place in np.flatnonzero(mask).tolist()])
            for one, mask in zip(stretches, left_of, strict=True)
        ]

    def _decoded(self, of: RawRange, records: Sequence[RawMessage], adapter: Adapter, piece: Piece) -> None:
        """Records one by one; faults are explained here."""
        read = read_records(records, adapter, self._config, self._features)
        elements = Elements(f"{of.topic}[{of.partition}]", records, adapter)
        for named, chosen in _by_model([self._names.of(request.model) for request in read.requests]):
            requests, places = [read.requests[n] for n in chosen], [read.places[n] for n in chosen]
            name = named or self._first
            if name is None:
                read.faults.extend((*places[row][:2], fault) for row, fault in lost_ones(requests).items())
                continue
            space = Space(self._encoders[name], self._thresholds[name], named is not None)
            made = slow_rows(requests, places, space, elements, self._identity, self._config.input)
            read.faults.extend((*places[row][:2], fault) for row, fault in made.faults.items())
            piece.unjudged.update(made.unjudged)
            piece.unread.update(made.unread)
            source = np.full(len(requests), of.source, np.uint32)
            piece.rows.setdefault(name, []).append(self._rows(name, source, made.said, made.encoded))
        piece.rejects.extend(_reject(of, refusal) for refusal in refusals(read.faults, read.unread))

    def _rows(self, name: str, source: U32, said: RecordColumns, encoded: Encoded) -> Rows:
        if name in self._members:
            said.flags[self._members[name].contains(encoded)] |= FLAG_MEMBER
        novelty, cell = columns.describe(self._models[name].population, encoded.values)
        if not encoded.usable.all():
            said = columns.without_answers(said, ~encoded.usable)
            novelty, cell = np.where(encoded.usable, novelty, np.float32(np.nan)), np.where(encoded.usable, cell, 0)
        return Rows(
            source=source,
            **said._replace(client_class=self._classes(said.client_class, said.client))._asdict(),
            exact=encoded.exact,
            values=encoded.values,
            fields=encoded.fields,
            surprisal=encoded.surprisal,
            offgrid=encoded.offgrid,
            odd=encoded.odd,
            novelty=novelty,
            guard=np.full(len(source), np.nan, np.float32),
            cell=cell,
        )

    def _classes(self, codes: U8, clients: U64) -> U8:
        """The class that the record declares, else the registry, else consumer."""
        undeclared = codes == UNDECLARED
        codes = np.where(undeclared, 0, codes).astype(np.uint8)
        if len(self._declared_clients):
            clients = self._identity.spoken_of(clients)
            places = np.searchsorted(self._declared_clients, clients)
            places[places == len(self._declared_clients)] = 0
            known = undeclared & (self._declared_clients[places] == clients)
            codes[known] = self._declared_classes[places[known]]
        return codes


def chunks(stretches: Sequence[RawRange]) -> Iterator[list[RawRange]]:
    """The same records in portions for `Sketcher.piece`, in order; none is empty. A portion ends with the record that
    makes it CHUNK_BYTES long, or CHUNK_RECORDS."""
    chunk: list[RawRange] = []
    records, size = 0, 0
    for one in stretches:
        start = 0
        for place, record in enumerate(one.records):
            records, size = records + 1, size + len(record.value or b"")
            if records == CHUNK_RECORDS or size >= CHUNK_BYTES:
                yield [*chunk, one._replace(records=one.records[start : place + 1])]
                chunk, start, records, size = [], place + 1, 0, 0
        if start < len(one.records):
            chunk.append(one._replace(records=one.records[start:]))
    if chunk:
        yield chunk


def _with_value(one: RawRange, piece: Piece, bytes_max: int) -> RawRange:
    """Without records that say nothing, which are counted. bytes_max : longer ones are refused for that."""
    said = [record for record in one.records if len(record.value or b"") > bytes_max or (record.value or b"").strip()]
    if len(said) == len(one.records):
        return one
    piece.unjudged[EMPTY_RECORD] += len(one.records) - len(said)
    return one._replace(records=said)


def _halves(stretches: Sequence[RawRange]) -> list[list[RawRange]]:
    """The same records in two parts, neither empty; nothing for a single record."""
    left = sum(len(one.records) for one in stretches) // 2
    halves: list[list[RawRange]] = [[], []]
    for one in stretches:
        for half, records in zip(halves, (one.records[:left], one.records[left:]), strict=True):
            if records:
                half.append(one._replace(records=records))
        left = max(0, left - len(one.records))
    return halves if halves[0] else []


def internal(of: RawRange, offset: int, index: int, error: Exception) -> Reject:
    """For a record, or one row, on which this program failed. Names the place in the code, nothing of the record."""
    at = extract_tb(error.__traceback__)[-1]
    got = f"an internal error ({type(error).__name__}, {PurePath(at.filename).name}:{at.lineno})"
    fault = Fault("record", "a record that this version can read", got, "internal")
    return Reject(of.topic, of.partition, offset, index, *fault)


def _reject(of: RawRange, refusal: Refusal) -> Reject:
    return Reject(of.topic, of.partition, refusal.offset, refusal.row, *refusal.fault, refusal.rows)


def _place(reject: Reject) -> tuple[str, int, int, int]:
    return reject.topic, reject.partition, reject.offset, reject.index


def _threshold(configured: ModelConfig | None, fitted: float | None) -> float:
    if configured is not None and configured.decision_threshold is not None:
        return configured.decision_threshold
    return DECISION_THRESHOLD if fitted is None else fitted


def _by_model(names: Sequence[str | None]) -> Iterator[tuple[str | None, Sequence[int]]]:
    """Calibrated models by name, with the places of their requests; None for those of no model."""
    if len(set(names)) == 1:
        yield names[0], range(len(names))
        return
    places: dict[str | None, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    yield from sorted(places.items(), key=lambda item: item[0] or "")
