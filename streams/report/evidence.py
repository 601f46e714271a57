"""A client's evidence against the thresholds, and the same of an ordinary client."""

import numpy as np

from detector.events.finding import LEVELS
from detector.evidence import PROCESSES
from detector.trace.explanation import meaning, when
from detector.trace.trace import Trace
from models.kernels.fold.fold import OFF
from models.kernels.numbers import NEVER
from streams.report import plots
from streams.report.plots import (
    FLOOR,
    Json,
    PlotFigure,
    ReportTable,
    TracedClient,
    decided,
    flips_of,
    highest_score,
    rounded,
    scores,
    shown,
    text,
    thresholds_of,
    top_of,
)

PROCESSES_SHOWN = 4
_KINDS = (
    "requests",
    "distinct inputs",
    "flips of the answer",
    "highest score, tail lengths",
    "median distance to the nearest earlier input, standard units",
)


def evidence(subject: TracedClient) -> PlotFigure:
    """The leading processes, all in the unit of the thresholds."""
    trace = subject.trace
    rows, excess = shown(trace), np.where(trace.excess <= NEVER, np.nan, trace.excess / 1000)
    seen = trace.rows_seen[rows].tolist()
    leading = _leading(trace)
    data = [
        plots.line(meaning(p), seen, rounded(np.maximum(excess[rows, p], FLOOR)), number)
        for number, p in enumerate(leading)
    ]
    data += _decisions(trace)
    top = top_of(trace)
    shapes, names = plots.threshold_lines(thresholds_of(trace), top * 1.05)
    return PlotFigure(
        id=f"evidence-{subject.id}",
        caption=_evidence_caption(trace),
        how="Distance of the leading evidence from that of ordinary clients; thresholds dashed. Curves may be cut off.",
        data=data,
        layout=plots.layout(
            plots.axis("request of this client (number)", rangemode="tozero"),
            plots.axis("evidence (tail lengths)", range=[FLOOR, top * 1.12]),
            shapes=shapes,
            annotations=names,
        ),
        table=ReportTable(
            ("request", "time", "score", *(PROCESSES[p].name for p in leading)),
            [
                (
                    f"{trace.rows_seen[row]:,}",
                    when(int(trace.rows.time_ms[row])),
                    text(scores(trace)[row]),
                    *(text(excess[row, p]) for p in leading),
                )
                for row in plots.some(range(trace.rows.count), plots.TABLE_ROWS, decided(trace))
            ],
        ),
        wide=True,
    )


def _leading(trace: Trace) -> list[int]:
    """Processes that led at a decision, then those that reached the highest evidence."""
    led = [int(trace.excess[row].argmax()) for row in decided(trace)]
    most = np.where((trace.excess > OFF).any(axis=0), trace.excess.max(axis=0), OFF)
    ranked = [p for p in np.argsort(-most, kind="stable").tolist() if most[p] > 0]
    return list(dict.fromkeys([*reversed(led), *ranked]))[:PROCESSES_SHOWN]


def _evidence_caption(trace: Trace) -> str:
    findings = [one for one in trace.findings if one.at >= 0]
    if not findings:
        return f"No threshold is crossed in {trace.rows.count:,} requests"
    last = max(findings, key=lambda one: one.finding.decision.level)
    level, row = LEVELS[last.finding.decision.level], int(trace.rows_seen[last.at])
    looked_for = meaning(int(trace.excess[last.at].argmax())).removesuffix(", all families")
    return f"Evidence of {looked_for} crosses the threshold “{level}” at request {row:,}"


def _decisions(trace: Trace) -> list[Json]:
    marks = []
    for level, name in enumerate(LEVELS[1:], 1):
        own = [one for one in trace.findings if one.at >= 0 and one.finding.decision.level == level]
        if own:
            x = [int(trace.rows_seen[one.at]) for one in own]
            y = [one.finding.excess_milli / 1000 for one in own]
            marks.append(
                plots.markers(
                    f"decision: {name}",
                    x,
                    y,
                    plots.LEVEL_COLOURS[level],
                    plots.LEVEL_SYMBOLS[level],
                    marker={"size": 13},
                )
            )
    return marks


def comparison(subject: TracedClient, neighbour: Trace) -> PlotFigure:
    """The scores of both clients against the same thresholds."""
    trace = subject.trace
    mine, theirs = shown(trace), shown(neighbour)
    top = top_of(trace)
    shapes, names = plots.threshold_lines(thresholds_of(trace), top * 1.05)
    return PlotFigure(
        id=f"comparison-{subject.id}",
        caption=(
            f"An ordinary client with {neighbour.rows.count:,} requests stays at"
            f" {text(highest_score(neighbour))}; this client reaches {text(highest_score(trace))}"
        ),
        how="The score over all evidence after each request, of this client and of one without any decision.",
        data=[
            plots.line(
                "this client", trace.rows_seen[mine].tolist(), rounded(np.maximum(scores(trace)[mine], FLOOR)), 1
            ),
            plots.line(
                "an ordinary client",
                neighbour.rows_seen[theirs].tolist(),
                rounded(np.maximum(scores(neighbour)[theirs], FLOOR)),
                0,
            ),
        ],
        layout=plots.layout(
            plots.axis("request of the client (number)", rangemode="tozero"),
            plots.axis("score (tail lengths)", range=[FLOOR, top * 1.12]),
            shapes=shapes,
            annotations=names,
        ),
        table=ReportTable(
            ("", "this client", "an ordinary client"),
            [
                (name, mine, theirs)
                for name, mine, theirs in zip(_KINDS, _counts(trace), _counts(neighbour), strict=True)
            ],
        ),
    )


def _counts(trace: Trace) -> tuple[str, ...]:
    rows = [row for row in shown(trace) if row > 0]
    apart = float(np.median([trace.moment(row).distance for row in rows])) if rows else float("nan")
    distinct = len(np.unique(trace.rows.exact))
    return (
        f"{trace.rows.count:,}",
        f"{distinct:,}",
        f"{len(flips_of(trace)):,}",
        text(highest_score(trace)),
        text(apart),
    )
