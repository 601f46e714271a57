"""From a replay to its report."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from detector.events.wording import TITLES
from streams.analyst.events import decode_event
from streams.analyst.incidents import Incident, group
from streams.report.contents import Found, contents, ranked_by_gravity
from streams.report.page import page
from streams.report.replayed import Replayed
from streams.report.selection import details

REPORT_FILE = "report.html"
LISTED = 500


def write_report(path: Path, replayed: Replayed) -> None:
    """The file appears complete or not at all. Reads the sources again for the few clients that are told in full.

    Raises SourceError.
    """
    events = [decode_event(event.value) for event in replayed.events]
    end = max((event.time for event in events), default=datetime.fromtimestamp(0, UTC))
    ranked = ranked_by_gravity(events)
    chosen = {one.uid: place for place, one in enumerate(ranked[:LISTED])}
    grouped = group((event for event in events if event.incident in chosen), replayed.labels, end)
    incidents = sorted(map(_named, grouped), key=lambda one: chosen[one.uid])
    sources = [source.name for source in replayed.plan.sources]
    found = Found(replayed.outcome.summary, events, incidents, ranked, replayed.outcome.spaces, sources)
    text = page(contents(found, details(replayed, incidents), replayed.plan.config))
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_bytes(text)
    unfinished.replace(path)


def _named(incident: Incident) -> Incident:
    """What never came to an alert has no title of its own."""
    title = TITLES.get(incident.detectors[-1], incident.detectors[-1]) if incident.detectors else ""
    return msgspec.structs.replace(incident, title=title)
