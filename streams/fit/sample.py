"""Inputs that encoders and populations are fitted on: a sample of history in which every client counts alike."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from detector.calibrate.fit import is_fitting
from detector.events.escape import printable
from models import encoders
from models.artefacts.population import Population, fit_population
from models.client_shares import row_weights
from models.encoders.base import Encoder, FieldTaken, Told
from models.rows import U64
from streams.adapters import Formats
from streams.adapters.request import Request
from streams.config.config import Config
from streams.config.keys import ConfigError
from streams.fit import history
from streams.fit.client_lists import Removal
from streams.history.base import Source
from streams.progress import Reporter
from streams.sketch.elements import read_records
from streams.sketch.identity import Identity
from streams.sketch.model_names import ModelSpellings

ROWS_MAX = 50_000
"""Rows of a model that are fitted on; more do not change the fit."""
CLIENT_ROWS_MIN, CLIENT_ROWS_MAX = 50, 1_000
"""Rows of one client, at most: an equal part of ROWS_MAX within these."""
FITTING_CLIENTS_MIN = 20
CLIENTS_SHARE_MIN = 0.015
"""A model that fewer clients send than either is not fitted: a handful of accounts could make one up."""
LABELS_MAX = 64
NOTES_MAX = 5
GOLDEN, WORD = 0x9E3779B97F4A7C15, (1 << 64) - 1


class ClientSample:
    """A random part of each client's rows, of the clients with the smallest keys if there are too many.

    Keys are keyed hashes, so no client can choose to be among them. What is drawn depends on each client's rows in
    their order, and on nothing else: not on how clients follow each other, nor on how records are cut into batches.
    """

    def __init__(self) -> None:
        self._rows: dict[int, list[tuple[int, int, Any]]] = {}  # heaps of (-priority, number, item)
        self._seen: Counter[int] = Counter()
        self._held = 0
        self._beyond = WORD + 1  # clients from this key on are too many

    def add(self, client: int, item: Any) -> None:
        if client >= self._beyond:
            return
        number = self._seen[client]
        self._seen[client] += 1
        rows = self._rows.setdefault(client, [])
        entry = (-_mixed((client + number * GOLDEN) & WORD), number, item)
        if len(rows) < self._rows_of_one():
            heapq.heappush(rows, entry)
            self._held += 1
        elif entry > rows[0]:
            heapq.heapreplace(rows, entry)
        if self._held > 2 * ROWS_MAX:
            self._shrink()

    def drawn(self) -> tuple[list[Any], U64]:
        """At most ROWS_MAX rows and (n,) their clients, in order of client and time."""
        self._shrink()
        rows = [(client, number, item) for client in sorted(self._rows) for _, number, item in self._rows[client]]
        rows.sort(key=lambda row: row[:2])
        return [item for _, _, item in rows], np.array([client for client, _, _ in rows], np.uint64)

    def _rows_of_one(self) -> int:
        equal = ROWS_MAX // max(1, len(self._rows))
        return max(CLIENT_ROWS_MIN, min(CLIENT_ROWS_MAX, equal))

    def _shrink(self) -> None:
        most = self._rows_of_one()
        left, kept = ROWS_MAX, {}
        for client in sorted(self._rows):
            rows = heapq.nlargest(most, self._rows[client])
            if len(rows) > left:
                self._beyond = client
                break
            left -= len(rows)
            kept[client] = rows[::-1]  # rising, hence a heap
        self._rows, self._held = kept, ROWS_MAX - left


def _mixed(word: int) -> int:
    """The finaliser of SplitMix64, as models/kernels/numbers.py has it."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & WORD
    return word ^ (word >> 31)


class FittedInputs(NamedTuple):
    """labels : the commonest, by clients."""

    encoder: Encoder
    population: Population | None
    fields: tuple[FieldTaken, ...]
    labels: tuple[str | int, ...]


