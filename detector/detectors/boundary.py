"""Walking along a decision boundary (HopSkipJump, Boundary attack and kin): docs/detectors/boundary.md."""

from detector.detectors.atlas import EVASION, OPTIMIZATION
from detector.detectors.base import FEW, HALF, MANY_FIELDS, MOST, ONE, SOME_FIELD, THREE, TWO, Detector, Profile
from models.kernels.layout import BACKWARD, FORWARD, NO_RECORD

WALKER = Profile(
    "walker",
    {
        "flip": {0: 0.5, 1: 0.5},
        "edit": {ONE: 0.03, TWO: 0.03, THREE: 0.04, FEW: 0.1, HALF: 0.2, MOST: 0.6},
        "collinear": {0: 0.15, 1: 0.45, 2: 0.4},
        "margin": {0: 0.4, 1: 0.6},
        "record": {NO_RECORD: 0.7, FORWARD: 0.15, BACKWARD: 0.15},
        "step": {0: 0.25, 1: 0.2, 2: 0.2, 3: 0.15, 4: 0.1, 5: 0.06, 6: 0.04},
        "equal_step": {0: 0.75, 1: 0.25},
        "field": {SOME_FIELD: 0.1, MANY_FIELDS: 0.9},
    },
    meaning="steps along the decision boundary",
)

BOUNDARY = Detector(
    "boundary",
    title="Walk along the decision boundary",
    techniques=(OPTIMIZATION, EVASION),
    profiles=(
        WALKER,
        Profile("flip", {"flip": {0: 0.5, 1: 0.5}}),
        Profile("collinear", {"collinear": {0: 0.3, 1: 0.1, 2: 0.6}}),
        Profile("margin", {"margin": {0: 0.3, 1: 0.7}}),
    ),
)
