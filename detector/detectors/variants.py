"""Many near-duplicates of one input, in whatever way they differ: docs/detectors/variants.md."""

from detector.detectors.atlas import MODIFICATION, VERIFICATION
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
    Count,
    Detector,
    Profile,
)
from models.kernels.layout import BACKWARD, FORWARD, NO_RECORD

GENERIC = Profile(
    "generic",
    {
        "flip": {0: 0.65, 1: 0.35},
        "edit": {
            ONE_AGAIN: 0.2, ONE: 0.1, TWO_AGAIN: 0.07, TWO: 0.08, THREE_AGAIN: 0.05, THREE: 0.07,
            FEW: 0.13, HALF: 0.12, MOST: 0.18,
        },
        "collinear": {0: 0.5, 1: 0.3, 2: 0.2},
        "margin": {0: 0.6, 1: 0.4},
        "record": {NO_RECORD: 0.65, FORWARD: 0.2, BACKWARD: 0.15},
        "step": {0: 0.2, 1: 0.18, 2: 0.17, 3: 0.15, 4: 0.13, 5: 0.1, 6: 0.07},
        "equal_step": {0: 0.7, 1: 0.3},
        "field": {SOME_FIELD: 0.55, MANY_FIELDS: 0.45},
    },
    meaning="many small variants of one input",
)  # fmt: skip

VARIANTS = Detector(
    "variants",
    title="Many variants of one input",
    techniques=(MODIFICATION, VERIFICATION),
    profiles=(
        GENERIC,
        Profile("step", {"step": {0: 0.3, 1: 0.25, 2: 0.15, 3: 0.1, 4: 0.08, 5: 0.07, 6: 0.05}}),
        Profile("equal_step", {"equal_step": {0: 0.4, 1: 0.6}}),
    ),
    counts=(Count("family_size", "variants of one input", "variants of one input"),),
)
