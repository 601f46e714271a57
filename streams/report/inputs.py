"""A client's requests: their path among all inputs, the answers, the fields that varied."""

import numpy as np

from detector.trace.explanation import label_of
from detector.trace.trace import Trace
from models.rows import F64, I64, UNIT, class_of
from streams.report import plots
from streams.report.plots import (
    Json,
    PlotFigure,
    ReportTable,
    TracedClient,
    decided,
    flips_of,
    plain,
    rounded,
    shown,
    text,
    times,
)

FIELDS_SHOWN = 12
DEVIATION_SHOWN = 3.0
STYLES = (("#0072B2", "circle"), ("#C04A00", "x"), ("#00775A", "square"), ("#767676", "diamond-open"))


def path(subject: TracedClient) -> PlotFigure:
    """The client's inputs among a sample of all inputs, in the two directions in which it moved furthest."""
    trace = subject.trace
    own, others, names = _plane(subject)
    rows = shown(trace)
    data: list[Json] = []
    if others is not None:
        data.append(
            plots.markers(
                "inputs of all clients (a sample)",
                rounded(others[:, 0]),
                rounded(others[:, 1]),
                plots.GREY,
                "circle",
                marker={"size": 4, "opacity": 0.45, "line": {"width": 0}},
                hoverinfo="skip",
            )
        )
    x, y = rounded(own[rows, 0]), rounded(own[rows, 1])
    thin = {"color": plots.INK, "width": 1}
    data.append({**plots.line("path of this client", x, y, 0, hoverinfo="skip"), "line": thin, "opacity": 0.5})
    data += _by_label(subject, rows, own[rows, 0], own[rows, 1])
    far = float(np.linalg.norm(own.max(axis=0) - own.min(axis=0)))
    return PlotFigure(
        id=f"path-{subject.id}",
        caption=f"{trace.rows.count:,} requests, at most {far:.2g} apart in this plane, among all inputs",
        how=f"Each request as a point by {names[0]} and {names[1]}, joined in order, over a sample of all inputs.",
        data=data,
        layout=plots.layout(plots.axis(names[0]), plots.axis(names[1]), height=400),
        table=ReportTable(
            ("request", names[0], names[1], "answer"),
            [
                (
                    f"{trace.rows_seen[row]:,}",
                    text(own[row, 0]),
                    text(own[row, 1]),
                    label_of(subject.artefact, int(trace.rows.output[row])) or "-",
                )
                for row in plots.some(range(trace.rows.count), plots.TABLE_ROWS, decided(trace))
            ],
        ),
        wide=True,
    )


def _plane(subject: TracedClient) -> tuple[F64, F64 | None, tuple[str, str]]:
    """(n, 2) of the client, (k, 2) of the sample, names of both axes: two fields of tables, else principal axes."""
    trace, encoder = subject.trace, subject.artefact.encoder
    own = encoder.standard(trace.rows.values)
    others = None if subject.sample is None else encoder.standard(subject.sample.values)
    if len(encoder.field_names) >= 2:
        spread = np.ptp(own, axis=0)
        first, second = np.argsort(-spread, kind="stable")[:2].tolist()
        names = (_axis(encoder.field_names[first]), _axis(encoder.field_names[second]))
        chosen = [first, second]
        return own[:, chosen], None if others is None else others[:, chosen], names
    everything = own if others is None else others
    centre = everything.mean(axis=0)
    _, sizes, axes = np.linalg.svd(everything - centre, full_matrices=False)
    turned = axes[:2].T if len(axes) > 1 else np.eye(own.shape[1], 2)
    share = sizes**2 / max(float((sizes**2).sum()), 1e-12)
    named = [f"direction {number + 1} of all inputs ({share[number]:.0%} of their spread)" for number in range(2)]
    return (own - centre) @ turned, None if others is None else (others - centre) @ turned, (named[0], named[1])


def _axis(field: str) -> str:
    return f"{plain(field)} (standard units)"


def _by_label(subject: TracedClient, rows: list[int], x: F64, y: F64) -> list[Json]:
    """Markers by answer; rare answers share one style."""
    trace = subject.trace
    labels = trace.rows.output[rows]
    distinct, counts = np.unique(labels, return_counts=True)
    ordered = distinct[np.argsort(-counts, kind="stable")].tolist()
    data = []
    for number, label in enumerate(ordered[: len(STYLES)]):
        here = labels == label if number < len(STYLES) - 1 else np.isin(labels, ordered[number:])
        name = label_of(subject.artefact, int(label)) or "no label"
        name = name if number < len(STYLES) - 1 or len(ordered) == len(STYLES) else "other answers"
        seen = [f"request {trace.rows_seen[row]:,}" for row, own in zip(rows, here.tolist(), strict=True) if own]
        data.append(
            plots.markers(
                f"answer: {name}",
                rounded(x[here]),
                rounded(y[here]),
                *STYLES[number],
                text=seen,
                hovertemplate="%{text}<br>%{x:.2f}, %{y:.2f}",
            )
        )
    return data


