"""Findings for tests: one that reads like life, and a strategy for any."""

from dataclasses import replace
from typing import Any

import msgspec
from hypothesis import strategies as st

from detector.events.finding import Counts, Decision, Family, FieldVariation, Finding
from probewatch_door.record import Position

SWEPT = Family(
    variants=17,
    fields=(FieldVariation("income", 12, 9), FieldVariation("tenure", 5, 4)),
    labels=(("decline", 9), ("accept", 8)),
    flips=6,
    first_ms=1_700_000_000_000,
    last_ms=1_700_000_040_000,
    nearest_request_ids=("req-41", "req-7"),
)
FINDING = Finding(
    decision=Decision(
        level=3, revision=2, action="cap", requests_per_minute=1, tokens_per_minute=None, max_concurrency=None,
        delay_ms=None, mode="enforce", issued_ms=1_700_000_040_123, effective_ms=1_700_000_040_123,
        expires_ms=1_700_003_640_123,
    ),
    trigger=Position("gateway-logs[3]", 18842, 0, "req-42", 21),
    client="k1-abcdefghijklmnopqrstuvwxyz",
    client_key=0xFEDCBA9876543210,
    client_class="consumer",
    model="loan",
    space="loan@0123456789abcdef",
    reason="sweep",
    process="sweeper",
    evidence_mnats=14_200,
    threshold_mnats=11_800,
    excess_milli=6_200,
    threshold_milli=5_900,
    budget=1e-4,
    certified=False,
    certificate="ce27000000000000",
    promised=1 / 1_301,
    contributions=(("edit", 9_100), ("field", 3_000), ("flip", -400)),
    family=SWEPT,
    counts=Counts(rows=21, distinct=20, repeats=1, variants=17, offgrid_rows=0, offgrid_fields=(), low_margin_rows=0),
    incident="0123456789abcdef0123456789abcdef",
    update=False,
    config_hash="c0ffee00c0ffee00",
    artefact_hash="facade00facade00",
    engine_version="0.1.0",
)  # fmt: skip


def finding(**changes: Any) -> Finding:
    """FINDING with other fields; those of the decision and the trigger may be named directly."""
    decision, trigger = (
        {name: changes.pop(name) for name in part.__annotations__ if name in changes} for part in (Decision, Position)
    )
    return replace(
        FINDING,
        decision=replace(FINDING.decision, **decision),
        trigger=msgspec.structs.replace(FINDING.trigger, **trigger),
        **changes,
    )


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
COUNT = st.integers(0, 2**31)
TIME = st.integers(946_684_800_000, 4_102_444_800_000)
MNATS = st.integers(-(2**31), 2**31 - 1)

DECISIONS = st.builds(
    Decision,
    level=st.integers(0, 4),
    revision=st.integers(1, 2**31),
    action=st.sampled_from(["observe", "delay", "cap", "challenge", "block", "lift"]),
    requests_per_minute=st.none() | COUNT,
    tokens_per_minute=st.none() | COUNT,
    max_concurrency=st.none() | COUNT,
    delay_ms=st.none() | COUNT,
    mode=st.sampled_from(["shadow", "enforce"]),
    issued_ms=TIME,
    effective_ms=TIME,
    expires_ms=TIME,
)
FAMILIES = st.builds(
    Family,
    variants=COUNT,
    fields=st.lists(st.builds(FieldVariation, NAME, COUNT, COUNT), max_size=8).map(tuple),
    labels=st.lists(st.tuples(TEXT, COUNT), max_size=3).map(tuple),
    flips=COUNT,
    first_ms=TIME,
    last_ms=TIME,
    nearest_request_ids=st.lists(TEXT, max_size=2).map(tuple),
)
FINDINGS = st.builds(
    Finding,
    decision=DECISIONS,
    trigger=st.builds(Position, NAME, st.integers(0, 2**62), COUNT, TEXT, COUNT),
    client=NAME,
    client_key=st.integers(0, 2**64 - 1),
    client_class=st.sampled_from(["consumer", "broker", "system"]),
    model=NAME,
    space=NAME,
    reason=st.sampled_from(["variants", "boundary", "sweep", "offgrid", "volume", "person"]) | NAME,
    process=NAME,
    evidence_mnats=MNATS,
    threshold_mnats=MNATS,
    excess_milli=MNATS,
    threshold_milli=MNATS,
    budget=st.floats(0, 1),
    certified=st.booleans(),
    certificate=st.text("0123456789abcdef", min_size=16, max_size=16) | st.just(""),
    promised=st.floats(1e-5, 1.0),
    contributions=st.lists(st.tuples(NAME, MNATS), max_size=8).map(tuple),
    family=st.none() | FAMILIES,
    counts=st.builds(
        Counts, COUNT, COUNT, COUNT, COUNT, COUNT, st.lists(NAME, max_size=8).map(tuple), COUNT
    ),
    incident=NAME,
    update=st.booleans(),
    config_hash=TEXT,
    artefact_hash=TEXT,
    engine_version=TEXT,
)  # fmt: skip
