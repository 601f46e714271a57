"""Raw records to rows: decode once, keep little. Pure: no clock, no Kafka; live and replay call the same function.

What is said of a row depends on that row alone, never on the batch it came in: any cutting gives the same rows.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from detector.config import Config
from detector.frame import RowFrame
from models.encoders.base import Encoded, Encoder
from models.members import Members
from models.population import Population
from models.rows import CLASSES, FLAG_MEMBER, I64, U8, U64, Rows
from streams import columns
from streams.adapters import REGISTRY, Adapter
from streams.adapters.json_text import UNREADABLE
from streams.adapters.request import Request
from streams.columns import Faults
from streams.identity import Identity, client_of, source_id
from streams.rejects import WHOLE_RECORD, Fault, Headers, Reject

DECISION_THRESHOLD = 0.5
CHUNK_RECORDS = 256
"""Records whose inputs exist as Python objects at one time: half a megabyte, which stays in a processor's cache. All
of a fetch (4,096) at once made a row of 23 features cost 8.4 us instead of 6.9."""

UNKNOWN_MODEL = "unknown_model"
NO_INPUT = "no_input"

_UNDECLARED = 255
_CLASS_CODES: dict[str | None, int] = {None: _UNDECLARED, **{name: code for code, name in enumerate(CLASSES)}}


class Message(Protocol):
    """What sketch reads of a raw record. aiokafka's ConsumerRecord is one as it stands: copying each costs 0.4 us."""

    @property
    def offset(self) -> int: ...

    @property
    def value(self) -> bytes | None: ...

    @property
    def headers(self) -> Headers: ...


class RawRecord(NamedTuple):
    """One message of a raw topic. key, headers and timestamp are not trusted; timestamp_ms -1 means none."""

    offset: int
    value: bytes | None
    key: bytes | None
    headers: Headers
    timestamp_ms: int


class SketchResult(NamedTuple):
    """frames : sorted by model and partition, rows in raw order, offset -1 since none is known before they are written.
    rejects : sorted by offset and index. unjudged : rows by reason, of models without artefact or without input.
    """

    frames: list[RowFrame]
    rejects: list[Reject]
    unjudged: Counter[str]


class SketchedModel(Protocol):
    """What sketch needs of a model's artefact."""

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


class Read(NamedTuple):
    """requests, with the offset of the record and the index inside it. faults : (offset, index, fault)."""

    requests: list[Request]
    offsets: list[int]
    indexes: list[int]
    faults: list[tuple[int, int, Fault]]


def read_records(
    records: Sequence[Message], adapter: Adapter, config: Config, features: frozenset[str] = frozenset()
) -> Read:
    """Decode records; also what `calibrate` reads history with. features : table fields that a fault may name."""
    read = Read([], [], [], [])
    requests, offsets, indexes, _ = read
    decode_one, bytes_max = adapter.decode_one, config.input.max_record_bytes
    for record in records:
        value = record.value
        if value is not None and len(value) <= bytes_max:
            try:
                request = decode_one(value)
            except UNREADABLE:
                pass
            else:
                requests.append(request)
                offsets.append(record.offset)
                indexes.append(0)
                continue
        _read_unusual(record, adapter, config, features, read)
    return read


def _read_unusual(record: Message, adapter: Adapter, config: Config, features: frozenset[str], read: Read) -> None:
    """A record that is not one good object: several, faulty, too large or empty."""
    limits = config.input
    value = record.value or b""
    fault: Fault | None = None
    if len(value) > limits.max_record_bytes:
        expected = f"at most {limits.max_record_bytes} bytes (input.max_record_bytes)"
        fault = Fault("record", expected, f"{len(value)} bytes", "size")
    else:
        found = adapter.decode(value, record.headers, features)
        if len(found) > limits.max_rows:
            expected = f"at most {limits.max_rows} rows (input.max_rows)"
            fault = Fault("record", expected, f"{len(found)} rows", "size")
    if fault is not None:
        read.faults.append((record.offset, WHOLE_RECORD, fault))
        return
    for index, item in enumerate(found):
        if isinstance(item, Fault):
            read.faults.append((record.offset, index, item))
        else:
            read.requests.append(item)
            read.offsets.append(record.offset)
            read.indexes.append(index)


class _Gathered(NamedTuple):
    """The requests of one model that have an input, without it; encoded : their inputs, in parts. faults : by row."""

    requests: list[Request]
    offsets: list[int]
    indexes: list[int]
    encoded: list[Encoded]
    faults: Faults


