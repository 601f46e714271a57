"""Asking about records that the model was trained on: docs/detectors/membership.md."""

from detector.detectors.atlas import TRAINING_DATA_MEMBERSHIP
from detector.detectors.base import EVENLY, ODD_ROW, ClientBet, Detector

MEMBERSHIP = Detector(
    "membership",
    title="Test for training records",
    techniques=(TRAINING_DATA_MEMBERSHIP,),
    client_bets=(ClientBet("membership", EVENLY, ODD_ROW, meaning="records of the training set"),),
)
