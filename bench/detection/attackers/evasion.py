"""Published evasion and membership attacks, run by the Adversarial Robustness Toolbox against the model.

The attacker starts from a declined applicant, changes numbers only, and wants a nearby application that is accepted.
Budgets are small ones: the defaults of HopSkipJump ask 24,400 times, which no patient attacker would.
"""

import math
from typing import Any

import numpy as np
from art.attacks.evasion import BoundaryAttack, HopSkipJump, SignOPTAttack, SimBA, SquareAttack, ZooAttack
from art.attacks.inference.membership_inference import LabelOnlyDecisionBoundary
from art.estimators.classification import BlackBoxClassifier
from art.estimators.classification.blackbox import BlackBoxClassifierNeuralNetwork

from bench.detection.attackers.probing import Prober
from models.rows import F64

SMALL_BUDGET = {"max_iter": 10, "max_eval": 1_000, "init_eval": 10, "init_size": 100, "verbose": False}
MEMBERSHIP_BUDGET = {"max_iter": 3, "max_eval": 1_000, "init_eval": 10, "init_size": 100, "verbose": False}

SIDE_MIN = 5


def hop_skip_jump(prober: Prober, rng: np.random.Generator) -> None:
    """Chen, Jordan, Wainwright 2020: about 340 queries."""
    _generate(HopSkipJump(_labels(prober), **SMALL_BUDGET), prober, rng)


def boundary(prober: Prober, rng: np.random.Generator) -> None:
    """Brendel, Rauber, Bethge 2018, defaults."""
    _generate(BoundaryAttack(_labels(prober), targeted=False, verbose=False), prober, rng)


def sign_opt(prober: Prober, rng: np.random.Generator) -> None:
    """Cheng et al. 2020, 20 trial directions and 20 per gradient."""
    # The toolbox refuses two classes here; a third one that is never answered changes nothing.
    attack = SignOPTAttack(_labels(prober, classes=3), targeted=False, num_trial=20, k=20, verbose=False)
    _generate(attack, prober, rng)


def zoo(prober: Prober, rng: np.random.Generator) -> None:
    """Chen et al. 2017 with scores; steps of a quarter of a range, since trees are flat below."""
    attack = ZooAttack(
        _scores(prober),
        confidence=0.0,
        targeted=False,
        learning_rate=0.1,
        max_iter=30,
        abort_early=False,
        binary_search_steps=1,
        initial_const=1e-3,
        use_resize=False,
        use_importance=False,
        nb_parallel=5,
        batch_size=1,
        variable_h=0.25,
        verbose=False,
    )
    _generate(attack, prober, rng)


def simba(prober: Prober, rng: np.random.Generator) -> None:
    """Guo et al. 2019, one field at a time in random order, with scores."""
    _generate_image(SimBA(_image_scores(prober), attack="px", epsilon=0.1, freq_dim=1, verbose=False), prober, rng)


def square(prober: Prober, rng: np.random.Generator) -> None:
    """Andriushchenko et al. 2020, steps of 0.3 ranges; a table has no neighbouring pixels, and that shows."""
    _generate_image(SquareAttack(_image_scores(prober), eps=0.3, max_iter=1_000, verbose=False), prober, rng)


def membership(prober: Prober, rng: np.random.Generator) -> None:
    """Choquette-Choo et al. 2021, label only: how far is the boundary from each of many records? Half are members.

    It has what it wants as soon as it can decide about the first record.
    """
    dataset, model = prober.dataset, prober.model
    members = set(model.trained.tolist())
    others = np.array([row for row in range(len(dataset.inputs)) if row not in members])
    while True:
        row = rng.choice(model.trained if rng.random() < 0.5 else others)
        prober.start_from(dataset.inputs[row])
        _seed(rng)
        point = prober.scaled(prober.origin[None]).astype(np.float32)
        attack = LabelOnlyDecisionBoundary(_labels(prober), distance_threshold_tau=0.3)
        attack.infer(point, np.array([dataset.target[row]]), **MEMBERSHIP_BUDGET)
        prober.reached = prober.reached if prober.reached >= 0 else prober.count - 1


def _labels(prober: Prober, classes: int = 2) -> BlackBoxClassifier:
    """Answers of labels only, one-hot."""

    def predict(points: F64) -> F64:
        accepted = prober.ask(prober.rows(points))[:, 1] >= 0.5
        return np.eye(classes, dtype=np.float32)[accepted.astype(int)]

    return BlackBoxClassifier(predict, (len(prober.fields),), nb_classes=classes, clip_values=(0.0, 1.0))


def _scores(prober: Prober) -> BlackBoxClassifier:
    def predict(points: F64) -> F64:
        return prober.ask(prober.rows(points)).astype(np.float32)

    return BlackBoxClassifier(predict, (len(prober.fields),), nb_classes=2, clip_values=(0.0, 1.0))


def _side(prober: Prober) -> int:
    """Of the square image; the toolbox's first tile, four fifths of it, has to fit with a line to spare."""
    return max(SIDE_MIN, math.isqrt(len(prober.fields) - 1) + 1)


def _image_scores(prober: Prober) -> BlackBoxClassifierNeuralNetwork:
    """The row as a square image of one channel, padded: what attacks on images ask for."""
    side, fields = _side(prober), len(prober.fields)

    def predict(images: F64) -> F64:
        return prober.ask(prober.rows(images.reshape(len(images), -1)[:, :fields])).astype(np.float32)

    return BlackBoxClassifierNeuralNetwork(
        predict, (1, side, side), nb_classes=2, channels_first=True, clip_values=(0.0, 1.0)
    )


def _generate(attack: Any, prober: Prober, rng: np.random.Generator) -> None:
    _seed(rng)
    attack.generate(prober.scaled(prober.origin[None]).astype(np.float32))


def _generate_image(attack: Any, prober: Prober, rng: np.random.Generator) -> None:
    _seed(rng)
    side = _side(prober)
    image = np.zeros((1, side * side), np.float32)
    image[0, : len(prober.fields)] = prober.scaled(prober.origin[None])[0]
    attack.generate(image.reshape(1, 1, side, side))


def _seed(rng: np.random.Generator) -> None:
    """The toolbox draws from numpy's global generator."""
    np.random.seed(int(rng.integers(2**31)))
