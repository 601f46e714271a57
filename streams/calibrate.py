"""History to artefacts: fit encoders on three in eight clients, references on their rows, thresholds on the others.

History is read twice: once to fit the encoders, once through the very sketch that runs live.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detector import __version__
from detector.calibration import COLD_ROWS, daily_maxima, fit_reference, is_fitting
from detector.certification import Certification, certify
from detector.config import Config
from detector.days import DailyMaxima, first_rows, select
from detector.evidence import PROCESSES
from models.artefacts import Artefacts, ModelArtefact, save_artefacts
from models.certificate import BUDGETS
from models.encoders.base import Encoder
from models.encoders.embedding import EmbeddingEncoder, fit_reach
from models.encoders.tabular import TabularEncoder, fit_table
from models.population import CLIENT_ROWS_MAX, ROWS_MAX, Population, fit_population
from models.reference import Reference
from models.rows import CLASSES, Rows
from streams import columns
from streams.adapters import REGISTRY, embeddings
from streams.adapters.request import Output, Request
from streams.identity import Identity
from streams.progress import Reporter
from streams.secrets import Secrets
from streams.sketch import Sketcher, read_records
from streams.sources import RawBatch, Source, SourceError

ENCODER_ROWS_MAX = 50_000
"""Rows of a model that its encoder is fitted on; more teach it nothing new."""
LABELS_MAX = 64


class Sketched(NamedTuple):
    """A model whose encoder is fitted and whose reference is not: enough for the sketch."""

    model: str
    encoder: Encoder
    decision_threshold: float | None
    population: Population | None

    @property
    def space(self) -> str:
        return f"{self.model}@{self.encoder.id}"


class SketchedModels(NamedTuple):
    models: dict[str, Sketched]


class Report(NamedTuple):
    """What was fitted, for people. fitting_clients : (3,) by class."""

    artefacts_hash: str
    certification: Certification
    fitting_clients: list[int]
    rejects: Counter[str]

    def rows(self) -> Iterator[dict[str, Any]]:
        """One line a class. Thresholds in lengths of the benign tail; "~" marks a conditional one."""
        found = self.certification
        for k, name in enumerate(CLASSES):
            line: dict[str, Any] = {
                "class": name,
                "fitting clients": self.fitting_clients[k],
                "certifying clients": int(found.clients[k]),
            }
            for level, budget in enumerate(BUDGETS):
                if level:
                    mark = "" if found.certified[k, level] else "~"
                    line[f"{budget:g}"] = f"{mark}{found.thresholds[k, level] / 1000:.1f}"
            yield line


def calibrate(
    sources: Sequence[Source],
    out: Path,
    config: Config,
    secrets: Secrets,
    reporter: Reporter,
    *,
    cold: bool = False,
) -> Report:
    """Fit and write artefacts to `out`. cold : the history may hold attackers, so each client teaches little.

    Raises SourceError if the history cannot teach anything.
    """
    identity = Identity(secrets.pseudonym_key, secrets.key_id, secrets.projection_seed)
    samples, digest = _sample(sources, config, identity, reporter)
    models = SketchedModels({})
    for name, sample in sorted(samples.items()):
        fit = sample.fit(secrets.projection_seed)
        if fit is not None:
            configured = config.models.get(name)
            models.models[name] = Sketched(name, fit[0], configured.decision_threshold if configured else None, fit[1])
    if not models.models:
        raise SourceError("no model in this history has features or embeddings to fit on; nothing was written")
    batches, rejects = _sketch(sources, config, identity, models, reporter)
    references: dict[str, Reference] = {}
    maxima: list[DailyMaxima] = []
    advance = reporter.task("fitting references", len(models.models))
    for name, model in models.models.items():
        rows = first_rows(batches[name], COLD_ROWS) if cold else batches[name]
        reference = fit_reference(model.encoder, model.decision_threshold, rows, cold=cold)
        certifying = [select(part, ~is_fitting(part.client)) for part in rows]
        maxima.append(daily_maxima(model.encoder, model.decision_threshold, reference, certifying))
        references[name] = reference
        advance(1)
    certification = certify(maxima, cold=cold)
    fitted: list[ModelArtefact] = []
    for name, model in models.models.items():
        labels = {identity.label(label): str(label) for label, _ in samples[name].labels.most_common(LABELS_MAX)}
        reference = certification.applied(references[name])
        fitted.append(ModelArtefact(name, model.encoder, reference, model.decision_threshold, labels, model.population))
    provenance = {
        "cold": cold,
        "history_sha256": digest,
        "config_hash": config.hash,
        "engine_version": __version__,
        "processes": [process.name for process in PROCESSES],
        "rejects": dict(sorted(rejects.items())),
    }
    artefacts: Artefacts = save_artefacts(out, fitted, provenance)
    return Report(artefacts.hash, certification, _fitting_clients(batches), rejects)


def _fitting_clients(batches: Mapping[str, Sequence[Rows]]) -> list[int]:
    """(3,) by class."""
    rows = [part for parts in batches.values() for part in parts]
    own = [(np.concatenate([part.client[part.klass == k] for part in rows])) for k in range(len(CLASSES))]
    return [len(np.unique(clients[is_fitting(clients)])) for clients in own]


class _Inputs:
    """Inputs of one kind with their scores. modest : places of those that the population is fitted on."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.scores: list[float | None] = []
        self.modest: list[int] = []


