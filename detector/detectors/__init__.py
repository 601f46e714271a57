"""The registry, written out. A detector is here or it does not exist."""

from detector.detectors.base import Detector, Profile
from detector.detectors.boundary import BOUNDARY
from detector.detectors.offgrid import OFFGRID
from detector.detectors.sweep import SWEEP
from detector.detectors.variants import VARIANTS
from detector.detectors.volume import VOLUME

REGISTRY: tuple[Detector, ...] = (VARIANTS, BOUNDARY, SWEEP, OFFGRID, VOLUME)

__all__ = ["REGISTRY", "Detector", "Profile"]
