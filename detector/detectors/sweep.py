"""Turning one knob after another to learn the formula: docs/detectors/sweep.md."""

from detector.detectors.atlas import MODEL_EXTRACTION, MODIFICATION
from detector.detectors.base import (
    FEW,
    HALF,
    MANY_FIELDS,
    MOST,
    ONE,
    ONE_AGAIN,
    SOME_FIELD,
    THREE,
    THREE_AGAIN,
    TWO,
    TWO_AGAIN,
    Detector,
    Profile,
)
from models.kernels.layout import BACKWARD, FORWARD, NO_RECORD

EDIT = {
    ONE_AGAIN: 0.55, ONE: 0.15, TWO_AGAIN: 0.08, TWO: 0.05, THREE_AGAIN: 0.04, THREE: 0.03,
    FEW: 0.05, HALF: 0.03, MOST: 0.02,
}  # fmt: skip
FIELD = {SOME_FIELD: 0.9, MANY_FIELDS: 0.1}

SWEEPER = Profile(
    "sweeper",
    {
        "flip": {0: 0.7, 1: 0.3},
        "edit": EDIT,
        "collinear": {0: 0.85, 1: 0.1, 2: 0.05},
        "margin": {0: 0.75, 1: 0.25},
        "record": {NO_RECORD: 0.7, FORWARD: 0.15, BACKWARD: 0.15},
        "step": {0: 0.12, 1: 0.14, 2: 0.16, 3: 0.18, 4: 0.18, 5: 0.14, 6: 0.08},
        "equal_step": {0: 0.7, 1: 0.3},
        "field": FIELD,
    },
    meaning="fields changed one by one",
)

SWEEP = Detector(
    "sweep",
    title="Field-by-field sweep",
    techniques=(MODIFICATION, MODEL_EXTRACTION),
    profiles=(SWEEPER, Profile("edit", {"edit": EDIT}), Profile("field", {"field": FIELD})),
)
