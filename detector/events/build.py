"""What stood in a client's state at the moment of a decision, read out for people."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from detector.events.finding import (
    PERSON,
    Counts,
    Decision,
    Family,
    FieldVariation,
    Finding,
    Provenance,
    Subject,
)
from detector.evidence import PROCESSES, Process
from detector.frame import ControlFrame, RowFrame
from detector.policy import DAY_MS, ClientStanding, begins_ms, decide
from detector.policy import lifted as lift
from detector.settings import Policy
from models.artefacts.certificate import BUDGETS
from models.artefacts.store import ModelArtefact
from models.client_table import ClientTable
from models.hashes import short_hash
from models.kernels.fold.fold import threshold_offset
from models.kernels.layout import (
    COUNTS,
    FEATURES,
    LEAD_ANCHOR,
    LEAD_EVIDENCE,
    LEAD_PROCESS,
    RAISED_LEVEL,
    SLOT,
    STATISTIC,
    Nulls,
)
from models.kernels.numbers import size_bucket
from models.pseudonym import pseudonym
from models.rows import CLASSES, I64, class_of
from probewatch_door.record import Position

FIELDS_NAMED = 8
ALERT_LEVEL = 3


def decided(
    policy: Policy,
    provenance: Provenance,
    artefact: ModelArtefact,
    nulls: Nulls,
    table: ClientTable,
    frame: RowFrame,
    row: int,
    verdict: I64,
    kept_back: bool = False,
) -> Finding:
    """Decide on the client whose row crossed a level, remember the decision, and tell all about it.

    verdict : (7,) as the fold left it at `row`. kept_back : by an open breaker.
    """
    rows, client = frame.rows, table.table.clients[int(verdict[SLOT])]
    process, level = PROCESSES[int(verdict[LEAD_PROCESS])], int(verdict[RAISED_LEVEL])
    client_class = class_of(rows.client_class[row])
    before = standing(client)
    now = begins_ms(int(client["clock_ms"]), int(rows.append_ms[row]))
    decision, after = decide(policy, before, level, process.detector, now, int(client["key"]), kept_back=kept_back)
    update = _open_incident(client, before, now, rows.source[row], rows.offset[row], rows.index[row], level)
    remember(client, after)
    threshold = int(nulls.thresholds[client_class, level]) + threshold_offset(client["key"])
    excess = int(verdict[STATISTIC])
    anchor = _anchor(table, client, int(verdict[LEAD_ANCHOR]))
    evidence = int(verdict[LEAD_EVIDENCE])
    return Finding(
        decision=decision,
        trigger=Position(
            frame.source_of(row), int(rows.offset[row]), int(rows.index[row]), rows.request_id(row), int(client["rows"])
        ),
        client=name_of(frame, row),
        client_key=int(client["key"]),
        client_class=CLASSES[client_class],
        model=frame.model,
        space=frame.space,
        reason=process.detector,
        process=process.name,
        evidence_mnats=evidence,
        threshold_mnats=_threshold_mnats(nulls, client_class, int(verdict[LEAD_PROCESS]), threshold, client),
        excess_milli=excess,
        threshold_milli=threshold,
        budget=BUDGETS[level],
        certified=bool(artefact.reference.certified[client_class, level]),
        certificate=artefact.certificate,
        promised=float(artefact.reference.promised[client_class, level]),
        contributions=_contributions(table, process, anchor, evidence),
        family=_family(table, artefact, anchor) if anchor >= 0 else None,
        counts=_counts(client, artefact),
        incident=incident_of(frame.space, client),
        update=update,
        **provenance._asdict(),
    )


def lifted(
    provenance: Provenance, artefact: ModelArtefact, table: ClientTable, frame: ControlFrame, slot: int
) -> Finding | None:
    """The record that takes a decision back; None if none was ever made."""
    client = table.table.clients[slot]
    before = standing(client)
    if before.revision == 0:
        return None
    decision, after = lift(before, int(client["clock_ms"]))
    remember(client, after)
    subject = Subject(artefact.model, artefact.space, incident_of(artefact.space, client), int(client["rows"]))
    return replace(ordered(provenance, frame, decision, subject), counts=_counts(client, artefact), origin="judge")


def ordered(provenance: Provenance, frame: ControlFrame, decision: Decision, subject: Subject) -> Finding:
    """What a person decided."""
    return Finding(
        decision=decision,
        trigger=Position(f"requests[{frame.partition}]", frame.offset, 0, "", subject.rows),
        client=frame.name,
        client_key=frame.client,
        client_class=CLASSES[0],
        model=subject.model,
        space=subject.space,
        reason=PERSON,
        process=PERSON,
        evidence_mnats=0,
        threshold_mnats=0,
        excess_milli=0,
        threshold_milli=0,
        budget=BUDGETS[0],
        certified=False,
        certificate="",
        promised=BUDGETS[0],
        contributions=(),
        family=None,
        counts=Counts(subject.rows, 0, 0, 0, 0, (), 0),
        incident=subject.incident,
        update=True,
        origin=PERSON,
        **provenance._asdict(),
    )


def standing(client: Any) -> ClientStanding:
    """What was decided before, from a record of the client table."""
    return ClientStanding(
        int(client["level"]),
        int(client["revision"]),
        int(client["doublings"]),
        int(client["expires_ms"]),
        int(client["decided_ms"]),
    )


def remember(client: Any, after: ClientStanding) -> None:
    client["level"], client["revision"], client["doublings"] = after.level, after.revision, after.doublings
    client["expires_ms"], client["decided_ms"] = after.expires_ms, after.decided_ms


def _open_incident(
    client: Any, before: ClientStanding, now: int, source: int, offset: int, index: int, level: int
) -> bool:
    """True if this decision's alert updates an open incident; a day after the last decision ran out a new one opens."""
    if before.revision == 0 or now >= before.expires_ms + DAY_MS:
        client["incident_source"], client["incident_offset"], client["incident_index"] = source, offset, index
        client["alerts"] = 0
    update = bool(client["alerts"] > 0)
    if level >= ALERT_LEVEL:
        client["alerts"] += 1
    return update


