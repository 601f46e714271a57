"""What stands in a report: words and figures, put together from a replay and the stories of its clients."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from detector.calibrate.certificate_text import about, one_in
from detector.events.atlas import techniques
from detector.events.finding import LEVELS, PERSON
from detector.events.wording import TITLES
from detector.trace.explanation import Telling
from streams.analyst.events import Alert, DriftEvent, Event, ThrottleEvent
from streams.analyst.incidents import Incident
from streams.config.config import Config
from streams.replay.summary import SLICE_MS, SpaceSummary
from streams.report import overview
from streams.report.enforcement import client_minutes, stretches
from streams.report.plots import PlotFigure, ReportTable

LISTED = 500


class Detail(NamedTuple):
    """One incident, told and drawn. neighbour : the ordinary client beside it, "" for none."""

    incident: Incident
    telling: Telling
    figures: list[PlotFigure]
    neighbour: str
    attacks: list[str]


class Contents(NamedTuple):
    """title, period, sentences : in words. figures : of the whole. listed : incidents in the table; unlisted : how
    many more there are. facts : settings and hashes, in groups."""

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
    """Enough of an incident to count it. detector : of its strictest decision, the last of those."""

    uid: str
    client: str
    level: int
    detector: str


def ranked_by_gravity(events: Sequence[Event]) -> list[Ranked]:
    """Every incident, the highest rung first, then those with most alerts, then the earliest. events : in order.

    What a person alone had refused is none: it stands among what was throttled.
    """
    alerts = Counter(event.incident for event in events if isinstance(event, Alert))
    found: dict[str, Ranked] = {}
    for event in events:
        known = found.get(event.incident)
        if event.level > 0 and event.detector != PERSON and (known is None or event.level >= known.level):
            found[event.incident] = Ranked(event.incident, event.client, event.level, event.detector)
    return sorted(found.values(), key=lambda one: (-one.level, -alerts[one.uid]))  # stable: the earliest first


class Found(NamedTuple):
    """What a replay found, decoded. summary : as in docs/replay.md. incidents : the gravest of them, in
    that order; ranked : all of them."""

    summary: Mapping[str, Any]
    events: Sequence[Event]
    incidents: Sequence[Incident]
    ranked: Sequence[Ranked]
    spaces: Mapping[str, SpaceSummary]
    sources: Sequence[str]

    @property
    def throttles(self) -> list[ThrottleEvent]:
        return [event for event in self.events if isinstance(event, ThrottleEvent)]


def contents(found: Found, details: list[Detail], config: Config) -> Contents:
    held = stretches(found.throttles)
    summary = found.summary
    days = {name: counts.get("client_days", 0) for name, counts in summary["classes"].items()}
    figures = [
        overview.timeline(found.spaces, found.throttles),
        overview.throttling(held),
        overview.alarms(summary["false_alarms"], days),
    ]
    rows = [
        (LEVELS[level], action, mode, f"{clients:,}", f"{minutes:,.0f}")
        for (level, action, mode), (clients, minutes) in client_minutes(held).items()
    ]
    return Contents(
        title="What clients did, and what was decided",
        period=_period(found.spaces),
        sentences=list(filter(None, _sentences(found, rows))),
        figures=[figure for figure in figures if figure is not None],
        listed=list(found.incidents),
        unlisted=len(found.ranked) - len(found.incidents),
        details=details,
        held=ReportTable(("rung", "action", "mode", "clients", "client-minutes"), rows),
        drifts=_drifts([event for event in found.events if isinstance(event, DriftEvent)]),
        facts=_facts(found, config),
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


def _sentences(found: Found, held: Sequence[tuple[str, ...]]) -> list[str]:
    summary, incidents = found.summary, found.incidents
    models = sorted({space.model for space in found.spaces.values()})
    grave = [one for one in found.ranked if one.level >= LEVELS.index("hard")]
    return [
        f"{summary['rows']:,} requests of {summary['clients']:,} clients to"
        f" {_counted(len(models), 'model')} were judged: {_period(found.spaces)}.",
        _told(grave, summary["alerts"]),
        _mild(len(found.ranked) - len(grave)),
        _effect(found.throttles, held),
        _promise(found),
        _judged(incidents),
        _reserve(summary),
    ]


def _told(grave: Sequence[Ranked], alerts: int) -> str:
    if not grave:
        return "No client gave reason for an alert."
    kinds = Counter(TITLES.get(one.detector, one.detector) for one in grave)
    named = "; ".join(f"{kind.lower()} ({count:,})" for kind, count in kinds.most_common())
    return (
        f"{_counted(len({one.client for one in grave}), 'client')} gave reason for {_counted(alerts, 'alert')}"
        f" in {_counted(len(grave), 'incident')}: {named}."
    )


def _mild(mild: int) -> str:
    return f"{_counted(mild, 'milder incident')} stayed below “hard”, without an alert." if mild else ""


def _effect(throttles: Sequence[ThrottleEvent], held: Sequence[tuple[str, ...]]) -> str:
    if not throttles:
        return ""
    if all(one.mode == "shadow" for one in throttles):
        return "All decisions are in shadow: gateways act on none of them."
    limiting = [row for row in held if row[1] != "observe" and row[2] == "enforce"]
    clients = len({one.client for one in throttles if one.record.action != "observe" and one.mode == "enforce"})
    minutes = sum(float(row[4].replace(",", "")) for row in limiting)
    if not limiting:
        return "Nobody was limited; clients were only watched."
    were = "was" if clients == 1 else "were"
    return f"{_counted(clients, 'client')} {were} limited, for {minutes / 60:,.1f} client-hours in all."


def _promise(found: Found) -> str:
    classes = found.summary["classes"]
    name = max(classes, key=lambda one: classes[one].get("client_days", 0), default="")
    cell = found.summary["false_alarms"].get(name, {}).get("hard")
    if not cell or cell["promised"] is None:
        return "The thresholds promise nothing of their false alarms: there is no certificate for them."
    return (
        f"The certificate lets at most {one_in(cell['promised'])} ordinary {name}s a day reach “hard”, on average:"
        f" {about(cell['expected'])} in {_counted(classes[name]['client_days'], 'client-day')}."
        f" {cell['alarmed']:,} did, attackers among them."
    )


def _judged(incidents: Sequence[Incident]) -> str:
    verdicts = Counter(one.verdict for one in incidents if one.verdict)
    if not verdicts:
        return ""
    named = ", ".join(f"{count:,} {verdict.replace('_', ' ')}" for verdict, count in sorted(verdicts.items()))
    return f"Analysts judged {_counted(verdicts.total(), 'incident')}: {named}."


def _reserve(summary: Mapping[str, Any]) -> str:
    parts = []
    if summary.get("cold"):
        parts.append("thresholds were fitted on this very history, and are good for a first look only")
    if summary.get("cold_start_events"):
        parts.append("some events stand on a fold that began without what was before (cold start)")
    if summary["rejects"]:
        parts.append(f"{_counted(sum(summary['rejects'].values()), 'record')} could not be read")
    if unjudged := sum(summary["unjudged"].values()):
        parts.append(f"{_counted(unjudged, 'row')} could not be judged")
    if summary["evicted_clients"]:
        parts.append(f"{_counted(summary['evicted_clients'], 'client')} left for want of room and began anew")
    return f"Mind: {'; '.join(parts)}." if parts else ""


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _drifts(drifts: Sequence[DriftEvent]) -> ReportTable:
    rows = [
        (f"{one.time:%F %H:%M}", one.model, one.client or "all clients", one.record.statistic, one.record.state,
         f"{one.record.magnitude:.2f}")
        for one in drifts[:LISTED]
    ]  # fmt: skip
    return ReportTable(("until (UTC)", "model", "who", "what moved", "state", "by, standard units"), rows)


def attack_names(detector: str) -> list[str]:
    return [f"{technique.id} {technique.name}" for technique in techniques(detector)]


def _facts(found: Found, config: Config) -> list[tuple[str, str]]:
    summary, policy = found.summary, config.policy
    rungs = []
    for rung in LEVELS[1:]:
        limits = getattr(policy, rung)
        rungs.append((f"policy.{rung}", f"{limits.action}, {limits.duration_s:,} s"))
    return [
        ("Sources", ", ".join(found.sources)),
        ("Configuration", str(summary["config_hash"])),
        ("Artefacts", str(summary["artefact_hash"])),
        ("Engine", str(summary["engine_version"])),
        ("policy.mode", policy.mode),
        *rungs,
        ("Records read", f"{summary['records']:,}"),
        ("Rows judged", f"{summary['rows']:,}"),
        ("Rows that came twice", f"{summary['skipped_rows']:,}"),
    ]
