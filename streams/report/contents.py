"""The contents of a report: text and figures, from a replay and the traces of its clients."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from detector.events.finding import LEVELS, PERSON
from detector.events.ocsf import techniques
from detector.events.wording import TITLES, about, one_in
from detector.trace.explanation import Telling
from streams.analyst.events import Alert, DriftEvent, Event, ThrottleEvent
from streams.analyst.incidents import Incident
from streams.analyst.waves import Wave, sentence
from streams.config.config import Config
from streams.replay.summary import SLICE_MS, SpaceSummary
from streams.report import overview
from streams.report.enforcement import client_minutes, stretches
from streams.report.plots import PlotFigure, ReportTable

LISTED = 500


class Detail(NamedTuple):
    """One incident in detail. neighbour : the ordinary client to compare with, "" for none."""

    incident: Incident
    telling: Telling
    figures: list[PlotFigure]
    neighbour: str
    attacks: list[str]


class Contents(NamedTuple):
    """sentences : the summary. figures : of the whole history. listed : incidents in the table; unlisted : number of
    further ones. facts : sources, settings and hashes."""

    title: str
    period: str
    sentences: list[str]
    figures: list[PlotFigure]
    listed: list[Incident]
    unlisted: int
    details: list[Detail]
    held: ReportTable
    drifts: ReportTable
    facts: list[tuple[str, str]]


class Ranked(NamedTuple):
    """An incident as far as counting needs it. detector : of its strictest decision, the last of those."""

    uid: str
    client: str
    level: int
    detector: str


def ranked_by_severity(events: Sequence[Event]) -> list[Ranked]:
    """Every incident: the highest level first, then most alerts, then the earliest. events : in order.

    A person's order alone is no incident; it is listed under throttling.
    """
    alerts = Counter(event.incident for event in events if isinstance(event, Alert))
    incidents: dict[str, Ranked] = {}
    for event in events:
        before = incidents.get(event.incident)
        if event.level > 0 and event.detector != PERSON and (before is None or event.level >= before.level):
            incidents[event.incident] = Ranked(event.incident, event.client, event.level, event.detector)
    return sorted(incidents.values(), key=lambda each: (-each.level, -alerts[each.uid]))  # stable: earliest first


class ReportData(NamedTuple):
    """A replay's outcome, decoded. summary : as in docs/replay.md. incidents : the most severe; ranked : all.
    waves : many incidents within an hour."""

    summary: Mapping[str, Any]
    events: Sequence[Event]
    incidents: Sequence[Incident]
    ranked: Sequence[Ranked]
    spaces: Mapping[str, SpaceSummary]
    sources: Sequence[str]
    waves: Sequence[Wave] = ()

    @property
    def throttles(self) -> list[ThrottleEvent]:
        return [event for event in self.events if isinstance(event, ThrottleEvent)]


def contents(data: ReportData, details: list[Detail], config: Config) -> Contents:
    held = stretches(data.throttles)
    summary = data.summary
    days = {name: counts.get("client_days", 0) for name, counts in summary["classes"].items()}
    figures = [
        overview.timeline(data.spaces, data.throttles),
        overview.throttling(held),
        overview.alarms(summary["false_alarms"], days),
    ]
    rows = [
        (LEVELS[level], action, mode, f"{clients:,}", f"{minutes:,.0f}")
        for (level, action, mode), (clients, minutes) in client_minutes(held).items()
    ]
    return Contents(
        title="Client activity and decisions",
        period=_period(data.spaces),
        sentences=list(filter(None, _sentences(data, rows))),
        figures=[figure for figure in figures if figure is not None],
        listed=list(data.incidents),
        unlisted=len(data.ranked) - len(data.incidents),
        details=details,
        held=ReportTable(("level", "action", "mode", "clients", "client-minutes"), rows),
        drifts=_drifts([event for event in data.events if isinstance(event, DriftEvent)]),
        facts=_facts(data, config),
    )


def _period(spaces: Mapping[str, SpaceSummary]) -> str:
    slices = [int(edge) for space in spaces.values() for edge in (space.slices[0], space.slices[-1] + 1)]
    if not slices:
        return "no judged request"
    first, last = (datetime.fromtimestamp(edge * SLICE_MS / 1000, UTC) for edge in (min(slices), max(slices)))
    return (
        f"{first:%F %H:%M} to {last:%H:%M} UTC"
        if first.date() == last.date()
        else f"{first:%F %H:%M} to {last:%F %H:%M} UTC"
    )


def _sentences(data: ReportData, held: Sequence[tuple[str, ...]]) -> list[str]:
    summary, incidents = data.summary, data.incidents
    models = sorted({space.model for space in data.spaces.values()})
    severe = [one for one in data.ranked if one.level >= LEVELS.index("hard")]
    return [
        f"{summary['rows']:,} requests from {summary['clients']:,} clients to"
        f" {_counted(len(models), 'model')} were judged: {_period(data.spaces)}.",
        _alerted(severe, summary["alerts"]),
        " ".join(f"{text[:1].upper()}{text[1:]}." for text in map(sentence, data.waves)),
        _below_hard(len(data.ranked) - len(severe)),
        _effect(data.throttles, held),
        _promise(data),
        _judged(incidents),
        _caveats(summary),
    ]


def _alerted(severe: Sequence[Ranked], alerts: int) -> str:
    if not severe:
        return "No client caused an alert."
    kinds = Counter(TITLES.get(one.detector, one.detector) for one in severe)
    named = "; ".join(f"{kind.lower()} ({count:,})" for kind, count in kinds.most_common())
    return (
        f"{_counted(len({one.client for one in severe}), 'client')} caused {_counted(alerts, 'alert')}"
        f" in {_counted(len(severe), 'incident')}: {named}."
    )


def _below_hard(mild: int) -> str:
    return f"{_counted(mild, 'less severe incident')} stayed below “hard”, without an alert." if mild else ""


def _effect(throttles: Sequence[ThrottleEvent], held: Sequence[tuple[str, ...]]) -> str:
    if not throttles:
        return ""
    if all(one.mode == "shadow" for one in throttles):
        return "All decisions are in shadow mode: gateways act on none of them."
    limiting = [row for row in held if row[1] != "observe" and row[2] == "enforce"]
    clients = len({one.client for one in throttles if one.record.action != "observe" and one.mode == "enforce"})
    minutes = sum(float(row[4].replace(",", "")) for row in limiting)
    if not limiting:
        return "No client was limited; clients were only observed."
    were = "was" if clients == 1 else "were"
    return f"{_counted(clients, 'client')} {were} limited, for {minutes / 60:,.1f} client-hours in all."


def _promise(data: ReportData) -> str:
    classes = data.summary["classes"]
    name = max(classes, key=lambda one: classes[one].get("client_days", 0), default="")
    cell = data.summary["false_alarms"].get(name, {}).get("hard")
    if not cell or cell["promised"] is None:
        return "The thresholds have no certificate: nothing is promised about false alarms."
    return (
        f"The certificate allows at most {one_in(cell['promised'])} ordinary {name}s per day to reach “hard”:"
        f" about {about(cell['expected'])} in {_counted(classes[name]['client_days'], 'client-day')}, on average."
        f" {cell['alarmed']:,} did, attackers included."
    )


def _judged(incidents: Sequence[Incident]) -> str:
    verdicts = Counter(one.verdict for one in incidents if one.verdict)
    if not verdicts:
        return ""
    named = ", ".join(f"{count:,} {verdict.replace('_', ' ')}" for verdict, count in sorted(verdicts.items()))
    return f"Analysts judged {_counted(verdicts.total(), 'incident')}: {named}."


def _caveats(summary: Mapping[str, Any]) -> str:
    parts = []
    if summary.get("cold"):
        parts.append("thresholds were fitted on this same history and are good for a first look only")
    if summary.get("cold_start_events"):
        parts.append("some events lack evidence from before this history (cold start)")
    if summary["rejects"]:
        parts.append(f"{_counted(sum(summary['rejects'].values()), 'record')} could not be read")
    if unjudged := sum(summary["unjudged"].values()):
        parts.append(f"{_counted(unjudged, 'row')} could not be judged")
    if summary["evicted_clients"]:
        parts.append(f"{_counted(summary['evicted_clients'], 'client')} evicted for lack of room")
    if summary.get("rows_back_in_time"):
        parts.append(f"{_counted(summary['rows_back_in_time'], 'row')} went back in the time of their client")
    return f"Note: {'; '.join(parts)}." if parts else ""


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _drifts(drifts: Sequence[DriftEvent]) -> ReportTable:
    rows = [
        (f"{one.time:%F %H:%M}", one.model, one.client or "all clients", one.record.statistic, one.record.state,
         f"{one.record.magnitude:.2f}")
        for one in drifts[:LISTED]
    ]  # fmt: skip
    return ReportTable(("until (UTC)", "model", "client", "statistic", "state", "magnitude, standard units"), rows)


def attack_names(detector: str) -> list[str]:
    return [f"{technique.id} {technique.name}" for technique in techniques(detector)]


def _facts(data: ReportData, config: Config) -> list[tuple[str, str]]:
    summary, policy = data.summary, config.policy
    levels = []
    for name in LEVELS[1:]:
        limits = getattr(policy, name)
        levels.append((f"policy.{name}", f"{limits.action}, {limits.duration_s:,} s"))
    return [
        ("Sources", ", ".join(data.sources)),
        ("Configuration", str(summary["config_hash"])),
        ("Artefacts", str(summary["artefact_hash"])),
        ("Engine", str(summary["engine_version"])),
        ("policy.mode", policy.mode),
        *levels,
        ("Records read", f"{summary['records']:,}"),
        ("Rows judged", f"{summary['rows']:,}"),
        ("Rows delivered again", f"{summary['skipped_rows'] + summary['redelivered_rows']:,}"),
    ]
