"""Ordinary clients who are no longer those that were certified: does the promise break, and does anyone notice?

Each shift is a new population over as many days; `check` compares it with the certificate as `certify-check` does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bench.detection import benign, probewatch_method
from bench.detection.datasets import Dataset
from bench.detection.evaluate import BUDGETS, CONSUMER, Limits, daily_maxima, rate
from bench.detection.log import Log
from bench.detection.victim import Model, label
from detector.calibrate import certify, fit, shift
from models.rows import F64

TEMPLATED_SHARE = 0.3
"""Of consumers, who come through the new app: enough to matter, few enough to be overlooked."""
SEASON = 1.12


@dataclass(frozen=True)
class Shift:
    """sizes : clients per kind from the usual ones. inputs : the same requests with other values."""

    name: str
    sizes: Callable[[Mapping[str, int]], dict[str, int]] = dict
    inputs: Callable[[Dataset, Log, np.random.Generator], F64] = lambda dataset, log, rng: log.inputs


def more_requoters(sizes: Mapping[str, int]) -> dict[str, int]:
    """Twice as many people ask for the same loan again and again."""
    more = sizes["re-quoter"]
    return {**sizes, "re-quoter": 2 * more, "ordinary": sizes["ordinary"] - more}


def new_app(dataset: Dataset, log: Log, rng: np.random.Generator) -> F64:
    """Three in ten consumers use an app that rounds what they type and fills in all that it does not ask."""
    usual = np.nanmedian(dataset.inputs, axis=0)
    mine = (rng.random(log.clients) < TEMPLATED_SHARE) & (log.client_class == CONSUMER)
    rows = np.flatnonzero(mine[log.client])
    inputs = log.inputs.copy()
    numbers = [j for j, field in enumerate(dataset.fields) if not field.categories]
    unasked = [j for j in dataset.attackable.tolist() if j not in dataset.editable.tolist()]
    for j in numbers:
        step = dataset.fields[j].round_step
        inputs[rows, j] = np.rint(inputs[rows, j] / step) * step
    inputs[np.ix_(rows, unasked[: len(unasked) // 2])] = usual[unasked[: len(unasked) // 2]]
    return dataset.rounded(inputs)


def season(dataset: Dataset, log: Log, rng: np.random.Generator) -> F64:
    """Everything that people can change grows by an eighth."""
    inputs = log.inputs.copy()
    grown = np.intersect1d(dataset.attackable, dataset.editable)
    inputs[:, grown] *= SEASON
    return dataset.rounded(inputs)


SHIFTS = (
    Shift("no shift"),
    Shift("twice the re-quoters", sizes=more_requoters),
    Shift("a new app", inputs=new_app),
    Shift("another season", inputs=season),
)


def measure(
    dataset: Dataset,
    model: Model,
    clients: tuple[int, int, int],
    days: int,
    fitted: probewatch_method.Fitted,
    found: Limits,
) -> list[dict[str, object]]:
    """Consumers alarmed under each shift, and what the shift check says."""
    lines: list[dict[str, object]] = []
    for number, one in enumerate(SHIFTS):
        rng = np.random.default_rng([number, 11])
        log = benign.population(dataset, model, one.sizes(benign.sizes(*clients)), days, rng)
        inputs = one.inputs(dataset, log, rng)
        if inputs is not log.inputs:
            score = model.score(inputs)
            log = log._replace(inputs=inputs, score=score, label=label(score))
        at = probewatch_method.sketch(fitted, log, f"shift{number}/")
        maxima = daily_maxima(log, probewatch_method.statistic(fitted, fitted.model.reference, at))[
            log.client_class == CONSUMER
        ]
        noticed = check(fitted, at)
        for b, budget in enumerate(BUDGETS):
            above, rank = found.above[CONSUMER, b], int(found.rank[CONSUMER, b])
            alarmed = rate(maxima > above, rank, int(found.clients[CONSUMER]))
            lines.append(
                {"shift": one.name, "budget": budget, "share": alarmed.share, **alarmed._asdict(), "noticed": noticed}
            )
    return lines


def check(fitted: probewatch_method.Fitted, at: probewatch_method.Sketched) -> list[str]:
    """Comparisons with the certificate that are both unlikely and large, strongest first."""
    certificate = fitted.artefacts.certificate
    if certificate is None:
        return []
    model = fitted.model
    days = fit.daily_maxima(model.encoder, model.decision_threshold, model.reference, at.rows)
    compared = shift.compare(certificate.classes, certify.last_days(days))
    return [
        f"{line.client_class} {line.measure}: {line.then:.2%} -> {line.now:.2%}" for line in compared if line.shifted
    ]
