"""Two small models with real encoders, and records for them."""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.frame import RowFrame
from models.artefacts.population import Population, fit_population
from models.artefacts.training_set import Members
from models.encoders.base import Encoder
from models.encoders.embedding import EmbeddingEncoder
from models.encoders.table import TabularEncoder, fit_table
from streams.adapters import native
from streams.adapters.request import Request
from streams.config.config import Config
from streams.sketch.identity import Identity
from streams.sketch.sketcher import RawRecord, Sketcher
from streams.wire.rejects import Fault

SEED = bytes(range(32))
DIM = 64


@dataclass(frozen=True)
class Model:
    space: str
    encoder: Encoder
    decision_threshold: float | None = None
    population: Population | None = None
    members: Members | None = None


@dataclass(frozen=True)
class Models:
    models: dict[str, Model]


def features(rng: random.Random) -> dict[str, float | str | bool]:
    return {
        "income": round(rng.gauss(3_000, 800), 2),
        "term": rng.randint(6, 60),
        "purpose": rng.choice(["car", "house", "other"]),
        "owner": rng.random() < 0.5,
    }


def vector(rng: random.Random) -> list[float]:
    return [float(np.float32(rng.gauss(0, 1))) for _ in range(DIM)]


def build_models(members: Members | None = None) -> Models:
    """members : of the model "loan"."""
    rng = random.Random(7)
    people = [features(rng) for _ in range(500)]
    table = TabularEncoder(fit_table(people), SEED)
    embedding = EmbeddingEncoder(DIM, 0.3, SEED)
    population = fit_population(table.encode(people).values, table.id)
    loan = Model(f"loan@{table.id}", table, population=population, members=members)
    return Models({"loan": loan, "faces": Model(f"faces@{embedding.id}", embedding, 0.7)})


def build_sketcher(config: Config | None = None, members: Members | None = None) -> Sketcher:
    return Sketcher(build_models(members), Identity(SEED, "k1", SEED), config or Config())


def record(rng: random.Random, number: int, model: str = "loan") -> dict[str, Any]:
    """A good record; `number` makes its request id unique."""
    body: dict[str, Any] = {
        "ts": rng.choice(["2025-03-01T10:00:00.123Z", "2025-03-01T10:00:00+02:00", 1740823200.25, 1740823200]),
        "request_id": f"r-{number}",
        "client_id": f"client-{rng.randrange(50)}",
        "model": model,
        "prompt": "what is my limit?",
        "output": {"label": rng.choice(["approve", "decline"]), "score": rng.random()},
        "user_agent": "curl/8",
    }
    if model == "loan":
        body["features"] = features(rng)
    else:
        body["embedding"] = vector(rng)
    return body


def raw(offset: int, value: bytes | None) -> RawRecord:
    return RawRecord(offset, value, b"key", [("ce_id", b"1")], -1)


def decoded(value: bytes, features: frozenset[str] = frozenset()) -> list[Request | Fault]:
    """Every element of a native message, in order."""
    return [native.decode(element, (), features) for element in native.elements(value)]


def request_ids(frames: list[RowFrame]) -> list[str]:
    return [frame.rows.request_id(row) for frame in frames for row in range(frame.rows.count)]
