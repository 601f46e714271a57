"""From a level that was reached to a graded, expiring decision.

Time is the client's own clock, or the broker's where that is later (`begins_ms`): a decision about a client whose
gateway's clock runs behind would otherwise have run out before it is written.
"""

from dataclasses import dataclass

from detector.events.finding import LEVELS, Decision
from detector.settings import LevelSettings, Policy

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
DOUBLINGS_MAX = 6


@dataclass(frozen=True, slots=True)
class ClientStanding:
    """What was decided about a client before. expires_ms, decided_ms : 0 for never."""

    level: int
    revision: int
    doublings: int
    expires_ms: int
    decided_ms: int


def begins_ms(clock_ms: int, append_ms: int) -> int:
    """What a decision begins at. append_ms : of the row that calls for it, 0 if unknown."""
    return max(clock_ms, append_ms)


def decide(
    policy: Policy,
    standing: ClientStanding,
    level: int,
    detector: str,
    now_ms: int,
    client: int,
    *,
    kept_back: bool = False,
) -> tuple[Decision, ClientStanding]:
    """The decision for a client whose evidence has reached `level` (1 to 4), and its new standing.

    A client decided on again within 24 h of that time, after the last decision ran out, is held twice as long.
    Level 4 proposes a block to a person; until somebody confirms it, doors keep to the limits of level 3.
    kept_back : by an open breaker. It stays in shadow, for an hour at most, after which the client is decided on again
    by the evidence of then; that counts as no repetition.
    """
    settings: LevelSettings = getattr(policy, LEVELS[level])
    limits = policy.hard if settings.action == "block" else settings
    again = standing.expires_ms <= now_ms < standing.decided_ms + DAY_MS and standing.revision > 0
    in_force = now_ms < standing.expires_ms
    doublings = standing.doublings if in_force or again else 0
    doublings = min(DOUBLINGS_MAX, doublings + (again and not kept_back))
    revision = standing.revision + 1
    duration_ms = settings.duration_s * 1000 << doublings
    expires_ms = now_ms + (min(duration_ms, HOUR_MS) if kept_back else duration_ms)
    decision = Decision(
        level=level,
        revision=revision,
        action=limits.action,
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=None,
        max_concurrency=None,
        delay_ms=limits.delay_ms,
        mode="shadow" if kept_back or detector in policy.shadow_detectors else policy.mode,
        issued_ms=now_ms,
        effective_ms=now_ms + keyed_delay_ms(client, revision, policy.decision_delay_ms_max),
        expires_ms=expires_ms,
    )
    return decision, ClientStanding(level, revision, doublings, expires_ms, now_ms)


def keyed_delay_ms(client: int, revision: int, longest_ms: int) -> int:
    """0 to `longest_ms`, the same in every replay; `client` is a keyed hash, so nobody outside can compute it."""
    mixed = (client ^ (revision * 0x9E3779B97F4A7C15)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    return (mixed >> 33) % (longest_ms + 1)


def blocked(revision: int, given_ms: int, until_ms: int) -> Decision:
    """A person blocks a client. This holds in shadow mode too, which withholds only decisions of the service."""
    return Decision(
        level=len(LEVELS) - 1, revision=revision, action="block", requests_per_minute=None, tokens_per_minute=None,
        max_concurrency=None, delay_ms=None, mode="enforce", issued_ms=given_ms, effective_ms=given_ms,
        expires_ms=until_ms,
    )  # fmt: skip


def lifted(standing: ClientStanding, clock_ms: int) -> tuple[Decision, ClientStanding]:
    """A person took the decision back: doors let the client through from now on."""
    revision = standing.revision + 1
    decision = Decision(
        level=0, revision=revision, action="lift", requests_per_minute=None, tokens_per_minute=None,
        max_concurrency=None, delay_ms=None, mode="enforce", issued_ms=clock_ms, effective_ms=clock_ms,
        expires_ms=max(standing.expires_ms, clock_ms + DAY_MS),
    )  # fmt: skip
    return decision, ClientStanding(0, revision, 0, 0, standing.decided_ms)
