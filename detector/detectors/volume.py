"""More distinct inputs in a day than the class of client ever sends: docs/detectors/volume.md."""

from detector.detectors.base import Detector

VOLUME = Detector("volume", client_processes=("unique",))
