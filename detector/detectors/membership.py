"""Asking about records that the model was trained on: docs/detectors/membership.md."""

from detector.detectors.base import EVENLY, ODD_ROW, ClientBet, Detector

MEMBERSHIP = Detector("membership", client_bets=(ClientBet("membership", EVENLY, ODD_ROW),))