class ModelSample:
    """What fitting clients sent to one model, and what the others did, for comparison."""

    def __init__(self) -> None:
        self.senders: set[int] = set()  # fitting clients
        self._fitting, self._certifying = ClientSample(), ClientSample()

    def add(self, request: Request, client: int, fits: bool) -> None:
        """An input counts for the first encoder of the registry that reads one of the request's."""
        sample = self._fitting if fits else self._certifying
        if fits:
            self.senders.add(client)
        label = None if request.output is None else request.output.label
        for place, kind in enumerate(encoders.ENCODERS):
            item = getattr(request, kind.reads)
            if item is not None:
                sample.add(client, (place, item, label))
                return

    def fit(self, seed: bytes, told: Mapping[str, Told]) -> FittedInputs | None:
        """For the kind of input that most clients send; of two as frequent, the later one in the registry. None if
        there is no input, or if the encoder cannot be fitted on it."""
        rows, clients = self._fitting.drawn()
        if not rows:
            return None
        kinds = np.array([place for place, _, _ in rows])
        weight = np.bincount(kinds, row_weights(clients))
        place = len(weight) - 1 - int(np.argmax(weight[::-1]))
        own = np.flatnonzero(kinds == place)
        inputs, senders = [rows[row][1] for row in own], clients[own]
        encoder = encoders.ENCODERS[place].fit(inputs, seed, senders, told)
        if encoder is None:
            return None
        pairs = Counter({(client, row[2]): 1 for client, row in zip(clients.tolist(), rows, strict=True)})
        labels = Counter(label for _, label in pairs if label is not None)
        common = tuple(label for label, _ in labels.most_common(LABELS_MAX))
        return FittedInputs(encoder, _population(encoder, inputs, senders), self._taken(encoder, place), common)

    def _taken(self, encoder: Encoder, place: int) -> tuple[FieldTaken, ...]:
        rows, clients = self._certifying.drawn()
        own = [row for row, (kind, _, _) in enumerate(rows) if kind == place]
        return encoder.fields_taken([rows[row][1] for row in own], clients[own])


def _population(encoder: Encoder, inputs: Sequence[Any], clients: U64) -> Population | None:
    encoded = encoder.encode(inputs)
    good = np.flatnonzero(encoded.usable)
    return fit_population(encoded.values[good], encoder.id, clients[good]) if len(good) else None


class Samples(NamedTuple):
    """models : by name. clients, fitting : everybody who sent something readable, and those of them who fit.
    requests : how many could be read."""

    models: dict[str, ModelSample]
    clients: set[int]
    fitting: set[int]
    requests: int


def fit_inputs(samples: Samples, config: Config, seed: bytes) -> tuple[dict[str, FittedInputs], list[str]]:
    """Encoders and populations by model, and what was not fitted and why, in words.

    Raises ConfigError if something is said of a field that no client sends.
    """
    least = min(FITTING_CLIENTS_MIN, max(1.0, CLIENTS_SHARE_MIN * len(samples.fitting)))
    fits, notes = {}, []
    for name, sample in sorted(samples.models.items()):
        if len(sample.senders) < least:
            notes.append(f"model {printable(name)!r} is not fitted: {len(sample.senders)} fitting clients sent it")
            continue
        configured = config.models.get(name)
        fitted = sample.fit(seed, configured.told if configured else {})
        if fitted is not None:
            fits[name] = fitted
    if fits:
        _refuse_unknown_fields(config, fits)
    return fits, notes[:NOTES_MAX]


def _refuse_unknown_fields(config: Config, fits: Mapping[str, FittedInputs]) -> None:
    for model, configured in sorted(config.models.items()):
        known = [field.name for field in fits[model].fields] if model in fits else []
        for name in sorted(set(configured.told) - set(known)):
            key = "leave_out" if name in configured.leave_out else f"fields.{name}"
            listed = f"; its fields are {', '.join(map(printable, known))}" if known else ""
            raise ConfigError(f"models.{model}.{key}: no fitting client of this history sends {name!r}{listed}")


def why_nothing(samples: Samples, unread: str) -> str:
    """Why no encoder could be fitted: the first reason that applies. unread : what could not be read, or ""."""
    if not samples.requests:
        return unread or "the history is empty"
    if samples.clients and not samples.fitting:
        clients = "its one client is" if len(samples.clients) == 1 else f"all of its {len(samples.clients)} clients are"
        return (
            "encoders are fitted on three in eight clients, chosen by a keyed hash, and"
            f" {clients} among the others: a history of dozens of clients is needed"
        )
    sent = f"{samples.requests:,} requests of {len(samples.clients):,} clients"
    told = f"{sent} hold no features or embeddings to fit on, or only fields that are left out"
    return f"{told} ({unread})" if unread else told


def read_samples(
    sources: Sequence[Source], config: Config, identity: Identity, removed: Removal, reporter: Reporter
) -> Samples:
    """Read history once. removed : clients that are left out."""
    samples = Samples(defaultdict(ModelSample), set(), set(), 0)
    formats, requests = Formats(config), 0
    names = ModelSpellings(config.models)
    for batch in history.raw_batches(sources, reporter, "reading"):
        read = read_records(batch.records, formats.of(batch.topic), config)
        requests += len(read.requests)
        if not read.requests:
            continue
        clients, _ = identity.clients([request.client_id for request in read.requests])
        fitting = is_fitting(clients).tolist()
        for request, client, fits in zip(read.requests, clients.tolist(), fitting, strict=True):
            if client not in removed.reasons:
                samples.clients.add(client)
                samples.models[names.of(request.model)].add(request, client, fits)
                if fits:
                    samples.fitting.add(client)
    return samples._replace(requests=requests)
