"""Everything an alert or a throttle record says, before it becomes bytes."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from probewatch_door.record import Position

LEVELS = ("none", "watch", "soft", "hard", "block")
"""The ladder: budgets 1e-2, 1e-3, 1e-4, 1e-5 false alarms per benign client-day for levels 1 to 4."""

PERSON = "person"
"""Reason, process and origin of what people decided."""


class Provenance(NamedTuple):
    """What decisions are made with; it stands in every event. Known beforehand: to hash takes as long as to decide."""

    config_hash: str
    artefact_hash: str
    engine_version: str


class Subject(NamedTuple):
    """Whom a person's order is about. model, space : "" for every one. rows : of the client up to then."""

    model: str
    space: str
    incident: str
    rows: int


@dataclass(frozen=True, slots=True)
class FieldVariation:
    """One field inside one family: in how many variants it changed, and about how many values it took."""

    name: str
    changed_rows: int
    distinct_values: int


@dataclass(frozen=True, slots=True)
class Family:
    """The near-duplicates around one anchor. labels: (label or "label #hash", rows), most frequent first."""

    variants: int
    fields: tuple[FieldVariation, ...]
    labels: tuple[tuple[str, int], ...]
    flips: int
    first_ms: int
    last_ms: int
    nearest_request_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """What the client did in this space so far, on its own clock. cells : of the population's space visited."""

    rows: int
    distinct: int
    repeats: int
    variants: int
    offgrid_rows: int
    offgrid_fields: tuple[str, ...]
    low_margin_rows: int
    member_rows: int = 0
    explained_rows: int = 0
    unreadable_rows: int = 0
    unjudged_rows: int = 0
    cells: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """One graded, expiring decision.

    action : observe | delay | cap | challenge | block | lift. None limits are not set.
    """

    level: int
    revision: int
    action: str
    requests_per_minute: int | None
    tokens_per_minute: int | None
    max_concurrency: int | None
    delay_ms: int | None
    mode: str  # shadow | enforce
    issued_ms: int
    effective_ms: int
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Finding:
    """A decision and its grounds. Evidence in milli-nats; excess in thousandths of a benign tail length (z).

    contributions : (feature, milli-nats) inside the leading profile since its last start, largest first.
    certificate : id of the one behind the threshold, "" for none; certified : it promises `budget` itself; promised :
    what it promises at this threshold, 1 for nothing. incident : id of the open incident; update : it was open before
    this decision. origin : judge | person; each speaks under a key of its own.
    """

    decision: Decision
    trigger: Position
    client: str
    client_key: int
    client_class: str
    model: str
    space: str
    reason: str  # detector name
    process: str  # leading process
    evidence_mnats: int
    threshold_mnats: int
    excess_milli: int
    threshold_milli: int
    budget: float
    certified: bool
    certificate: str
    promised: float
    contributions: tuple[tuple[str, int], ...]
    family: Family | None
    counts: Counts
    incident: str
    update: bool
    config_hash: str
    artefact_hash: str
    engine_version: str
    origin: str = "judge"


@dataclass(frozen=True, slots=True)
class Event:
    """Bytes for one topic, and the facts in them that code of ours needs, so that nobody decodes `value` for those."""

    kind: Literal["throttle", "alert", "drift"]
    id: str  # of a throttle record its decision, of an alert its uid
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]  # of alerts: CloudEvents in binary mode
    client_key: int  # 0 where the event is about a model
    time_ms: int
    model: str
    detector: str  # or "person", "drift"
    level: int  # 0 to 4; 0 for drift
    certified: bool
    incident: str  # finding_info.uid; drift_id
    position: Position | None  # None where the event is about a model
