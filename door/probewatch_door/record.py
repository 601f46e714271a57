"""The throttle record (docs/formats/throttle.md), and the one order of its actions."""

from datetime import datetime
from typing import Annotated, Literal, get_args

import msgspec

Time = Annotated[datetime, msgspec.Meta(tz=True)]

PolicyAction = Literal["observe", "delay", "cap", "challenge", "block"]
"""What a policy may ask of gateways, mildest first."""

Action = Literal["lift", PolicyAction]

ACTIONS: tuple[Action, ...] = get_args(Action)
"""Mildest first: the order of strictness."""

LIMITING: tuple[Action, ...] = ACTIONS[ACTIONS.index("delay") :]
"""Actions that hold a client back. `observe` and `lift` do not."""


class Limits(msgspec.Struct, frozen=True):
    """null : not limited."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    max_concurrency: int | None
    delay_ms: int | None


class Position(msgspec.Struct, frozen=True):
    """The row of a decision: raw partition "topic[3]", offset of the record, index in it.

    rows_seen : the client's rows in this space so far, this one included.
    """

    source: str
    offset: int
    index: int
    request_id: str
    rows_seen: int


class Throttle(msgspec.Struct, frozen=True, kw_only=True):
    """Schema probewatch.throttle/1, fields in the order of docs/formats/throttle.md. Unknown fields are ignored."""

    schema: Literal["probewatch.throttle/1"] = "probewatch.throttle/1"
    decision_id: str
    revision: int
    scope: Literal["client", "lineage"]
    client: str
    model: str
    origin: Literal["judge", "link", "person"]
    action: Action
    level: int
    limits: Limits
    mode: Literal["shadow", "enforce"]
    reason: str
    evidence_nats: float
    threshold_nats: float
    budget: float
    certified: bool
    certificate: str = ""
    issued_at: Time
    effective_at: Time
    expires_at: Time
    finding_uid: str
    trigger: Position
    config_hash: str
    artefact_hash: str
    engine_version: str
    replay: bool = False

    @property
    def key(self) -> str:
        """The key in the compacted topic: each origin has its own."""
        return f"{self.scope}:{self.client}:{self.model}:{self.origin}"
