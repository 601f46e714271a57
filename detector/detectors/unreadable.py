"""Requests that the model answers and nobody can read, to hide what they are: docs/detectors/unreadable.md."""

from detector.detectors.atlas import EVASION, MODIFICATION
from detector.detectors.base import BAD_ROW, EVENLY, ClientBet, Detector

UNREADABLE = Detector(
    "unreadable",
    title="Requests that cannot be read",
    techniques=(EVASION, MODIFICATION),
    client_bets=(
        ClientBet("unreadable", EVENLY, BAD_ROW, meaning="values that cannot be read"),
        ClientBet("unjudged", EVENLY, BAD_ROW, meaning="requests without a usable input"),
        ClientBet("unknown_model", EVENLY, BAD_ROW, meaning="requests to models that do not exist"),
    ),
)
