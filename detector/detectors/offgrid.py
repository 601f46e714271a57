"""Values that a stepped field never had, as unrounded attack code sends: docs/detectors/offgrid.md."""

from detector.detectors.base import Detector

OFFGRID = Detector("offgrid", client_processes=("offgrid",))
