"""Values that a stepped field never had, as unrounded attack code sends: docs/detectors/offgrid.md."""

from detector.detectors.base import EVENLY, ODD_ROW, ClientBet, Detector

OFFGRID = Detector("offgrid", client_bets=(ClientBet("offgrid", EVENLY, ODD_ROW),))
