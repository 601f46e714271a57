"""What a detector declares: bets on how attackers vary inputs. The arithmetic is in models/kernels/fold.py."""

from collections.abc import Mapping
from dataclasses import dataclass

from models.kernels.layout import FEATURES

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
class Detector:
    """A detector as users see it: a name in alerts, and the processes whose evidence it stands for.

    client_processes : those that bet on the client itself ("margin_seek", "offgrid", "unique", "family_size").
    """

    name: str
    profiles: tuple[Profile, ...] = ()
    client_processes: tuple[str, ...] = ()
