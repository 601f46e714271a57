"""From a replay to its report, and the most severe incidents in detail: each next to a comparable ordinary client."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from detector.events.finding import LEVELS, Provenance
from detector.events.wording import TITLES
from detector.trace import explanation
from detector.trace.trace import Trace, follow
from models.rows import U64
from streams import files
from streams.analyst.events import decode_event
from streams.analyst.incidents import Incident, group
from streams.analyst.labels import Label
from streams.analyst.waves import marked, waves
from streams.explain.find import keys_of
from streams.replay import Outcome, Plan
from streams.replay.evidence import gather
from streams.replay.summary import SpaceSummary
from streams.report import evidence, inputs
from streams.report.contents import Detail, ReportData, attack_names, contents, ranked_by_severity
from streams.report.page import page
from streams.report.plots import PlotFigure, TracedClient

REPORT_FILE = "report.html"
LISTED = 500
DETAILED = 24
NEIGHBOUR_ROWS_MIN = 3

Traces = Mapping[tuple[int, str], Trace]


class Replayed(NamedTuple):
    """A replay and its outcome. labels : of analysts, by incident. detailed : number of incidents shown in detail."""

    plan: Plan
    outcome: Outcome
    labels: Mapping[str, Label] = {}
    detailed: int = DETAILED


def write_report(path: Path, replayed: Replayed) -> None:
    """The file appears complete or not at all. Reads the sources again for the clients shown in detail.

    Raises SourceError, StoppedError.
    """
    events = [decode_event(event.value) for event in replayed.outcome.events]
    end = max((event.time for event in events), default=datetime.fromtimestamp(0, UTC))
    ranked = ranked_by_severity(events)
    rank = {incident.uid: number for number, incident in enumerate(ranked[:LISTED])}
    grouped = group((event for event in events if event.incident in rank), replayed.labels, end)
    incidents = sorted(map(_titled, grouped), key=lambda incident: rank[incident.uid])
    sources = [source.name for source in replayed.plan.sources]
    swept = waves(marked(group(events, {}, end), replayed.plan.config.alerts.wave_incidents_per_hour))
    data = ReportData(replayed.outcome.summary, events, incidents, ranked, replayed.outcome.spaces, sources, swept)
    files.write_lines(path, [page(contents(data, details(replayed, incidents), replayed.plan.config))])


def _titled(incident: Incident) -> Incident:
    """Incidents without an alert have no title of their own."""
    title = TITLES.get(incident.detectors[-1], incident.detectors[-1]) if incident.detectors else ""
    return msgspec.structs.replace(incident, title=title)


def details(replayed: Replayed, incidents: Sequence[Incident]) -> list[Detail]:
    """In the order of the incidents, the first `replayed.detailed` of them. Raises SourceError, StoppedError."""
    chosen = incidents[: replayed.detailed]
    keys = {incident.uid: keys_of(incident.client, replayed.plan.secrets) for incident in chosen}
    decided = np.unique(
        np.array([event.client_key for event in replayed.outcome.events if event.kind == "throttle"], np.uint64)
    )
    neighbours: dict[tuple[int, str], int] = {}
    for name, space in replayed.outcome.spaces.items():
        of_model = [key for incident in chosen if incident.model == space.model for key in keys[incident.uid]]
        neighbours |= {(key, name): other for key, other in _neighbours(space, of_model, decided).items()}
    wanted = sorted({*(key for client in keys.values() for key in client), *neighbours.values()})
    settings = replayed.plan.settings.newest
    gathered = gather(replayed.plan, wanted)
    traces = follow(settings, gathered.frames, wanted, states=gathered.states)
    shown = [
        _detail(incident, keys[incident.uid], neighbours, traces, settings.provenance, replayed) for incident in chosen
    ]
    return [detail for detail in shown if detail is not None]


def _neighbours(space: SpaceSummary, keys: Sequence[int], decided: U64) -> dict[int, int]:
    """For each client the client of its class, without any decision, whose number of rows is closest."""
    positions = np.searchsorted(space.clients, np.array(keys, np.uint64))
    present = [
        (key, int(at)) for key, at in zip(keys, positions, strict=True) if key in space.clients[at : at + 1].tolist()
    ]
    ordinary = np.flatnonzero((space.rows >= NEIGHBOUR_ROWS_MIN) & ~np.isin(space.clients, decided))
    neighbours = {}
    for key, at in present:
        alike = ordinary[space.client_class[ordinary] == space.client_class[at]]
        if len(alike):
            ratio = np.abs(np.log(space.rows[alike] / space.rows[at]))
            neighbours[key] = int(space.clients[alike[int(ratio.argmin())]])
    return neighbours


def _detail(
    incident: Incident,
    keys: Collection[int],
    neighbours: Mapping[tuple[int, str], int],
    traces: Traces,
    provenance: Provenance,
    replayed: Replayed,
) -> Detail | None:
    """None if no row of the client can be read any more."""
    trace = next((trace for trace in traces.values() if trace.key in keys and _has(trace, incident)), None)
    if trace is None:
        return None
    artefact = replayed.plan.artefacts.models[trace.model]
    own = [one for one in trace.findings if one.at >= 0 and one.finding.incident == incident.uid]
    row = max(own, key=lambda one: (one.finding.decision.level, one.at)).at
    space = replayed.outcome.spaces.get(trace.space)
    subject = TracedClient(incident.uid, trace, artefact, None if space is None else space.sample)
    neighbour = traces.get((neighbours.get((trace.key, trace.space), -1), trace.space))
    return Detail(
        incident,
        explanation.tell(trace, artefact, row, provenance, None),
        _figures(subject, neighbour),
        "" if neighbour is None else neighbour.client,
        attack_names(own[-1].finding.reason) if incident.level >= LEVELS.index("hard") else [],
    )


def _has(trace: Trace, incident: Incident) -> bool:
    return any(one.at >= 0 and one.finding.incident == incident.uid for one in trace.findings)


def _figures(subject: TracedClient, neighbour: Trace | None) -> list[PlotFigure]:
    answers = inputs.answers(subject)
    comparison = None if neighbour is None else evidence.comparison(subject, neighbour)
    pair = [figure for figure in (answers, comparison) if figure is not None]
    if len(pair) == 1:
        pair = [pair[0]._replace(wide=True)]
    return [evidence.evidence(subject), inputs.path(subject), *pair, inputs.fields(subject)]
