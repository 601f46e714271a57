"""Records and artefacts that every benchmark uses: a table of 23 features, and embeddings of 64 numbers."""

import base64
import functools
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from detector.calibration import UNREACHABLE
from detector.config import Config
from detector.engine import EngineSettings
from models.artefacts import Artefacts, load_artefacts
from streams.calibrate import calibrate
from streams.progress import Silent
from streams.secrets import Secrets, create_secrets, load_secrets
from streams.sources import open_sources

TABLE, VECTOR = "bench-table", "bench-vector"
FEATURES = tuple(f"feature_{number:02d}" for number in range(23))
DIM = 64
KINDS = ("23 features", "64 numbers", "64 numbers, base64")
CALIBRATION_RECORDS = 8_000
BEGIN_S = 1_760_000_000.0


def records(kind: str, count: int, clients: int, seed: int = 0) -> Iterator[bytes]:
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
                **_input(kind, rng),
                "output": {"label": "accept" if score > 0.5 else "decline", "score": score},
                "status": 200,
                "latency_ms": 12.5,
            },
            separators=(",", ":"),
        ).encode()


def _input(kind: str, rng: np.random.Generator) -> dict[str, Any]:
    if kind == "23 features":
        values = np.rint(rng.lognormal(3.0, 1.0, len(FEATURES))).tolist()
        return {"model": TABLE, "features": dict(zip(FEATURES, values, strict=True))}
    vector = rng.standard_normal(DIM).astype(np.float32)
    if kind == "64 numbers":
        return {"model": VECTOR, "embedding": [round(float(x), 6) for x in vector]}
    return {"model": VECTOR, "embedding": base64.b64encode(vector.tobytes()).decode()}


@functools.cache
def calibrated() -> tuple[Artefacts, Secrets]:
    """Artefacts of both models, fitted on records like those measured; of no use but for speed."""
    config = Config()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        for number, kind in enumerate(KINDS[:2]):
            lines = records(kind, CALIBRATION_RECORDS, CALIBRATION_RECORDS // 2, seed=7 + number)
            (path / f"{number}.jsonl").write_bytes(b"\n".join(lines))
        create_secrets(path)
        secrets = load_secrets(config, path)
        sources = open_sources([str(path / "0.jsonl"), str(path / "1.jsonl")], config)
        calibrate(sources, path / "artefacts", config, secrets, Silent())
        return load_artefacts(path / "artefacts", secrets.projection_seed), secrets


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
