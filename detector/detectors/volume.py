"""More inputs, rows or tokens than the class of client ever sends, or sent like clockwork: docs/detectors/volume.md."""

from detector.detectors.base import ClientBet, Detector

TIMING = ClientBet(
    "timing",
    (
        (
            0.12, 0.12,  # gaps below .1 s: irregular, regular
            0.15, 0.15,  # below 1 s
            0.12, 0.08,  # below 3 s
            0.08, 0.04,  # below 10 s
            0.05, 0.03,  # below a minute
            0.03, 0.01,  # below 10 minutes
            0.007, 0.003,  # below an hour
            0.007, 0.003,
        ),
    ),
    0.002,
)  # fmt: skip
"""A programme asks as fast as it is answered, and evenly."""

VOLUME = Detector("volume", client_bets=(TIMING,), counts=("unique", "rate", "tokens"))
