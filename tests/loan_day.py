"""The demonstration's benign day without its gateway: the same people, scripts and model, and times like its own."""

import heapq
import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from examples.demo.run import DAY_PEOPLE, SEED
from examples.loan_gateway.model import LABELS, NAME, LoanModel, encode, load_applications
from examples.traffic import CLASS_OF_KIND, DAY_SIZES, population
from streams.config.config import Config
from streams.fit.calibrate import calibrate
from streams.history.sources import open_sources
from streams.progress import Silent
from streams.secrets.load import load_secrets
from tests.pipeline import Calibrated, fixed_secrets, load_calibrated

AT_ONCE = 32
LEAST_MS, REQUEST_MS = 5.0, 25.0
BEGIN_MS = 1_795_900_000_000


@cache
def day() -> tuple[dict[str, Any], ...]:
    """Native records in the order in which they were answered."""
    training, rest = load_applications()
    model, rng = LoanModel(training), np.random.default_rng(SEED)
    clients = population(rng, rest.features[:DAY_PEOPLE], DAY_SIZES)
    scores = iter(model.scores(np.concatenate([encode(one) for client in clients for one in client.requests])).tolist())
    free = [float(slot) for slot in range(AT_ONCE)]
    records = []
    for client in clients:
        at, over = heapq.heappop(free), False
        for features, score in zip(client.requests, scores, strict=False):
            if over:
                continue
            at += LEAST_MS + rng.exponential(REQUEST_MS)
            label = LABELS[score >= 0.5]
            over = client.shopper and label == "accept"
            records.append(
                _record(client.id, CLASS_OF_KIND.get(client.kind), features, label, score, BEGIN_MS + int(at))
            )
        heapq.heappush(free, at)
    return tuple(sorted(records, key=lambda record: str(record["ts"])))


def _record(
    client: str, client_class: str | None, features: Any, label: str, score: float, time_ms: int
) -> dict[str, Any]:
    time = datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    record = {
        "ts": time, "request_id": f"{client}/{time_ms}", "client_id": client, "model": NAME, "features": features,
        "output": {"label": label, "score": round(score, 6)}, "client_class": client_class or "consumer",
    }  # fmt: skip
    return record


def write(path: Path, *deliveries: tuple[dict[str, Any], ...]) -> Path:
    """Records as lines, one delivery after the other."""
    path.write_text("".join(json.dumps(record) + "\n" for records in deliveries for record in records))
    return path


def calibrated(folder: Path) -> Calibrated:
    """Artefacts of that day, as `make run` fits them."""
    config = Config()
    fixed_secrets(folder)
    history = open_sources([str(write(folder / "day.jsonl", day()))], config)
    calibrate(history, folder, config, load_secrets(config, folder), Silent())
    return load_calibrated(folder)