def answers(subject: TracedClient) -> PlotFigure | None:
    """Scores along the decision boundary; None if the log holds no scores."""
    trace = subject.trace
    score = trace.rows.score.astype(np.float64)
    if not np.isfinite(score).any():
        return None
    rows = shown(trace)
    threshold = trace.nulls.decision_threshold
    flips = flips_of(trace)
    near = float(np.mean(np.abs(score[np.isfinite(score)] - threshold) < _band(trace)))
    data = [{**plots.line("score", trace.rows_seen[rows].tolist(), rounded(score[rows], 4), 0), "opacity": 0.5}]
    data += _by_label(subject, rows, trace.rows_seen[rows].astype(np.float64), score[rows])
    border, words = plots.across(threshold, "decision threshold", plots.INK)
    return PlotFigure(
        id=f"answers-{subject.id}",
        caption=f"The answer {_flipped(len(flips))}; {near:.0%} of the requests lie close to the decision threshold",
        how="The model's score for each request, by answer, with the decision threshold as a dashed line.",
        data=data,
        layout=plots.layout(
            plots.axis("request of this client (number)", rangemode="tozero"),
            plots.axis("score of the model (its unit)"),
            shapes=[border],
            annotations=[words],
        ),
        table=_answers_table(subject, score, flips[: plots.TABLE_ROWS]),
    )


def _answers_table(subject: TracedClient, score: F64, flips: list[int]) -> ReportTable:
    trace = subject.trace
    rows = [
        (
            f"{trace.rows_seen[row]:,}",
            text(score[row]),
            label_of(subject.artefact, int(trace.rows.output[row])) or "-",
            "yes" if row in flips else "no",
            f"{trace.moment(row).distance:.3f}",
        )
        for row in plots.some(range(trace.rows.count), plots.TABLE_ROWS, flips)
    ]
    headers = ("request", "score", "answer", "flips", "distance to the nearest earlier input, standard units")
    return ReportTable(headers, rows)


def _flipped(flips: int) -> str:
    return f"flips {times(flips)}" if flips else "never flips"


def _band(trace: Trace) -> float:
    """The margin that counts as small for this class."""
    limit = float(trace.nulls.low_margin[class_of(trace.rows.client_class[-1])])
    return limit if np.isfinite(limit) and limit > 0 else 0.05


def fields(subject: TracedClient) -> PlotFigure:
    """Which fields varied when; for embeddings, the distance of each input from earlier ones."""
    trace = subject.trace
    return _field_map(subject) if trace.field_names and trace.rows.count > 1 else _distances(subject)


def _field_map(subject: TracedClient) -> PlotFigure:
    trace, names = subject.trace, subject.trace.field_names
    units = subject.artefact.encoder.standard(trace.rows.values)
    deviation = units - np.median(units, axis=0)
    changed = (trace.rows.fields[1:] != trace.rows.fields[:-1]).sum(axis=0)
    busiest = np.lexsort((-np.ptp(units, axis=0), -changed))[:FIELDS_SHOWN]
    busiest = busiest[changed[busiest] > 0][::-1]
    rows = shown(trace)
    still = len(names) - int(np.count_nonzero(changed))
    heat = {
        "type": "heatmap",
        "x": trace.rows_seen[rows].tolist(),
        "y": [plain(names[i]) for i in busiest.tolist()],
        "z": [rounded(np.clip(deviation[rows, i], -9, 9), 2) for i in busiest.tolist()],
        "zmin": -DEVIATION_SHOWN,
        "zmax": DEVIATION_SHOWN,
        "colorscale": [[0, "#0072B2"], [0.5, "#FFFFFF"], [1, "#C04A00"]],
        "colorbar": {"title": {"text": "standard units", "side": "right", "font": {"size": 12}}, "thickness": 12},
        "hovertemplate": "request %{x}, %{y}: %{z} standard units<extra></extra>",
    }
    return PlotFigure(
        id=f"fields-{subject.id}",
        caption=_fields_caption(names, changed, trace.rows.count, still),
        how="Each field's distance from the client's own median, in standard units, request by request.",
        data=[heat],
        layout=plots.layout(
            plots.axis("request of this client (number)"), plots.axis("field"), height=140 + 22 * len(busiest)
        ),
        table=ReportTable(
            ("field", "changed from one request to the next", "from, standard units", "to, standard units"),
            [
                (names[i], f"{changed[i]:,} times", f"{units[:, i].min():+.2f}", f"{units[:, i].max():+.2f}")
                for i in busiest[::-1].tolist()
            ],
        ),
        wide=True,
    )


def _fields_caption(names: tuple[str, ...], changed: I64, rows: int, still: int) -> str:
    busiest = int(np.argmax(changed))
    if not changed[busiest]:
        return "No field changes: every request has the same input"
    also = f"; {still:,} of {len(names):,} fields never do" if still else ""
    return f"“{names[busiest]}” changes most, in {changed[busiest]:,} of {rows - 1:,} steps{also}"


def _distances(subject: TracedClient) -> PlotFigure:
    trace = subject.trace
    rows = [row for row in shown(trace) if row > 0]
    apart = np.array([trace.moment(row).distance for row in rows])
    reach = (trace.nulls.reach2**0.5) / UNIT
    middle = float(np.median(apart)) if len(apart) else 0.0
    return PlotFigure(
        id=f"fields-{subject.id}",
        caption=f"Half of the inputs lie within {middle:.2g} of an earlier one; variants lie within {reach:.2g}",
        how="Distance of each input to the nearest earlier one of this client.",
        data=[plots.line("distance to the nearest earlier input", trace.rows_seen[rows].tolist(), rounded(apart), 0)],
        layout=plots.layout(
            plots.axis("request of this client (number)"), plots.axis("distance (of unit vectors)", rangemode="tozero")
        ),
        table=ReportTable(
            ("request", "distance"),
            [
                (f"{trace.rows_seen[row]:,}", f"{trace.moment(row).distance:.3f}")
                for row in plots.some(rows, plots.TABLE_ROWS)
            ],
        ),
    )
