"""What opens a breaker: the clients decided on within an hour, against what the certificate promises.

A fold over partition 0 of `requests`, into which every judge writes what it decides: one log has one order, so all who
read it count the same. Clients with a past and those without are counted apart, each against their own number: free
accounts open the breaker for free accounts only.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec

from detector.frame import BreakerFrame, DecidedFrame
from detector.policy import HOUR_MS
from detector.settings import BreakerSettings
from models.rows import F64

ENTRIES_MAX = 16_384
LIMIT_MAX = ENTRIES_MAX // 2
SHARE_MAX = 0.01
"""The loosest budget of the ladder. Where few clients were certified more than this is promised: next to nothing."""

CLOCK_DECISIONS = 15
"""What is old goes by the median time of so many decisions: one wrong clock makes nothing old."""

SLACK = 8
"""Once open, floors rise when an eighth more than the limit stand above them: not with every client."""


def rank(excess_milli: int, client: int) -> int:
    """What clients are ordered by: evidence, and among equals the keyed hash, which nobody can choose. Clones of one
    attacker have equal evidence; without a second key either all of them would stay enforced or none."""
    return (excess_milli << 16) + (client >> 48)


class Scale(NamedTuple):
    """What decisions are counted against. promised : (classes, levels) shares of client-days, of the artefacts.
    rungs : levels that hold clients back. blocks : of all partitions."""

    promised: F64
    settings: BreakerSettings
    rungs: Sequence[int]
    blocks: int


class Decided(msgspec.Struct, array_like=True, gc=False):
    """The last decision on one client; fields as in DecidedFrame."""

    client_class: Annotated[int, msgspec.Meta(ge=0, le=2)]
    level: int
    rank: int
    known: bool
    others: tuple[int, int]
    decided_ms: int


class Count(NamedTuple):
    """Clients of one group that were decided on at a level, or above, within the hour.

    ranks : of each, largest first. promised : how many the certificate allows of so many `clients` in a day. limit :
    how many are enforced at most. since_ms : the earliest decision.
    """

    ranks: list[int]
    promised: float
    clients: int
    limit: int
    since_ms: int


class Fuse(msgspec.Struct):
    """One space under one set of artefacts.

    decided : client -> its last decision, the earliest counted first. recent_ms : times of the last decisions.
    opened : the BreakerFrame that holds; None while closed. limits : (level, known) -> limit, promised, clients, as
    they were counted last.
    """

    artefact_hash: str
    decided: dict[int, Decided] = {}
    recent_ms: list[int] = []
    opened: BreakerFrame | None = None
    limits: list[tuple[int, bool, int, float, int]] = []

    @property
    def clock_ms(self) -> int:
        return sorted(self.recent_ms)[(len(self.recent_ms) - 1) // 2] if self.recent_ms else 0

    @property
    def floors(self) -> dict[tuple[int, bool], int]:
        return {} if self.opened is None else {(level, known): floor for level, known, floor in self.opened.floors}

    def add(self, frame: DecidedFrame, scale: Scale) -> BreakerFrame | None:
        """Count a decision. What is to be written into every partition: None unless a floor rises."""
        if not self._take(frame):
            return None
        floors, at_ms = self.floors, self._hour(frame.decided_ms)
        risen: dict[tuple[int, bool], tuple[int, Count]] = {}
        for level in (rung for rung in scale.rungs if rung <= frame.level):
            before = floors.get((level, frame.known))
            if before is not None and rank(frame.excess_milli, frame.client) < before:
                continue
            count = self.count(level, frame.known, scale, at_ms)
            self._keep(level, frame.known, count)
            above = len(count.ranks) if before is None else sum(one >= before for one in count.ranks)
            if above > count.limit + (0 if before is None else count.limit // SLACK):
                risen[level, frame.known] = count.ranks[count.limit] + 1, count
        if not risen:
            return None
        self.opened = self._opened(frame, floors | {group: floor for group, (floor, _) in risen.items()}, risen)
        return self.opened

    def _keep(self, level: int, known: bool, count: Count) -> None:
        others = [one for one in self.limits if one[:2] != (level, known)]
        self.limits = sorted([*others, (level, known, count.limit, count.promised, count.clients)])

    def _hour(self, decided_ms: int) -> int:
        """End of the hour in which a decision counts: partitions are not read in order of time."""
        until_ms = decided_ms if self.opened is None else self.opened.until_ms
        return until_ms if 0 < until_ms - decided_ms < HOUR_MS else decided_ms

    def _opened(
        self,
        frame: DecidedFrame,
        floors: dict[tuple[int, bool], int],
        risen: dict[tuple[int, bool], tuple[int, Count]],
    ) -> BreakerFrame:
        """What the alert tells of stays that of the opening: of the highest level that opened it."""
        if self.opened is None:
            (level, _), (_, count) = max(risen.items())
            told = count.since_ms, level, len(count.ranks), count.promised, count.clients
        else:
            one = self.opened
            told = one.since_ms, one.level, one.seen, one.promised, one.clients
        since_ms, level, seen, promised, clients = told
        return BreakerFrame(
            partition=-1,
            offset=-1,
            model=frame.model,
            space=frame.space,
            artefact_hash=self.artefact_hash,
            revision=frame.offset,
            floors=tuple((*group, floor) for group, floor in sorted(floors.items())),
            since_ms=since_ms,
            until_ms=self._hour(frame.decided_ms),
            level=level,
            seen=seen,
            promised=promised,
            clients=clients,
            opens=self.opened is None,
        )

    def count(self, level: int, known: bool, scale: Scale, at_ms: int) -> Count:
        """One group at one level, in the hour up to a time: that of a decision, so that who has a wrong clock counts
        among nobody."""
        recent = [one for one in self.decided.values() if at_ms - HOUR_MS < one.decided_ms <= at_ms]
        group = [one for one in recent if one.known == known and one.level >= level]
        if not group:
            return Count([], 0.0, 0, scale.settings.clients, at_ms)
        # A client's block is a random one, so the others in it stand for the others in all blocks.
        clients = 1 + round(sum(one.others[known] for one in recent) * scale.blocks / len(recent))
        shares = [min(SHARE_MAX, float(scale.promised[one.client_class, level])) for one in group]
        promised = round(clients * sum(shares) / len(group), 6)
        limit = min(LIMIT_MAX, max(scale.settings.clients, int(scale.settings.factor * promised)))
        ranks = sorted((one.rank for one in group), reverse=True)
        return Count(ranks, promised, clients, limit, min(one.decided_ms for one in group))

    def _take(self, frame: DecidedFrame) -> bool:
        """Whether anything is new in it. A decision told again changes its evidence, not its time."""
        before = self.decided.get(frame.client)
        if before is not None and frame.decided_ms < before.decided_ms:
            return False  # delivered again
        if before is not None and before.decided_ms == frame.decided_ms:
            grown = max(before.rank, rank(frame.excess_milli, frame.client)), max(before.level, frame.level)
            if grown == (before.rank, before.level):
                return False
            before.rank, before.level = grown
            return True
        if frame.again:
            return False  # decided longer ago than is counted
        self.decided.pop(frame.client, None)
        order = rank(frame.excess_milli, frame.client)
        facts = frame.client_class, frame.level, order, frame.known, frame.others, frame.decided_ms
        self.decided[frame.client] = Decided(*facts)
        self.recent_ms = [*self.recent_ms, frame.decided_ms][-CLOCK_DECISIONS:]
        oldest_ms = self.clock_ms - 2 * HOUR_MS
        while self.decided[first := next(iter(self.decided))].decided_ms < oldest_ms or len(self.decided) > ENTRIES_MAX:
            del self.decided[first]
            if not self.decided:
                break
        return bool(self.decided)
