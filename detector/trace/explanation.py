"""The explanation of one request of a client, as plain values.

The same telling becomes a tree on a terminal, JSON, and a part of the report. Nothing is decided here, and of inputs
nothing stands in it but which fields changed and by how many standard units.
"""

import math

import msgspec
import numpy as np

from detector.events.encode import moment, rfc3339
from detector.events.escape import printable
from detector.events.finding import LEVELS, Provenance
from detector.events.wording import explain, phrase
from detector.evidence import PROCESSES
from detector.trace.trace import DecisionAt, Trace
from models.artefacts.certificate import BUDGETS
from models.artefacts.store import ModelArtefact
from models.kernels.fold.fold import OFF
from models.kernels.layout import COUNTS
from models.kernels.numbers import NEVER, size_bucket
from models.rows import (
    F64,
    FLAG_AHEAD,
    FLAG_EXPLAIN,
    FLAG_MEMBER,
    FLAG_REFUSED,
    FLAG_UNJUDGED,
    FLAG_UNKNOWN_MODEL,
    FLAG_UNREADABLE,
    I64,
    UNIT,
    class_of,
)

STEPS_BEFORE = 12
NEAREST_TOLD = 5
CURVE_POINTS = 40
VARIED_TOLD = 12
VARIED_ROWS = 2_000
NAMED = 6
FLAG_WORDS = (
    (FLAG_REFUSED, "refused"),
    (FLAG_EXPLAIN, "explanation asked for"),
    (FLAG_MEMBER, "training record"),
    (FLAG_UNREADABLE, "not read in full"),
    (FLAG_UNJUDGED, "no usable input"),
    (FLAG_UNKNOWN_MODEL, "unknown model"),
    (FLAG_AHEAD, "time ahead of the broker's"),
)


class ExplainedRow(msgspec.Struct, frozen=True):
    """One row. statistic : tail lengths, null where nothing is known yet. nearest : of the earlier row that differs
    least, null for a first one; distance : to it, standard units; changed : fields that differ from it. marks : what
    else is said of it in words."""

    rows_seen: int
    time: str
    source: str
    offset: int
    index: int
    request_id: str
    label: str
    score: float | None
    margin: float | None
    novelty: float | None
    cell: int | None
    statistic: float | None
    nearest: str | None
    nearest_rows_seen: int | None
    distance: float | None
    changed: tuple[str, ...]
    flipped: bool
    repeat: bool
    marks: tuple[str, ...]


class Near(msgspec.Struct, frozen=True):
    """An earlier row against the explained one. changed : fields that differ. distance : standard units."""

    rows_seen: int
    time: str
    request_id: str
    label: str
    score: float | None
    changed: int
    distance: float


class Ground(msgspec.Struct, frozen=True):
    """One process. evidence, needed : in `unit`; needed is what it alone would need for the explained level. excess :
    beyond ordinary clients' own, tail lengths; curve : of the last rows up to this one."""

    process: str
    detector: str
    meaning: str
    unit: str
    evidence: float
    needed: float
    excess: float
    leads: bool
    curve: tuple[float | None, ...]


class Ruling(msgspec.Struct, frozen=True):
    """One decision, with the sentences of its alert. row : place of the row among the story's, -1 for none."""

    row: int
    rows_seen: int
    time: str
    level: int
    level_name: str
    action: str
    mode: str
    reason: str
    process: str
    until: str
    held_s: float
    statistic: float
    threshold: float
    incident: str
    title: str
    seen: str
    evidence: str
    against: str
    promise: str
    decision: str
    by_feature: dict[str, float]


class Varied(msgspec.Struct, frozen=True):
    """A field over all rows. rows : in how many it differed from the nearest earlier row. values : distinct ones.
    low, high : the range it covered, in standard units from the population's middle."""

    field: str
    rows: int
    values: int
    low: float
    high: float


class Promise(msgspec.Struct, frozen=True):
    """What is promised of the explained level. promised : share of ordinary clients a day, null for nothing. clients :
    of this class on that day, null where nobody counted; expected : how many of them are expected to be alarmed."""

    certificate: str
    level_name: str
    budget: float
    promised: float | None
    certified: bool
    clients: int | None
    expected: float | None


class Telling(msgspec.Struct, frozen=True):
    """About one row of a client. before : the rows up to it, oldest first."""

    client: str
    model: str
    space: str
    client_class: str
    rows: int
    first: str
    last: str
    at: ExplainedRow
    before: tuple[ExplainedRow, ...]
    nearest: tuple[Near, ...]
    grounds: tuple[Ground, ...]
    rulings: tuple[Ruling, ...]
    orders: tuple[str, ...]
    varied: tuple[Varied, ...]
    promise: Promise
    thresholds: dict[str, float]
    config_hash: str
    artefact_hash: str
    engine_version: str


