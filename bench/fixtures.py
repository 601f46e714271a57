"""Records and artefacts that every benchmark uses: tables and embeddings of several widths."""

import base64
import functools
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detector.calibrate.fit import UNREACHABLE
from detector.engine import EngineSettings
from models.artefacts.store import Artefacts, load_artefacts
from streams.config.config import Config
from streams.fit.calibrate import calibrate
from streams.history.sources import open_sources
from streams.progress import Silent
from streams.secrets.load import Secrets, create_secrets, load_secrets


class Kind(NamedTuple):
    """What a record carries. fields : width of a table, 0 for embeddings. dim : length of an embedding."""

    name: str
    fields: int = 0
    dim: int = 0
    base64: bool = False

    @property
    def model(self) -> str:
        return f"bench-table-{self.fields}" if self.fields else f"bench-vector-{self.dim}"


NUMBERS, BASE64, FEATURES = (
    Kind("64 numbers", dim=64),
    Kind("64 numbers, base64", dim=64, base64=True),
    Kind("23 features", 23),
)
KINDS = (FEATURES, NUMBERS, BASE64)
TABLE, VECTOR = FEATURES.model, NUMBERS.model
WIDTHS = tuple(Kind(f"{n} features", n) for n in (10, 23, 64)) + tuple(
    Kind(f"{n} numbers", dim=n) for n in (64, 384, 1_536)
)
"""Records whose cost shows how it grows with the width of the input."""

CALIBRATION_RECORDS = 8_000
CALIBRATION_CLIENTS = CALIBRATION_RECORDS // 2
ARTEFACTS = "BENCH_ARTEFACTS"
"""Environment variable: a folder that `fit` filled, for all the processes of one run."""

BEGIN_S = 1_760_000_000.0


def records(kind: Kind, count: int, clients: int, seed: int = 0) -> Iterator[bytes]:
    """Native records, one a message, as a gateway writes them."""
    rng = np.random.default_rng(seed)
    owners = rng.integers(0, clients, count).tolist()
    scores = np.round(rng.random(count), 6).tolist()
    for number, (owner, score) in enumerate(zip(owners, scores, strict=True)):
        yield json.dumps(
            {
                "ts": BEGIN_S + number / 100,
                "request_id": f"5f0c2b1e-0000-4000-8000-{number:012x}",
                "client_id": f"account-{owner:08d}",
                "model": kind.model,
                **an_input(kind, rng),
                "output": {"label": "accept" if score > 0.5 else "decline", "score": score},
                "status": 200,
                "latency_ms": 12.5,
            },
            separators=(",", ":"),
        ).encode()


def an_input(kind: Kind, rng: np.random.Generator) -> dict[str, Any]:
    """The part of a record that holds the input."""
    if kind.fields:
        values = np.rint(rng.lognormal(3.0, 1.0, kind.fields)).tolist()
        return {"features": {f"feature_{number:02d}": value for number, value in enumerate(values)}}
    vector = rng.standard_normal(kind.dim).astype(np.float32)
    if kind.base64:
        return {"embedding": base64.b64encode(vector.tobytes()).decode()}
    return {"embedding": np.round(vector.astype(float), 6).tolist()}


def fit(folder: Path, kinds: Sequence[Kind]) -> None:
    """Artefacts of the models of these kinds, and secrets, of no use but for speed."""
    config = Config()
    create_secrets(folder)
    paths = []
    for number, kind in enumerate({kind.model: kind for kind in kinds}.values()):
        path = folder / f"{kind.model}.jsonl"
        path.write_bytes(b"\n".join(records(kind, CALIBRATION_RECORDS, CALIBRATION_CLIENTS, seed=7 + number)))
        paths.append(path)
    sources = open_sources([str(path) for path in paths], config)
    calibrate(sources, folder, config, load_secrets(config, folder), Silent())
    for path in paths:
        path.unlink()


@functools.cache
def calibrated() -> tuple[Artefacts, Secrets]:
    """Artefacts of this run (ARTEFACTS); without them both models of KINDS, fitted on records like those measured."""
    with tempfile.TemporaryDirectory() as temporary:
        if not (given := os.environ.get(ARTEFACTS)):
            fit(Path(temporary), KINDS)
        folder = Path(given or temporary)
        secrets = load_secrets(Config(), folder)
        return load_artefacts(folder, secrets.projection_seed), secrets


def artefacts() -> Artefacts:
    return calibrated()[0]


def settings(*, silent: bool, config: Config | None = None) -> EngineSettings:
    """silent : thresholds out of reach, so that the fold is measured without events."""
    made = EngineSettings(config or Config(), artefacts())
    if silent:
        for name, space in made.spaces.items():
            quiet = space.nulls._replace(thresholds=np.full_like(space.nulls.thresholds, UNREACHABLE))
            made.spaces[name] = replace(space, nulls=quiet)
    return made
