"""What a detector declares: bets on how attackers vary inputs, and its words. Kernels do the arithmetic."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from detector.detectors.atlas import Technique
from models.kernels.layout import CLIENT_PROCESSES, COUNTS, FEATURES

# Levels of `edit`: 2 x (1, 2, 3, 4-6, up to half, most fields changed) + (the same fields as last time).
ONE, ONE_AGAIN, TWO, TWO_AGAIN, THREE, THREE_AGAIN, FEW, HALF, MOST = 0, 1, 2, 3, 4, 5, 6, 8, 10

# Levels of `field`
SOME_FIELD, MANY_FIELDS = 0, 1


@dataclass(frozen=True, slots=True)
class Profile:
    """A way of attacking: for each feature of a variant, how often each level occurs under it.

    bets : feature -> level -> weight (normalised later). Features left out are not bet on. For `field`, level 0 is
    "some single field" (spread over all of them) and level 1 "more than three fields changed".
    A joint profile bets on several features of one event at once; the others on one.
    meaning : what it looks for, in the words of `explain`. Only joint profiles have one; a feature has its own.
    """

    name: str
    bets: Mapping[str, Mapping[int, float]]
    meaning: str = ""

    @property
    def joint(self) -> bool:
        return len(self.bets) > 1

    def __post_init__(self) -> None:
        unknown = set(self.bets) - set(FEATURES)
        if unknown:
            raise ValueError(f"profile {self.name}: no such features: {sorted(unknown)}")
        if self.joint != bool(self.meaning):
            raise ValueError(f"profile {self.name}: a meaning belongs to a joint profile, and to no other")


@dataclass(frozen=True, slots=True)
class ClientBet:
    """A bet on the client's own rows, one outcome a distinct row or a row (models/kernels/fold/client.py).

    process : one of layout.CLIENT_PROCESSES. attack : weights of its outcomes under attack, by bucket of the client's
    rows so far, or one row of weights for all buckets. null_min : no outcome is held rarer than this among
    ordinary clients; it bounds what a single row can say. given : outcomes come in groups of this size, and the bet is
    on which of its group it is, given the group; 0 for one group of all. meaning : what it looks for, in the words of
    alerts and `explain`. feature : name of its evidence in alerts, "" for that of the process.
    """

    process: str
    attack: tuple[tuple[float, ...], ...]
    null_min: float
    given: int = 0
    meaning: str = field(kw_only=True)
    feature: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        if self.process not in CLIENT_PROCESSES:
            raise ValueError(f"no such process of a client: {self.process}")


class Count(NamedTuple):
    """A plain count as evidence, in thousandths. process : one of layout.COUNTS. meaning, unit : in words."""

    process: str
    meaning: str
    unit: str


@dataclass(frozen=True, slots=True)
class Detector:
    """A detector as users see it: all about it but its page.

    name : in alerts, configuration and the name of its page. title : of its alerts. techniques : of MITRE ATLAS, the
    likeliest first. profiles : bets on variants of one input; a detector without any looks at all of a client's inputs.
    client_bets : bets on the client's own rows. counts : plain counts that it owns. Example: detectors/sweep.py.
    Raises ValueError for features, processes and counts that kernels do not compute.
    """

    name: str
    title: str
    techniques: tuple[Technique, ...]
    profiles: tuple[Profile, ...] = ()
    client_bets: tuple[ClientBet, ...] = ()
    counts: tuple[Count, ...] = ()

    def __post_init__(self) -> None:
        unknown = {count.process for count in self.counts} - set(COUNTS)
        if unknown:
            raise ValueError(f"detector {self.name}: no such counts: {sorted(unknown)}")


EVENLY = ((0.5, 0.5),)
"""Of a yes-no outcome that an attacker produces every other time."""
ODD_ROW = 0.01
"""Floor under the null of what ordinary clients never do: one odd value is a typing error, not an attack."""
BAD_ROW = 0.1
"""The same for rows that cannot be read: clients have faults, and faults come in runs. It takes about ten."""
