"""Values that a stepped field never had, as unrounded attack code sends: docs/detectors/offgrid.md."""

from detector.detectors.atlas import OPTIMIZATION
from detector.detectors.base import EVENLY, ODD_ROW, ClientBet, Detector

OFFGRID = Detector(
    "offgrid",
    title="Values that no ordinary client sends",
    techniques=(OPTIMIZATION,),
    client_bets=(ClientBet("offgrid", EVENLY, ODD_ROW, meaning="values off a field's grid"),),
)
