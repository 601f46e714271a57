"""More inputs, rows or tokens than the class of client ever sends, or sent like clockwork: docs/detectors/volume.md."""

from detector.detectors.base import ClientBet, Detector

TIMING = ClientBet("timing", ((0.5, 0.5) * 8,), 0.05, given=2)
"""A programme asks evenly. The bet is on a gap like the one before, given how long it is: speed itself is no evidence,
people and programmes differ too much between models (`rate` counts it)."""

VOLUME = Detector("volume", client_bets=(TIMING,), counts=("unique", "rate", "tokens"))
