"""Compile every kernel before the first record: `python -m streams.worker.warm`, and each worker at its start.

Compiled code is cached under the hash of the kernels' sources, so this takes half a minute once and nothing afterwards.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

from models import encoders
from models import warm as numbers
from models.artefacts.population import Population, fit_population
from models.artefacts.training_set import Members
from models.encoders.base import Encoder
from streams.config.config import Config
from streams.sketch.identity import Identity
from streams.sketch.sketcher import RawRecord, Sketcher

SEED = bytes(32)
EXAMPLES = 8


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
    models, forms = {}, []
    for kind in encoders.ENCODERS:
        inputs = kind.examples(EXAMPLES)
        encoder = kind.fit(inputs, SEED)
        assert encoder is not None
        values = encoder.encode(inputs).values
        models[kind.kind] = _Model(kind.kind, encoder, fit_population(values, encoder.id))
        records = [{"model": kind.kind, kind.reads: given} for given in inputs]
        forms += [records, records[:1], records[1:2]]
    about = {
        "ts": "2025-01-01T00:00:00Z", "request_id": "r", "client_id": "c", "client_class": "broker",
        "operation": "explain", "output": {"label": "x", "score": 0.5},
    }  # fmt: skip
    sketcher = Sketcher(_Models(models), Identity(SEED, "warm", SEED), Config())
    for texts in ([json.dumps(about | one).encode() for one in some] for some in forms):
        raws = [RawRecord(offset, value, None, (), -1) for offset, value in enumerate(texts)]
        sketcher.frames("warm", 0, "0", raws, 1)
    numbers.warm()


if __name__ == "__main__":
    warm()
