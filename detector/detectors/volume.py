"""More inputs, rows or tokens than the class of client ever sends, or sent like clockwork: docs/detectors/volume.md."""

from detector.detectors.atlas import MODEL_EXTRACTION, QUERIES
from detector.detectors.base import ClientBet, Count, Detector

TIMING = ClientBet("timing", ((0.5, 0.5) * 8,), 0.05, given=2, meaning="requests like clockwork")
"""A programme asks evenly. The bet is on a gap like the one before, given how long it is: speed itself is no evidence,
people and programmes differ too much between models (`rate` counts it)."""

VOLUME = Detector(
    "volume",
    title="Unusually many requests, or requests like clockwork",
    techniques=(QUERIES, MODEL_EXTRACTION),
    client_bets=(TIMING,),
    counts=(
        Count("unique", "different inputs", "different inputs today"),
        Count("rate", "requests in a minute", "requests in a minute"),
        Count("tokens", "tokens", "thousand tokens today"),
    ),
)
