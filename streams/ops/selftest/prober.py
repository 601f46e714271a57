"""A synthetic prober of any calibrated model: one input, walked along one field or direction while the answer turns.

It is made from what artefacts hold, so that no real request is needed. Nobody's values stand in it, only the commonest
of each field. Another `name` walks elsewhere: what was sent before would count as repeats.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from models.artefacts.store import ModelArtefact
from models.encoders.embedding import EmbeddingEncoder
from models.encoders.table import TabularEncoder, TabularFit

Record = dict[str, Any]
SPAN = 3.0
"""How far the walk goes, in standard units of the field."""

SHAKE = 0.013
STEP_MS = 1_000


def records(artefact: ModelArtefact, name: str, count: int, end_ms: int) -> Iterator[Record]:
    """`probewatch.request/1`, a second apart, the last at `end_ms`. name : the client id."""
    rng = np.random.default_rng(np.frombuffer(name.encode().ljust(8, b"\0"), np.uint8).astype(np.uint64))
    labels = [*list(artefact.labels.values())[:2], "yes", "no"][:2]
    middle = 0.5 if artefact.decision_threshold is None else artefact.decision_threshold
    for number, given in enumerate(_inputs(artefact, rng, count)):
        ahead = (number + 0.5) / count - 0.5
        yield {
            "ts": (end_ms - STEP_MS * (count - 1 - number)) / 1000,
            "request_id": f"{name}/{number}",
            "client_id": name,
            "model": artefact.model,
            **given,
            "output": {"label": labels[ahead > 0], "score": middle + 0.2 * ahead},
        }


def _inputs(artefact: ModelArtefact, rng: np.random.Generator, count: int) -> Iterator[Record]:
    encoder = artefact.encoder
    if isinstance(encoder, EmbeddingEncoder):
        start, way = rng.standard_normal((2, encoder.dim_in))
        for number in range(count):
            yield {"embedding": (start + number / count * encoder.reach * way).tolist()}
    elif isinstance(encoder, TabularEncoder):
        yield from ({"features": row} for row in _rows(encoder.fit, rng, count))
    else:
        raise TypeError(f"no prober for encoders of kind {encoder.kind}")


def _rows(fit: TabularFit, rng: np.random.Generator, count: int) -> Iterator[Record]:
    usual = {name: _commonest(fit, place) for place, name in enumerate(fit.names)}
    numbers = [place for place in range(len(fit.names)) if not fit.categories[place]]
    if not numbers:
        for number in range(count):
            place = number % len(fit.names)
            yield usual | {fit.names[place]: str(rng.choice(fit.categories[place]))}
        return
    known = np.diff(fit.known_start)
    walked = max(numbers, key=lambda place: (known[place], fit.names[place]))
    begin = fit.centre[walked] - fit.scale[walked] * (SPAN / 2 - SHAKE * rng.random())
    for number in range(count):
        yield usual | {fit.names[walked]: float(begin + fit.scale[walked] * SPAN * number / count)}


def _commonest(fit: TabularFit, place: int) -> float | str | None:
    values = slice(int(fit.known_start[place]), int(fit.known_start[place + 1]))
    if fit.categories[place]:
        return fit.categories[place][0]
    if values.start == values.stop:
        return float(fit.centre[place])
    return float(fit.known[values][int(np.argmin(fit.known_surprisals[values]))])
