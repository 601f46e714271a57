"""Evidence against its threshold, of a client and of an ordinary one beside it."""

import numpy as np

from detector.events.finding import LEVELS
from detector.evidence import PROCESSES
from detector.trace.explanation import meaning, when
from detector.trace.trace import Trace
from models.kernels.fold.fold import OFF
from models.kernels.numbers import NEVER
from streams.report import plots
from streams.report.plots import Json, PlotFigure, ReportTable, rounded
from streams.report.subject import FLOOR, TracedClient, decided, flips_of, most_of, rungs, scores, shown, text, top_of

PROCESSES_SHOWN = 4
_KINDS = (
    "requests",
    "different inputs",
    "flips of the answer",
    "highest score, tail lengths",
    "median distance to the nearest earlier input, standard units",
)


def evidence(subject: TracedClient) -> PlotFigure:
    """Each process in the one unit in which they are compared."""
    story = subject.story
    rows, excess = shown(story), np.where(story.excess <= NEVER, np.nan, story.excess / 1000)
    seen = story.rows_seen[rows].tolist()
    leading = _leading(story)
    data = [
        plots.line(meaning(p), seen, rounded(np.maximum(excess[rows, p], FLOOR)), number)
        for number, p in enumerate(leading)
    ]
    data += _decisions(story)
    top = top_of(story)
    shapes, names = plots.rung_lines(rungs(story), top * 1.05)
    return PlotFigure(
        id=f"evidence-{subject.id}",
        caption=_evidence_caption(story),
        how="How far the leading evidence lies beyond ordinary clients'; dashed, the thresholds. Curves may go on.",
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
                    f"{story.rows_seen[row]:,}",
                    when(int(story.rows.time_ms[row])),
                    text(scores(story)[row]),
                    *(text(excess[row, p]) for p in leading),
                )
                for row in plots.some(range(story.rows.count), plots.TABLE_ROWS, decided(story))
            ],
        ),
        wide=True,
    )


def _leading(story: Trace) -> list[int]:
    """Processes that led when a decision fell, then those that came furthest."""
    led = [int(story.excess[row].argmax()) for row in decided(story)]
    most = np.where((story.excess > OFF).any(axis=0), story.excess.max(axis=0), OFF)
    ranked = [p for p in np.argsort(-most, kind="stable").tolist() if most[p] > 0]
    return list(dict.fromkeys([*reversed(led), *ranked]))[:PROCESSES_SHOWN]


def _evidence_caption(story: Trace) -> str:
    fallen = [one for one in story.findings if one.at >= 0]
    if not fallen:
        return f"No threshold is passed in {story.rows.count:,} requests"
    last = max(fallen, key=lambda one: one.finding.decision.level)
    rung, row = LEVELS[last.finding.decision.level], int(story.rows_seen[last.at])
    looked_for = meaning(int(story.excess[last.at].argmax())).removesuffix(", all families")
    return f"Evidence of {looked_for} passes the threshold “{rung}” at request {row:,}"


def _decisions(story: Trace) -> list[Json]:
    found = []
    for level, rung in enumerate(LEVELS[1:], 1):
        own = [one for one in story.findings if one.at >= 0 and one.finding.decision.level == level]
        if own:
            x = [int(story.rows_seen[one.at]) for one in own]
            y = [one.finding.excess_milli / 1000 for one in own]
            found.append(
                plots.markers(
                    f"decision: {rung}",
                    x,
                    y,
                    plots.LEVEL_COLOURS[level],
                    plots.LEVEL_SYMBOLS[level],
                    marker={"size": 13},
                )
            )
    return found


def beside(subject: TracedClient, neighbour: Trace) -> PlotFigure:
    """The whole score of both, against the same thresholds."""
    story = subject.story
    mine, theirs = shown(story), shown(neighbour)
    top = top_of(story)
    shapes, names = plots.rung_lines(rungs(story), top * 1.05)
    return PlotFigure(
        id=f"beside-{subject.id}",
        caption=(
            f"An ordinary client with {neighbour.rows.count:,} requests stays at"
            f" {text(most_of(neighbour))}; this one comes to {text(most_of(story))}"
        ),
        how="The score over all evidence after each request, of this client and of one without a decision.",
        data=[
            plots.line(
                "this client", story.rows_seen[mine].tolist(), rounded(np.maximum(scores(story)[mine], FLOOR)), 1
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
                for name, mine, theirs in zip(_KINDS, _counts(story), _counts(neighbour), strict=True)
            ],
        ),
    )


def _counts(story: Trace) -> tuple[str, ...]:
    rows = [row for row in shown(story) if row > 0]
    apart = float(np.median([story.moment(row).distance for row in rows])) if rows else float("nan")
    distinct = len(np.unique(story.rows.exact))
    return (f"{story.rows.count:,}", f"{distinct:,}", f"{len(flips_of(story)):,}", text(most_of(story)), text(apart))
