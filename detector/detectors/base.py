"""What a detector declares: bets on how attackers vary inputs. The arithmetic is in models/kernels/fold/fold.py."""

from collections.abc import Mapping
from dataclasses import dataclass

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
    """

    name: str
    bets: Mapping[str, Mapping[int, float]]

    @property
    def joint(self) -> bool:
        return len(self.bets) > 1

    def __post_init__(self) -> None:
        unknown = set(self.bets) - set(FEATURES)
        if unknown:
            raise ValueError(f"profile {self.name}: no such features: {sorted(unknown)}")


@dataclass(frozen=True, slots=True)
class ClientBet:
    """A bet on the client's own rows, one outcome a distinct row (models/kernels/fold/client.py).

    process : one of layout.CLIENT_PROCESSES. attack : weights of its outcomes under attack, by bucket of the client's
    distinct rows so far, or one row of weights for all buckets. null_min : no outcome is held rarer than this among
    ordinary clients; it bounds what a single row can say. given : outcomes come in groups of this size, and the bet is
    on which of its group it is, given the group; 0 for one group of all.
    """

    process: str
    attack: tuple[tuple[float, ...], ...]
    null_min: float
    given: int = 0

    def __post_init__(self) -> None:
        if self.process not in CLIENT_PROCESSES:
            raise ValueError(f"no such process of a client: {self.process}")


@dataclass(frozen=True, slots=True)
class Detector:
    """A detector as users see it: a name in alerts, and the processes whose evidence it stands for.

    counts : those of layout.COUNTS that it owns.
    """

    name: str
    profiles: tuple[Profile, ...] = ()
    client_bets: tuple[ClientBet, ...] = ()
    counts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = set(self.counts) - set(COUNTS)
        if unknown:
            raise ValueError(f"detector {self.name}: no such counts: {sorted(unknown)}")


EVENLY = ((0.5, 0.5),)
"""Of a yes-no outcome that an attacker produces every other time."""
ODD_ROW = 0.01
"""Floor under the null of what ordinary clients never do: one odd value is a typing error, not an attack."""
