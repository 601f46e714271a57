"""The registry, written out. A detector is here or it does not exist."""

from detector.detectors.ascent import ASCENT
from detector.detectors.base import ClientBet, Count, Detector, Profile
from detector.detectors.boundary import BOUNDARY
from detector.detectors.extraction import EXTRACTION
from detector.detectors.membership import MEMBERSHIP
from detector.detectors.offgrid import OFFGRID
from detector.detectors.sweep import SWEEP
from detector.detectors.unreadable import UNREADABLE
from detector.detectors.variants import VARIANTS
from detector.detectors.volume import VOLUME

REGISTRY: tuple[Detector, ...] = (
    VARIANTS, BOUNDARY, ASCENT, SWEEP, OFFGRID, EXTRACTION, MEMBERSHIP, VOLUME, UNREADABLE,
)  # fmt: skip

__all__ = ["REGISTRY", "ClientBet", "Count", "Detector", "Profile"]
