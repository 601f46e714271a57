"""Climbing by the score, towards another answer or into the heart of a class: docs/detectors/ascent.md."""

from detector.detectors.atlas import INVERSION, OPTIMIZATION
from detector.detectors.base import (
    FEW,
    HALF,
    MANY_FIELDS,
    MOST,
    ONE,
    ONE_AGAIN,
    SOME_FIELD,
    THREE,
    TWO,
    Detector,
    Profile,
)
from models.kernels.layout import BACKWARD, FORWARD, NO_RECORD

ASCENDER = Profile(
    "ascender",
    {
        "flip": {0: 0.85, 1: 0.15},
        "edit": {ONE_AGAIN: 0.08, ONE: 0.14, TWO: 0.06, THREE: 0.06, FEW: 0.12, HALF: 0.14, MOST: 0.4},
        "collinear": {0: 0.4, 1: 0.5, 2: 0.1},
        "margin": {0: 0.85, 1: 0.15},
        "record": {NO_RECORD: 0.45, FORWARD: 0.25, BACKWARD: 0.3},
        "step": {0: 0.14, 1: 0.15, 2: 0.17, 3: 0.18, 4: 0.16, 5: 0.12, 6: 0.08},
        "equal_step": {0: 0.65, 1: 0.35},
        "field": {SOME_FIELD: 0.4, MANY_FIELDS: 0.6},
    },
    meaning="steps that make a score rise or fall",
)

ASCENT = Detector(
    "ascent",
    title="Climb towards a chosen answer",
    techniques=(OPTIMIZATION, INVERSION),
    profiles=(ASCENDER, Profile("record", {"record": {NO_RECORD: 0.4, FORWARD: 0.3, BACKWARD: 0.3}})),
)
