"""Artefacts that `calibrate` writes and the service loads: encoders and references by model, as npz and JSON."""

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.artefacts import manifest
from models.artefacts.certificate import Certificate
from models.artefacts.population import Population
from models.artefacts.reference import Reference
from models.artefacts.training_set import Members
from models.encoders import by_kind
from models.encoders.base import Arrays, Encoder
from models.errors import UserError

SCHEMA = "probewatch.artefacts/2"
CERTIFICATE = "certificate.json"
ENCODER_PREFIX = "encoder."


class ArtefactError(UserError):
    """Artefacts that cannot be used; the text says why and how to fix it."""


@dataclass(frozen=True, slots=True)
class ModelArtefact:
    """One model's fitted encoder and reference. labels : keyed label hash -> label, for explanations.
    certificate : id of the certificate of its thresholds, "" for none.

    population : None if no row could be encoded. members : None without a training set.
    """

    model: str
    encoder: Encoder
    reference: Reference
    decision_threshold: float | None
    labels: Mapping[int, str]
    population: Population | None = None
    certificate: str = ""
    members: Members | None = None

    @property
    def space(self) -> str:
        return f"{self.model}@{self.encoder.id}"


@dataclass(frozen=True, slots=True)
class Artefacts:
    """All models. hash : 16 hex digits over everything that was fitted."""

    hash: str
    models: Mapping[str, ModelArtefact]
    certificate: Certificate | None = None


def save_artefacts(
    path: Path,
    models: Sequence[ModelArtefact],
    provenance: Mapping[str, Any],
    signing_key: bytes,
    documents: Mapping[str, bytes] | None = None,
) -> str:
    """Write one npz a model, documents, and a signed manifest with their hashes; the manifest's hash.

    provenance : what they were fitted on, plain JSON. documents : contents by file name.
    """
    entries, files = [], dict(documents or {})
    for place, artefact in enumerate(sorted(models, key=lambda a: a.model)):
        file = f"model-{place}.npz"
        encoder = artefact.encoder
        arrays: Arrays = dict(artefact.reference.arrays())
        arrays |= {ENCODER_PREFIX + name: array for name, array in encoder.to_arrays().items()}
        if artefact.population is not None:
            arrays |= artefact.population.arrays()
        if artefact.members is not None:
            arrays |= artefact.members.arrays()
        stored = io.BytesIO()
        np.savez(stored, allow_pickle=False, **arrays)
        files[file] = stored.getvalue()
        entries.append(
            {
                "model": artefact.model,
                "file": file,
                "encoder": {"kind": encoder.kind, **encoder.header()},
                "encoder_id": encoder.id,
                "decision_threshold": artefact.decision_threshold,
                "labels": {str(key): name for key, name in sorted(artefact.labels.items())},
                "processes": list(artefact.reference.processes),
            }
        )
    return manifest.seal(path, files, {"schema": SCHEMA, "models": entries, "provenance": provenance}, signing_key)


def inspect_artefacts(path: Path, trusted: Collection[bytes] = ()) -> manifest.Inspection:
    """Signature and hashes of a folder. trusted : public keys; none to trust the folder's own.

    Raises ArtefactError if nothing is there.
    """
    try:
        return manifest.inspect(path, SCHEMA, trusted)
    except OSError as error:
        raise ArtefactError(
            f"{path}: no artefacts here; `probewatch calibrate HISTORY --out {path}` makes them"
        ) from error


def load_artefacts(path: Path, seed: bytes, trusted: Collection[bytes] = ()) -> Artefacts:
    """Read artefacts, checking signature and every hash.

    seed : the projection secret they were fitted with. trusted : public keys; none to trust the folder's own. Raises
    ArtefactError if they are missing, unsigned, altered, signed by an untrusted key, of another layout, or fitted with
    another seed.
    """
    found = inspect_artefacts(path, trusted)
    if found.faults:
        raise ArtefactError(found.faults[0])
    return _load(path, found, seed)


def readable(path: Path, found: manifest.Inspection) -> str:
    """Why this version cannot read artefacts that are as they were signed; "" if it can, as far as can be told without
    their secrets."""
    try:
        _load(path, found, None)
    except ArtefactError as error:
        return str(error)
    return ""


def _load(path: Path, found: manifest.Inspection, seed: bytes | None) -> Artefacts:
    try:
        certificate = read_certificate(path, found)
        about = "" if certificate is None else certificate.id
        models = [_load_model(path, entry, seed, about) for entry in found.manifest["models"]]
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ArtefactError(
            f"{path}: damaged artefacts, or of another version of Probewatch ({type(error).__name__}); calibrate again"
        ) from error
    return Artefacts(found.hash, {model.model: model for model in models}, certificate)


def read_certificate(path: Path, found: manifest.Inspection) -> Certificate | None:
    """The folder's certificate, None if none was signed with it. Raises ValueError if it is damaged."""
    signed = any(file.name == CERTIFICATE for file in found.files)
    return Certificate.from_json((path / CERTIFICATE).read_bytes()) if signed else None


def _load_model(path: Path, entry: Mapping[str, Any], seed: bytes | None, certificate: str) -> ModelArtefact:
    """seed : None reads all that needs no secret."""
    file = path / entry["file"]
    with np.load(file, allow_pickle=False) as stored:
        arrays: Arrays = dict(stored)
    fitted = {
        name.removeprefix(ENCODER_PREFIX): array for name, array in arrays.items() if name.startswith(ENCODER_PREFIX)
    }
    encoder = by_kind(entry["encoder"]["kind"]).from_arrays(entry["encoder"], fitted, seed or bytes(32))
    if seed is not None and encoder.id != entry["encoder_id"]:
        raise ArtefactError(f"{path}: fitted with another projection seed; give that one, or calibrate again")
    return ModelArtefact(
        model=entry["model"],
        encoder=encoder,
        reference=Reference.from_arrays(tuple(entry["processes"]), arrays),
        decision_threshold=entry["decision_threshold"],
        labels={int(key): name for key, name in entry["labels"].items()},
        population=Population.from_arrays(encoder.id, arrays),
        certificate=certificate,
        members=None if seed is None else Members.from_arrays(arrays, seed),
    )
