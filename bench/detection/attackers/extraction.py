"""Model theft: queries whose answers train a copy. Own minimal loops: the toolbox's thieves need torch.

It has what it wants when a forest trained on the answers errs, about real people, half as often as one that knows
nothing and always answers the more frequent label.
"""

import numpy as np
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.detection.attackers.probing import Prober
from bench.detection.clients import People
from models.rows import F64

ERRORS_LEFT = 0.5
JUDGED_ROWS = 2_000
CHECKED_AT = (50, 100, 200, 300, 500, 1_000, 2_000)
SEED_ROWS = 20
ROUND_ROWS = 20
CANDIDATES = 500
CLUSTERS = 10
TEMPERATURE = 0.3


def synthetic(prober: Prober, rng: np.random.Generator) -> None:
    """Every number uniform in its plausible range, every category equally likely (Tramer et al. 2016)."""
    dataset = prober.dataset
    while True:
        row = dataset.low + rng.random(len(dataset.fields)) * dataset.span
        for j, field in enumerate(dataset.fields):
            if field.categories:
                row[j] = rng.integers(len(field.categories))
            elif j not in dataset.attackable:
                row[j] = dataset.rounded_field(j, row[j : j + 1])[0]
        prober.ask(row[None])


def shuffled(prober: Prober, rng: np.random.Generator) -> None:
    """Each field from another real person: right one by one, wrong together."""
    inputs = prober.dataset.inputs
    while True:
        rows = rng.integers(0, len(inputs), inputs.shape[1])
        prober.ask(inputs[rows, np.arange(inputs.shape[1])][None])


def uncertainty(prober: Prober, rng: np.random.Generator) -> None:
    """Active learning: ask about the candidates that the copy is least sure of (Pal et al. 2020, ActiveThief)."""
    inputs = prober.dataset.inputs
    people = People(prober.dataset)
    asked = people.draw(rng, SEED_ROWS)
    answers = prober.ask(asked)[:, 1] >= 0.5
    copy = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    while True:
        base = inputs[rng.integers(0, len(inputs), CANDIDATES)]
        points = base.copy()
        noise = rng.normal(0.0, 0.1, (CANDIDATES, len(prober.fields))) * prober.dataset.span[prober.fields]
        points[:, prober.fields] += noise
        if answers.all() or not answers.any():
            chosen = points[:ROUND_ROWS]
        else:
            copy.fit(_filled(prober, asked), answers)
            doubt = np.abs(copy.predict_proba(_filled(prober, points))[:, 1] - 0.5)
            chosen = points[np.argsort(doubt)[:ROUND_ROWS]]
        answers = np.concatenate((answers, prober.ask(chosen)[:, 1] >= 0.5))
        asked = np.concatenate((asked, chosen))


def copycat(prober: Prober, rng: np.random.Generator) -> None:
    """Real people in random order, hard labels (Correia-Silva et al. 2018). Looks like a broker, and is one in all but
    intent."""
    for row in rng.permutation(len(prober.dataset.inputs)):
        prober.ask(prober.dataset.inputs[row][None])


def knockoff(prober: Prober, rng: np.random.Generator) -> None:
    """Real people from the clusters that surprised the most (Orekondy et al. 2019, adaptive, as a gradient bandit)."""
    inputs = _filled(prober, prober.dataset.inputs)
    scaled = StandardScaler().fit_transform(inputs)
    seed = int(rng.integers(2**31))
    cluster = KMeans(CLUSTERS, n_init=1, random_state=seed).fit_predict(scaled[:JUDGED_ROWS])
    preference, mean = np.zeros(CLUSTERS), np.full(CLUSTERS, 0.5)
    while True:
        share = np.exp(preference - preference.max())
        share /= share.sum()
        arm = int(rng.choice(CLUSTERS, p=share))
        row = rng.choice(np.flatnonzero(cluster == arm))
        answer = prober.ask(prober.dataset.inputs[row][None])[0, 1]
        reward = abs(answer - mean[arm])
        mean[arm] += 0.1 * (answer - mean[arm])
        preference += TEMPERATURE * (reward - 0.2) * ((np.arange(CLUSTERS) == arm) - share)


def stolen_at(prober: Prober, stream: F64) -> int:
    """Last query of the first checked prefix whose copy is faithful; -1 if none."""
    judged = _filled(prober, prober.dataset.inputs[:JUDGED_ROWS])
    truth = prober.model.accept(prober.dataset.inputs[:JUDGED_ROWS]) >= 0.5
    errors_max = ERRORS_LEFT * min(truth.mean(), 1 - truth.mean())
    labels = prober.model.accept(stream) >= 0.5
    rows = _filled(prober, stream)
    for count in CHECKED_AT:
        if count > len(stream):
            break
        copy = RandomForestClassifier(30, random_state=0, n_jobs=1).fit(rows[:count], labels[:count])
        if np.mean(copy.predict(judged) != truth) <= errors_max:
            return count - 1
    return -1


def _filled(prober: Prober, rows: F64) -> F64:
    """Blanks as the median, for copies that cannot read them."""
    return np.where(np.isnan(rows), np.nanmedian(prober.dataset.inputs, axis=0), rows)