def tell(story: Trace, artefact: ModelArtefact, row: int, provenance: Provenance, clients: int | None) -> Telling:
    """About a row, by its place in the story; -1 for where its last decision fell, or else its last row.

    clients : of its class on its day, None if nobody counted.
    """
    ruled = [fallen for fallen in story.findings if fallen.at >= 0]
    if row < 0:
        row = ruled[-1].at if ruled else story.rows.count - 1
    level = max([fallen.finding.decision.level for fallen in ruled if fallen.at == row], default=3) or 3
    return Telling(
        client=story.client,
        model=story.model,
        space=story.space,
        client_class=story.client_class,
        rows=story.rows.count,
        first=when(int(story.rows.time_ms.min())),
        last=when(int(story.rows.time_ms.max())),
        at=step(story, artefact, row),
        before=tuple(step(story, artefact, at) for at in range(max(0, row - STEPS_BEFORE), row)),
        nearest=_nearest(story, artefact, row),
        grounds=grounds(story, row, level),
        rulings=tuple(decision_view(story, fallen) for fallen in story.findings),
        orders=tuple(_order(order.frame.action, order.frame.until_ms, order.frame.reason) for order in story.orders),
        varied=varied(story, artefact),
        promise=_promise(story, artefact, row, level, clients),
        thresholds={name: story.thresholds[number] / 1000 for number, name in enumerate(LEVELS[1:], 1)},
        **provenance._asdict(),
    )


def when(time_ms: int) -> str:
    """RFC 3339, UTC, to the millisecond."""
    return rfc3339(moment(time_ms))


def step(story: Trace, artefact: ModelArtefact, row: int) -> ExplainedRow:
    found = story.moment(row)
    before = story.moment(found.nearest) if found.nearest is not None else None
    repeat = before is not None and bool(story.rows.exact[before.number] == story.rows.exact[row])
    words = tuple(word for flag, word in FLAG_WORDS if found.flags & flag)
    return ExplainedRow(
        rows_seen=found.rows_seen,
        time=when(found.time_ms),
        source=printable(found.source),
        offset=found.offset,
        index=found.index,
        request_id=printable(found.request_id),
        label=label_of(artefact, found.label),
        score=_figure(found.score),
        margin=_figure(found.margin),
        novelty=_figure(found.novelty),
        cell=found.cell or None,
        statistic=found.statistic / 1000 if found.statistic > NEVER else None,
        nearest=printable(before.request_id) if before else None,
        nearest_rows_seen=before.rows_seen if before else None,
        distance=round(found.distance, 4) if before else None,
        changed=tuple(map(printable, found.changed)),
        flipped=before is not None and 0 not in (before.label, found.label) and before.label != found.label,
        repeat=repeat,
        marks=(*words, *_off_grid(story, row)),
    )


def _off_grid(story: Trace, row: int) -> tuple[str, ...]:
    bits = int(story.rows.offgrid[row])
    names = [name for i, name in enumerate(story.field_names) if bits >> min(i, 31) & 1]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return (f"off the grid: {', '.join(map(printable, names[:NAMED]))}{more}",) if names else ()


def label_of(artefact: ModelArtefact, label: int) -> str:
    return printable(artefact.labels.get(label, f"label #{label:08x}")) if label else ""


