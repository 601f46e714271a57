"""The registry, written out. A detector is here or it does not exist."""

from detector.detectors.ascent import ASCENT
from detector.detectors.atlas import API_ACCESS, EROSION, Technique
from detector.detectors.base import ClientBet, Count, Detector, Profile
from detector.detectors.boundary import BOUNDARY
from detector.detectors.extraction import EXTRACTION
from detector.detectors.membership import MEMBERSHIP
from detector.detectors.offgrid import OFFGRID
from detector.detectors.sweep import SWEEP
from detector.detectors.variants import VARIANTS
from detector.detectors.volume import VOLUME

REGISTRY: tuple[Detector, ...] = (VARIANTS, BOUNDARY, ASCENT, SWEEP, OFFGRID, EXTRACTION, MEMBERSHIP, VOLUME)


def techniques(detector: str) -> tuple[Technique, ...]:
    """What ATLAS calls an alert of a detector, or of the drift of models; all of them need access to the interface."""
    if detector == "drift":
        return (EROSION, API_ACCESS)
    own = (technique for one in REGISTRY if one.name == detector for technique in one.techniques)
    return (*own, API_ACCESS)


__all__ = ["REGISTRY", "ClientBet", "Count", "Detector", "Profile", "techniques"]
