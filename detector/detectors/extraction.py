"""Copying a model by asking it about everything: docs/detectors/extraction.md."""

from detector.detectors.atlas import MODEL_EXTRACTION, REPLICATION
from detector.detectors.base import EVENLY, ODD_ROW, ClientBet, Detector
from models.kernels.layout import CLIENT_LEVELS

EXPONENTS = (0.05, 0.1, 0.2, 0.4, 0.7)
"""Rows of an attacker are as novel as ordinary inputs' rarest p with chance p ** exponent: from foreign to ordinary."""
NOVELTY_NULL_MIN = 0.002
CELLS = 64
SEEN = (0.0, 1.0, 2.0, 3.5, 6.5, 12.5, 24.5, 48.0)
"""A typical number of distinct rows in each bucket."""


def novelty_shares(exponents: tuple[float, ...]) -> tuple[float, ...]:
    """Shares of levels, whose edges are the 1/2, 3/4, 7/8 … quantiles, if p-values follow p ** exponent (mixed)."""
    reached = [sum(2.0 ** (-level * a) for a in exponents) / len(exponents) for level in range(CLIENT_LEVELS)]
    return tuple(here - further for here, further in zip(reached, [*reached[1:], 0.0], strict=True))


def coverage_shares() -> tuple[tuple[float, float], ...]:
    """Chances of an old and of a new cell after some rows, if cells are drawn evenly."""
    new = [(1.0 - 1.0 / CELLS) ** seen for seen in SEEN]
    return tuple((1.0 - share, share) for share in new)


EXTRACTION = Detector(
    "extraction",
    title="Copying of the model by queries",
    techniques=(MODEL_EXTRACTION, REPLICATION),
    client_bets=(
        ClientBet(
            "novelty",
            (novelty_shares(EXPONENTS),),
            NOVELTY_NULL_MIN,
            meaning="inputs unlike the population's",
        ),
        ClientBet(
            "novelty_robust",
            (novelty_shares(EXPONENTS),),
            NOVELTY_NULL_MIN,
            meaning="inputs unlike even the oddest ordinary client's",
        ),
        ClientBet(
            "coverage",
            coverage_shares(),
            ODD_ROW,
            meaning="inputs from everywhere in the population's space",
        ),
        ClientBet(
            "margin_seek",
            EVENLY,
            0.001,
            meaning="inputs sought close to the decision threshold",
            feature="low_margin",
        ),
        ClientBet("explain", EVENLY, ODD_ROW, meaning="requests for explanations"),
    ),
)