def incident_of(space: str, client: Any) -> str:
    """The id of the client's latest incident in a space."""
    where = f"{int(client['incident_source'])}:{int(client['incident_offset'])}:{int(client['incident_index'])}"
    return short_hash(f"{space}:{int(client['key'])}:{where}".encode(), 32)


def name_of(frame: RowFrame, row: int) -> str:
    """The pseudonym of a row's client, or its plain name where a replay gave one."""
    key = int(frame.rows.client[row])
    return frame.names.get(key) or pseudonym(frame.key_id, key, frame.rows.client_tail[row].tobytes())


def _anchor(table: ClientTable, client: Any, lead: int) -> int:
    """Position of the family to tell about: the leading one, else the client's largest, else -1."""
    start, count = int(client["anchor_start"]), int(client["anchor_count"])
    if lead >= 0:
        return start + lead
    if count == 0:
        return -1
    return start + int(np.argmax(table.table.anchors["variants"][start : start + count]))


def _threshold_mnats(nulls: Nulls, client_class: int, process: int, threshold: int, client: Any) -> int:
    """Evidence at which this process alone would reach the threshold, at the client's present activity."""
    counts = process >= len(PROCESSES) - len(COUNTS)
    growth = 0 if counts else int(nulls.growth[client_class, size_bucket(int(client["rows_today"]))])
    return (
        int(nulls.tail[client_class, process])
        + (threshold + growth) * int(nulls.tail_scale[client_class, process]) // 1000
    )


def _contributions(table: ClientTable, process: Process, anchor: int, evidence: int) -> tuple[tuple[str, int], ...]:
    if process.profile >= 0 and anchor >= 0:
        parts = table.table.parts[anchor, process.profile].tolist()
        named = sorted(zip(FEATURES, parts, strict=True), key=lambda part: (-part[1], part[0]))
        return tuple((name, int(value)) for name, value in named if value != 0)
    return ((process.feature, evidence),)


def _family(table: ClientTable, artefact: ModelArtefact, anchor: int) -> Family:
    arrays = table.table
    family = arrays.anchors[anchor]
    varied = [
        FieldVariation(name, int(arrays.changed[anchor, i]), _distinct(int(arrays.seen[anchor, i])))
        for i, name in enumerate(artefact.encoder.field_names)
        if arrays.changed[anchor, i] > 0
    ]
    varied.sort(key=lambda field: (-field.distinct_values, -field.changed_rows, field.name))
    labels = [(_label(artefact, int(family["label_a"])), int(family["rows_a"]))]
    labels += [(_label(artefact, int(family["label_b"])), int(family["rows_b"]))] if family["label_b"] else []
    labels += [("other", int(family["rows_other"]))] if family["rows_other"] else []
    ids = [bytes(arrays.anchor_ids[anchor, i]).rstrip(b"\0").decode("utf-8", "replace") for i in (1, 0)]
    return Family(
        variants=int(family["variants"]),
        fields=tuple(varied[:FIELDS_NAMED]),
        labels=tuple(sorted(labels, key=lambda pair: (-pair[1], pair[0]))) if family["label_a"] else (),
        flips=int(family["flips"]),
        first_ms=int(family["first_ms"]),
        last_ms=int(family["last_ms"]),
        nearest_request_ids=tuple(dict.fromkeys(name for name in ids if name)),
    )


def _distinct(bits: int) -> int:
    """Number of values behind set bits out of 64, by linear counting (Whang et al. 1990)."""
    zeros = 64 - bits.bit_count()
    return round(-64.0 * math.log(max(zeros, 1) / 64.0)) if zeros < 64 else 0


def _label(artefact: ModelArtefact, label: int) -> str:
    return artefact.labels.get(label, f"label #{label:08x}") if label else "no label"


def _counts(client: Any, artefact: ModelArtefact) -> Counts:
    names = artefact.encoder.field_names
    bits = int(client["offgrid_fields"])
    return Counts(
        rows=int(client["rows"]),
        distinct=int(client["distinct"]),
        repeats=int(client["repeats"]),
        variants=int(client["variants"]),
        offgrid_rows=int(client["offgrid_rows"]),
        offgrid_fields=tuple(name for i, name in enumerate(names[: FIELDS_NAMED * 8]) if bits >> min(i, 31) & 1)[
            :FIELDS_NAMED
        ],
        low_margin_rows=int(client["low_margin_rows"]),
        member_rows=int(client["member_rows"]),
        explained_rows=int(client["explained_rows"]),
        unreadable_rows=int(client["unreadable_rows"]),
        unjudged_rows=int(client["unjudged_rows"]),
        cells=int(client["cells"]).bit_count(),
    )
