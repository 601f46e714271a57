"""A synthetic prober of any calibrated model: one input, walked along one field or direction while the answer turns.

It is made from what artefacts hold (`Encoder.probe`), so that no real request is needed. Another `name` walks
elsewhere: what was sent before would count as repeats.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from models.artefacts.store import ModelArtefact

Record = dict[str, Any]
STEP_MS = 1_000


def records(artefact: ModelArtefact, name: str, count: int, end_ms: int) -> Iterator[Record]:
    """`probewatch.request/1`, a second apart, the last at `end_ms`. name : the client id."""
    rng = np.random.default_rng(np.frombuffer(name.encode().ljust(8, b"\0"), np.uint8).astype(np.uint64))
    labels = [*list(artefact.labels.values())[:2], "yes", "no"][:2]
    middle = 0.5 if artefact.decision_threshold is None else artefact.decision_threshold
    for number, given in enumerate(artefact.encoder.probe(rng, count)):
        ahead = (number + 0.5) / count - 0.5
        yield {
            "ts": (end_ms - STEP_MS * (count - 1 - number)) / 1000,
            "request_id": f"{name}/{number}",
            "client_id": name,
            "model": artefact.model,
            artefact.encoder.reads: given,
            "output": {"label": labels[ahead > 0], "score": middle + 0.2 * ahead},
        }
