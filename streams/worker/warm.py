"""Compile every kernel ahead of the first record: `python -m streams.worker.warm`, and each worker at its start.

Compiled code is cached under the hash of the kernels' sources, so this takes half a minute once and nothing afterwards.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from models import warm as numbers
from models.artefacts.population import Population, fit_population
from models.artefacts.training_set import Members
from models.encoders.base import Encoder
from models.encoders.embedding import EmbeddingEncoder
from models.encoders.table import TabularEncoder, fit_table
from streams.config.config import Config
from streams.sketch.identity import Identity
from streams.sketch.sketcher import RawRecord, Sketcher

SEED = bytes(32)
DIM = 4


class _Model(NamedTuple):
    space: str
    encoder: Encoder
    population: Population | None
    decision_threshold: float | None = None
    members: Members | None = None


class _Models(NamedTuple):
    models: Mapping[str, _Model]


def warm() -> None:
    """Sketch a few records of every form, then what models.warm does."""
    people: list[dict[str, Any]] = [{"a": float(i), "b": "xy"[i % 2]} for i in range(8)]
    table, embedding = TabularEncoder(fit_table(people), SEED), EmbeddingEncoder(DIM, 0.5, SEED)
    population = fit_population(table.encode(people).values, table.id)
    models = _Models({"table": _Model("table", table, population), "vector": _Model("vector", embedding, None)})
    vector = np.arange(DIM, dtype="<f4")
    inputs: list[dict[str, Any]] = [
        *({"model": "table", "features": row} for row in people),
        {"model": "vector", "embedding": vector.tolist()},
        {"model": "vector", "embedding": base64.b64encode(vector.tobytes()).decode()},
    ]
    about = {
        "ts": "2025-01-01T00:00:00Z", "request_id": "r", "client_id": "c", "client_class": "broker",
        "operation": "explain", "output": {"label": "x", "score": 0.5},
    }  # fmt: skip
    sketcher = Sketcher(models, Identity(SEED, "warm", SEED), Config())
    for texts in ([json.dumps(about | one).encode() for one in some] for some in (inputs, inputs[:-1], inputs[-1:])):
        records = [RawRecord(offset, value, None, (), -1) for offset, value in enumerate(texts)]
        sketcher.frames("warm", 0, "0", records, 1)
    numbers.warm()


if __name__ == "__main__":
    warm()