def _figure(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else round(number, 6)


def nearest_rows(story: Trace, row: int) -> list[int]:
    """Earlier rows that a row differs least from, each input once; the least different first."""
    differ, apart = story.apart(row)
    found: dict[int, int] = {}
    for place in np.lexsort((apart, differ)):
        at = row - len(differ) + int(place)
        if len(found) == NEAREST_TOLD:
            break
        found.setdefault(int(story.rows.exact[at]), at)
    return list(found.values())


def _nearest(story: Trace, artefact: ModelArtefact, row: int) -> tuple[Near, ...]:
    differ, apart = story.apart(row)
    first = row - len(differ)
    return tuple(
        Near(
            rows_seen=int(story.rows_seen[at]),
            time=when(int(story.rows.time_ms[at])),
            request_id=printable(story.rows.request_id(at)),
            label=label_of(artefact, int(story.rows.output[at])),
            score=_figure(float(story.rows.score[at])),
            changed=int(differ[at - first]),
            distance=round(math.sqrt(int(apart[at - first])) / UNIT, 4),
        )
        for at in nearest_rows(story, row)
    )


def needed(story: Trace, row: int, level: int) -> F64:
    """(processes,) evidence at which each alone would reach a level, at the client's activity then; NaN for none."""
    client_class = class_of(story.rows.client_class[row])
    growth = np.full(len(PROCESSES), int(story.nulls.growth[client_class, size_bucket(int(story.rows_today[row]))]))
    growth[len(PROCESSES) - len(COUNTS) :] = 0
    scale = story.nulls.tail_scale[client_class].astype(np.float64)
    alone = story.nulls.tail[client_class] + (story.thresholds[level] + growth) * scale / 1000.0
    return np.where(scale > 0, alone, np.nan)


def grounds(story: Trace, row: int, level: int) -> tuple[Ground, ...]:
    """Every process in use, the leading one first."""
    excess, alone = story.excess, needed(story, row, level)
    first = max(0, row + 1 - CURVE_POINTS)
    lead = int(excess[row].argmax())
    order = np.argsort(-excess[row], kind="stable")
    return tuple(
        Ground(
            process=PROCESSES[p].name,
            detector=PROCESSES[p].detector,
            meaning=meaning(p),
            unit=PROCESSES[p].unit,
            evidence=int(story.evidence[row, p]) / 1000,
            needed=round(float(alone[p]) / 1000, 3),
            excess=int(excess[row, p]) / 1000,
            leads=p == lead,
            curve=curve(excess[first : row + 1, p]),
        )
        for p in order.tolist()
        if excess[row, p] != OFF
    )


def curve(excess: I64) -> tuple[float | None, ...]:
    """Tail lengths; None where a process has seen nothing."""
    return tuple(None if value <= NEVER else int(value) / 1000 for value in excess.tolist())


def meaning(process: int) -> str:
    """What a process bets on, in words."""
    about = PROCESSES[process]
    return about.meaning or phrase(about.feature)


def decision_view(story: Trace, fallen: DecisionAt) -> Ruling:
    finding, words = fallen.finding, explain(fallen.finding)
    decision = finding.decision
    return Ruling(
        row=fallen.at,
        rows_seen=finding.trigger.rows_seen,
        time=when(decision.issued_ms),
        level=decision.level,
        level_name=LEVELS[decision.level],
        action=decision.action,
        mode=decision.mode,
        reason=finding.reason,
        process=finding.process,
        until=when(decision.expires_ms),
        held_s=(decision.expires_ms - decision.issued_ms) / 1000,
        statistic=finding.excess_milli / 1000,
        threshold=finding.threshold_milli / 1000,
        incident=finding.incident,
        title=words.title,
        seen=words.seen,
        evidence=words.evidence,
        against=words.threshold,
        promise=words.budget,
        decision=words.decision,
        by_feature={phrase(name): milli / 1000 for name, milli in finding.contributions},
    )


def _order(action: str, until_ms: int, reason: str) -> str:
    until = f" until {when(until_ms)}" if action != "lift" and until_ms else ""
    return printable(f"{action}{until}{f': {reason}' if reason else ''}")


def varied(story: Trace, artefact: ModelArtefact) -> tuple[Varied, ...]:
    """Fields that took more than one value among the last VARIED_ROWS, the busiest first."""
    last = range(max(0, story.rows.count - VARIED_ROWS), story.rows.count)
    if not story.field_names:
        return ()
    fields = story.rows.fields[last.start :]
    units = artefact.encoder.standard(story.rows.values[last.start :])
    pairs = [(row, near) for row in last if (near := story.nearest(row)[0]) >= 0]
    rows, nearest = np.array(pairs, np.int64).reshape(-1, 2).T
    changes = (story.rows.fields[rows] != story.rows.fields[nearest]).sum(axis=0)
    found = [
        Varied(
            field=printable(name),
            rows=int(changes[i]),
            values=len(np.unique(fields[:, i])),
            low=round(float(units[:, i].min()), 3),
            high=round(float(units[:, i].max()), 3),
        )
        for i, name in enumerate(story.field_names)
    ]
    moved = [field for field in found if field.values > 1]
    return tuple(sorted(moved, key=lambda field: (-field.rows, -field.values, field.field))[:VARIED_TOLD])


def _promise(story: Trace, artefact: ModelArtefact, row: int, level: int, clients: int | None) -> Promise:
    client_class = class_of(story.rows.client_class[row])
    share = float(artefact.reference.promised[client_class, level])
    promised = share if share < 1 else None
    return Promise(
        certificate=artefact.certificate,
        level_name=LEVELS[level],
        budget=BUDGETS[level],
        promised=promised,
        certified=bool(artefact.reference.certified[client_class, level]),
        clients=clients,
        expected=None if clients is None or promised is None else round(clients * promised, 6),
    )
