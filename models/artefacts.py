"""What `calibrate` leaves and the service loads: encoders and references by model. Plain npz and JSON, never pickle."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.encoders.base import Encoder
from models.encoders.embedding import EmbeddingEncoder
from models.encoders.tabular import TabularEncoder, TabularFit
from models.population import Population
from models.reference import Reference

SCHEMA = "probewatch.artefacts/1"
MANIFEST = "artefacts.json"
_TABLE_ARRAYS = ("centre", "scale", "step", "known", "known_surprisals", "known_start", "unknown", "missing")

Arrays = dict[str, NDArray[Any]]


class ArtefactError(Exception):
    """Artefacts that cannot be used; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class ModelArtefact:
    """One model's fitted encoder and reference. labels : keyed label hash -> the label, for explanations.

    population : None where no row could be fitted on.
    """

    model: str
    encoder: Encoder
    reference: Reference
    decision_threshold: float | None
    labels: Mapping[int, str]
    population: Population | None = None

    @property
    def space(self) -> str:
        return f"{self.model}@{self.encoder.id}"


@dataclass(frozen=True, slots=True)
class Artefacts:
    """All models; hash : 16 hex digits over everything that was fitted."""

    hash: str
    models: Mapping[str, ModelArtefact]


def save_artefacts(path: Path, models: Sequence[ModelArtefact], provenance: Mapping[str, Any]) -> Artefacts:
    """Write one npz a model and a manifest with their hashes. provenance : what they were fitted on, plain JSON."""
    path.mkdir(parents=True, exist_ok=True)
    entries = []
    for place, artefact in enumerate(sorted(models, key=lambda a: a.model)):
        file = f"model-{place}.npz"
        arrays = artefact.reference.arrays() | _encoder_arrays(artefact.encoder)
        if artefact.population is not None:
            arrays |= artefact.population.arrays()
        np.savez(path / file, allow_pickle=False, **arrays)
        entries.append(
            {
                "model": artefact.model,
                "file": file,
                "sha256": hashlib.sha256((path / file).read_bytes()).hexdigest(),
                "encoder": _encoder_header(artefact.encoder),
                "encoder_id": artefact.encoder.id,
                "decision_threshold": artefact.decision_threshold,
                "labels": {str(key): name for key, name in sorted(artefact.labels.items())},
                "processes": list(artefact.reference.processes),
            }
        )
    manifest = {"schema": SCHEMA, "models": entries, "provenance": provenance}
    text = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    (path / MANIFEST).write_bytes(text)
    return Artefacts(_hash(text), {artefact.model: artefact for artefact in models})


def load_artefacts(path: Path, seed: bytes) -> Artefacts:
    """Read artefacts, checking every hash. seed : the projection secret they were fitted with.

    Raises ArtefactError when they are missing, altered, of another layout, or made with another secret.
    """
    try:
        text = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise ArtefactError(
            f"{path}: no artefacts here; `probewatch calibrate HISTORY --out {path}` makes them"
        ) from error
    try:
        manifest = json.loads(text)
        if manifest["schema"] != SCHEMA:
            raise ArtefactError(f"{path}: layout {manifest['schema']}, this version reads {SCHEMA}; calibrate again")
        models = [_load_model(path, entry, seed) for entry in manifest["models"]]
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ArtefactError(f"{path}: damaged artefacts ({type(error).__name__}); calibrate again") from error
    return Artefacts(_hash(text), {model.model: model for model in models})


def _hash(manifest: bytes) -> str:
    return hashlib.sha256(manifest).hexdigest()[:16]


def _load_model(path: Path, entry: Mapping[str, Any], seed: bytes) -> ModelArtefact:
    file = path / entry["file"]
    if hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
        raise ArtefactError(f"{file}: altered since it was written; calibrate again or restore it")
    with np.load(file, allow_pickle=False) as stored:
        arrays: Arrays = dict(stored)
    encoder = _encoder(entry["encoder"], arrays, seed)
    if encoder.id != entry["encoder_id"]:
        raise ArtefactError(f"{path}: fitted with another projection seed; give that one, or calibrate again")
    return ModelArtefact(
        model=entry["model"],
        encoder=encoder,
        reference=Reference.from_arrays(tuple(entry["processes"]), arrays),
        decision_threshold=entry["decision_threshold"],
        labels={int(key): name for key, name in entry["labels"].items()},
        population=Population.from_arrays(encoder.id, arrays),
    )


def _encoder_header(encoder: Encoder) -> dict[str, Any]:
    if isinstance(encoder, TabularEncoder):
        return {"kind": "tabular", "names": encoder.fit.names, "categories": encoder.fit.categories}
    assert isinstance(encoder, EmbeddingEncoder)
    return {"kind": "embedding", "dim_in": encoder.dim_in, "reach": encoder.reach}


def _encoder_arrays(encoder: Encoder) -> Arrays:
    if isinstance(encoder, TabularEncoder):
        return {f"encoder.{name}": getattr(encoder.fit, name) for name in _TABLE_ARRAYS}
    return {}


def _encoder(header: Mapping[str, Any], arrays: Arrays, seed: bytes) -> Encoder:
    if header["kind"] == "embedding":
        return EmbeddingEncoder(header["dim_in"], header["reach"], seed)
    columns: dict[str, Any] = {name: arrays[f"encoder.{name}"] for name in _TABLE_ARRAYS}
    categories = tuple(tuple(names) for names in header["categories"])
    return TabularEncoder(TabularFit(tuple(header["names"]), categories, **columns), seed)