class Sketcher:
    """Immutable but for caches. adapter : the log format of the raw topics."""

    def __init__(
        self, artefacts: SketchedModels, identity: Identity, config: Config, adapter: Adapter = REGISTRY[0]
    ) -> None:
        self._models = artefacts.models
        self._identity = identity
        self._config = config
        self._adapter = adapter
        self._features = frozenset(name for model in self._models.values() for name in model.encoder.field_names)
        self._members = {
            name: model.members.lookup(model.encoder) for name, model in self._models.items() if model.members
        }
        declared = sorted((client_of(name), CLASSES.index(klass)) for name, klass in config.input.registry.items())
        self._declared_clients = np.array([client for client, _ in declared], np.uint64)
        self._declared_classes = np.array([klass for _, klass in declared], np.uint8)

    def frames(
        self, topic: str, partition: int, incarnation: str, records: Sequence[Message], n_partitions: int
    ) -> SketchResult:
        """Sketch records of one raw partition, offsets rising. n_partitions : of `requests`."""
        faults: list[tuple[int, int, Fault]] = []
        unjudged: Counter[str] = Counter()
        gathered: dict[str, _Gathered] = {}
        for start in range(0, len(records), CHUNK_RECORDS):
            read = read_records(records[start : start + CHUNK_RECORDS], self._adapter, self._config, self._features)
            faults += read.faults
            for name, places in _by_model(read.requests):
                if name not in self._models:
                    unjudged[UNKNOWN_MODEL] += len(places)
                    continue
                into = gathered.setdefault(name, _Gathered([], [], [], [], {}))
                unjudged[NO_INPUT] += _gather(read, places, self._models[name].encoder, into)
        frames: list[RowFrame] = []
        source, source_name = source_id(topic, partition, incarnation), f"{topic}[{partition}]"
        for name, batch in sorted(gathered.items()):
            if not batch.requests:
                continue
            rows = self._rows(batch, name, source)
            if batch.faults:
                faults += [(batch.offsets[row], batch.indexes[row], fault) for row, fault in batch.faults.items()]
                rows = columns.take(rows, np.setdiff1d(np.arange(rows.count), list(batch.faults)))
            about = name, self._models[name].space, source_name, self._identity.key_id
            frames += [RowFrame(target, -1, *about, part) for target, part in columns.cut(rows, n_partitions)]
        rejects = [Reject(topic, partition, offset, index, *fault) for offset, index, fault in sorted(faults)]
        return SketchResult(frames, rejects, +unjudged)

    def _rows(self, batch: _Gathered, name: str, source: int) -> Rows:
        """The batch as rows; those in its faults, which grow here, are to be left out."""
        requests, n = batch.requests, len(batch.requests)
        time_ms = self._times(requests, batch.faults)
        answers = columns.answers(requests, self._threshold(name), self._identity, batch.faults)
        encoded = columns.concatenate(batch.encoded)
        flags = answers.flags
        if name in self._members:
            flags = flags | np.where(self._members[name].contains(encoded), FLAG_MEMBER, 0).astype(np.uint16)
        novelty, cell = columns.describe(self._models[name].population, encoded.values)
        client, client_tail = self._identity.clients([request.client_id for request in requests])
        id_offsets, id_bytes = columns.join([request.request_id for request in requests])
        return Rows(
            source=np.full(n, source, np.uint32),
            offset=np.array(batch.offsets, np.int64),
            index=np.array(batch.indexes, np.int32),
            client=client,
            client_tail=client_tail,
            klass=self._classes(requests, client),
            time_ms=time_ms,
            id_offsets=id_offsets,
            id_bytes=id_bytes,
            exact=encoded.exact,
            values=encoded.values,
            fields=encoded.fields,
            surprisal=encoded.surprisal,
            offgrid=encoded.offgrid,
            output=answers.output,
            score=answers.score,
            margin=answers.margin,
            novelty=novelty,
            guard=np.full(n, np.nan, np.float32),
            cell=cell,
            tokens_in=columns.counts([request.tokens_in for request in requests]),
            tokens_out=columns.counts([request.tokens_out for request in requests]),
            flags=flags,
        )

    def _times(self, requests: Sequence[Request], faults: Faults) -> I64:
        time_ms = columns.times(requests)
        limits = self._config.input
        early, late = time_ms < limits.earliest_ms, time_ms >= limits.latest_ms
        for row in np.flatnonzero(early | late).tolist():
            window = f"{limits.earliest:%Y-%m-%d} (input.earliest) to {limits.latest:%Y-%m-%d} (input.latest)"
            got = "an earlier one" if early[row] else "a later one"
            faults.setdefault(row, Fault("ts", f"a time from {window}", got, "time"))
            time_ms[row] = 0.0
        return time_ms.astype(np.int64)

    def _classes(self, requests: Sequence[Request], clients: U64) -> U8:
        """What the record declares, else the registry, else consumer."""
        codes: U8 = np.array([_CLASS_CODES[request.client_class] for request in requests], np.uint8)
        undeclared = codes == _UNDECLARED
        codes[undeclared] = 0
        if len(self._declared_clients):
            clients = self._identity.spoken_of(clients)
            places = np.searchsorted(self._declared_clients, clients)
            places[places == len(self._declared_clients)] = 0
            known = undeclared & (self._declared_clients[places] == clients)
            codes[known] = self._declared_classes[places[known]]
        return codes

    def _threshold(self, name: str) -> float:
        configured = self._config.models.get(name)
        if configured is not None and configured.decision_threshold is not None:
            return configured.decision_threshold
        fitted = self._models[name].decision_threshold
        return DECISION_THRESHOLD if fitted is None else fitted


def _by_model(requests: Sequence[Request]) -> Iterator[tuple[str, Sequence[int]]]:
    """Models by name, with the places of their requests."""
    names = [request.model for request in requests]
    if len(set(names)) == 1:
        yield names[0], range(len(names))
        return
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    yield from sorted(places.items())


def _gather(read: Read, places: Sequence[int], encoder: Encoder, into: _Gathered) -> int:
    """Encode one model's requests of a chunk and let go of their inputs; the number of requests without one."""
    inputs = columns.inputs_of(encoder, [read.requests[place] for place in places])
    kept = [place for place, item in zip(places, inputs, strict=True) if item is not None]
    if kept:
        faults: Faults = {}
        into.encoded.append(columns.encode(encoder, [item for item in inputs if item is not None], faults))
        into.faults.update({len(into.requests) + row: fault for row, fault in faults.items()})
    for place in kept:
        request = read.requests[place]
        request.features = request.embedding = None
        into.requests.append(request)
        into.offsets.append(read.offsets[place])
        into.indexes.append(read.indexes[place])
    return len(places) - len(kept)