class _Sample:
    """What one model's encoder and population are fitted on: inputs of fitting clients only."""

    def __init__(self) -> None:
        self.tables = _Inputs()
        self.embeddings = _Inputs()
        self.labels: Counter[str | int] = Counter()
        self._rows: Counter[int] = Counter()

    def add(self, request: Request, client: int) -> None:
        output = request.output or Output()
        if output.label is not None:
            self.labels[output.label] += 1
        is_embedding = request.embedding is not None and len(self.embeddings.items) < ENCODER_ROWS_MAX
        into = self.embeddings if is_embedding else self.tables
        item = request.embedding if is_embedding else request.features
        if item is None or len(into.items) == ENCODER_ROWS_MAX:
            return
        self._rows[client] += 1
        if self._rows[client] <= CLIENT_ROWS_MAX and len(into.modest) < ROWS_MAX:
            into.modest.append(len(into.items))
        into.items.append(item)
        into.scores.append(max(output.scores.values()) if output.score is None and output.scores else output.score)

    def fit(self, seed: bytes) -> tuple[Encoder, Population | None] | None:
        """Encoder and population for whichever kind of input most rows carry; None if neither is worth fitting."""
        tables, found = self.tables.items, self.embeddings.items
        if len(found) > len(tables):
            encoder = _fit_embedding(found, seed)
            return None if encoder is None else (encoder, _fit_population(encoder, self.embeddings))
        try:
            table = TabularEncoder(fit_table(tables), seed) if tables else None
        except ValueError:  # no field stands in enough rows
            return None
        return None if table is None else (table, _fit_population(table, self.tables))


def _fit_population(encoder: Encoder, inputs: _Inputs) -> Population | None:
    faults: columns.Faults = {}
    encoded = columns.encode(encoder, [inputs.items[place] for place in inputs.modest], faults)
    good = np.setdiff1d(np.arange(len(inputs.modest)), list(faults))
    scores = np.array([inputs.scores[place] for place in inputs.modest], np.float64)
    return fit_population(encoded.values[good], encoder.id, scores[good]) if len(good) else None


def _fit_embedding(found: Sequence[embeddings.Embedding], seed: bytes) -> Encoder | None:
    sizes = Counter(map(embeddings.dimension, found))
    dim = sizes.most_common(1)[0][0]
    if dim == 0:
        return None
    read = embeddings.vectors(found, dim)
    finite = np.flatnonzero(np.isfinite(read.vectors).all(axis=1))
    good = np.setdiff1d(finite, list(read.faults))
    return EmbeddingEncoder(dim, fit_reach(read.vectors[good], np.random.default_rng(0)), seed)


def _raw(sources: Sequence[Source], reporter: Reporter, doing: str) -> Iterable[RawBatch]:
    for source in sources:
        for batch in source.batches(reporter.task(f"{doing} {source.name}", source.size)):
            if not isinstance(batch, RawBatch):
                raise SourceError(f"{source.name}: frames hold no inputs; calibrate on the raw records")
            yield batch


def _sample(
    sources: Sequence[Source], config: Config, identity: Identity, reporter: Reporter
) -> tuple[dict[str, _Sample], str]:
    """Inputs of fitting clients by model, and a hash of the whole history."""
    digest = hashlib.sha256()
    samples: dict[str, _Sample] = defaultdict(_Sample)
    for batch in _raw(sources, reporter, "reading"):
        for record in batch.records:
            digest.update(record.value or b"")
        requests = read_records(batch.records, REGISTRY[0], config, frozenset()).requests
        if requests:
            clients, _ = identity.clients([request.client_id for request in requests])
            fitting = is_fitting(clients).tolist()
            for request, client, fits in zip(requests, clients.tolist(), fitting, strict=True):
                if fits:
                    samples[request.model].add(request, client)
    return samples, digest.hexdigest()


def _sketch(
    sources: Sequence[Source], config: Config, identity: Identity, models: SketchedModels, reporter: Reporter
) -> tuple[dict[str, list[Rows]], Counter[str]]:
    """All rows by model, in the order of the sources, and what was rejected by reason."""
    sketcher = Sketcher(models, identity, config)
    batches: dict[str, list[Rows]] = {name: [] for name in models.models}
    rejects: Counter[str] = Counter()
    for batch in _raw(sources, reporter, "sketching"):
        result = sketcher.frames(batch.topic, batch.partition, config.input.incarnation, batch.records, 1)
        rejects.update(reject.reason for reject in result.rejects)
        for frame in result.frames:
            batches[frame.model].append(frame.rows)
    return batches, rejects
