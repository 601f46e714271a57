"""Client-level split conformal thresholds written again, in exact fractions."""

import math
from collections.abc import Sequence
from fractions import Fraction

BUDGETS = (None, Fraction(1, 100), Fraction(1, 1000), Fraction(1, 10_000), Fraction(1, 100_000))
"""By level; level 0 is no decision."""


def threshold(maxima: Sequence[int], level: int) -> tuple[int, bool]:
    """(threshold, whether these clients can show it): the ceil((m + 1)(1 - beta))-th smallest, and one more.

    An alarm is a statistic at or above the threshold, so a tie with a certifying client is none.
    """
    budget, m = BUDGETS[level], len(maxima)
    if budget is None or m == 0:
        return 0, False
    rank = math.ceil((m + 1) * (1 - budget))
    if rank <= m:
        return sorted(maxima)[rank - 1] + 1, True
    return max(maxima) + 1 + round(slope(maxima) * math.log(1 / (budget * (m + 1)))), False


def slope(maxima: Sequence[int]) -> float:
    """Thousandths of a tail length per factor e: measured between 99 % and 99.9 % if there are clients enough."""
    if len(maxima) < 999:
        return 3333
    return max(1500, (threshold(maxima, 2)[0] - threshold(maxima, 1)[0]) / math.log(10))


def alarms(values: Sequence[int], level: int) -> int:
    """How many of these values exceed the threshold that the others set: each in turn is the new client.

    Exchangeability says that this is what a new client's chance is made of: at most beta of them may.
    """
    found = 0
    for i, value in enumerate(values):
        limit, shown = threshold([*values[:i], *values[i + 1 :]], level)
        found += shown and value >= limit
    return found


def chance_of_more(alarms: int, tested: int, clients: int, rank: int) -> Fraction:
    """Chance that at least so many of the tested lie above the rank-th smallest of the clients, by counting orders.

    All orders of clients and tested alike: j tested below the rank-th client and the others above it can be arranged in
    C(rank - 1 + j, j) C(clients - rank + tested - j, tested - j) of C(clients + tested, tested) ways.
    """
    above = range(alarms, tested + 1)
    ways = sum(math.comb(rank - 1 + tested - k, tested - k) * math.comb(clients - rank + k, k) for k in above)
    return Fraction(ways, math.comb(clients + tested, tested))
