"""The outcome of a replay: its events, its rejects and a summary, and the files that hold them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

import msgspec

from detector import __version__
from detector.events.escape import json_bytes
from detector.events.finding import LEVELS, Event
from models.artefacts.store import Artefacts
from models.kernels.fold.client import DAY_MS
from models.rows import CLASSES
from streams import files
from streams.history.order import LogOrder
from streams.replay.fold import Findings
from streams.replay.settings_changes import SettingsHistory
from streams.replay.summary import ReachedLevel, SpaceSummary, Summary
from streams.wire.rejects import REJECTS_FILE, Reject, by_reason

FILES = {"alert": "alerts.jsonl", "throttle": "throttle.jsonl", "drift": "drift.jsonl"}
SUMMARY_FILE, COLD_FILE = "summary.json", "cold_start.jsonl"


class ClassCounts(TypedDict):
    """Clients of one class. watch, soft, hard, block : clients that ever reached that level or a higher one."""

    clients: int
    client_days: int
    rows: int
    watch: int
    soft: int
    hard: int
    block: int


class FalseAlarms(TypedDict):
    """False alarms of one class and level. promised : share of client-days. expected : number in this history. Both
    are null where nothing is promised. alarmed : client-days on which the level was reached."""

    promised: float | None
    certified: bool
    expected: float | None
    alarmed: int


ClassName = Literal["consumer", "broker", "system"]
LevelName = Literal["watch", "soft", "hard", "block"]


class ReplaySummary(TypedDict):
    """summary.json; docs/replay.md explains each field. throttles : by level and reason. seconds, rows_per_s : differ
    between runs; everything else is the same for the same history, configuration and artefacts."""

    records: int
    rows: int
    rejects: dict[str, int]
    unjudged: dict[str, int]
    skipped_rows: int
    redelivered_rows: int
    evicted_clients: int
    clients: int
    clients_in_several_raw_partitions: int
    split_clients: int
    rows_back_in_time: int
    classes: dict[ClassName, ClassCounts]
    alerts: int
    drifts: int
    throttles: dict[str, dict[str, int]]
    certified: bool
    false_alarms: dict[ClassName, dict[LevelName, FalseAlarms]]
    cold: bool
    cold_start_events: int
    config_hash: str
    artefact_hash: str
    earlier_config_hashes: list[str]
    engine_version: str
    seconds: float
    rows_per_s: int


class Outcome(NamedTuple):
    """events : ordered by (time_ms, id). summary : the fields of ReplaySummary.

    cold : ids of cold-start events, whose fold began without the evidence from before. spaces : for a report. order :
    how the history lies in time.
    """

    events: list[Event]
    rejects: list[Reject]
    summary: dict[str, Any]
    cold: frozenset[str] = frozenset()
    spaces: Mapping[str, SpaceSummary] = {}
    order: LogOrder = LogOrder(0, 0, 0, 0)


def write(outcome: Outcome, out: Path) -> None:
    """Write the events by kind (FILES), rejects.jsonl, then summary.json; each appears complete or not at all.

    cold_start.jsonl, if there are any, lists cold-start events by id; the events' own bytes do not say so.
    """
    for kind, name in FILES.items():
        files.write_lines(out / name, (event.value for event in outcome.events if event.kind == kind))
    files.write_lines(out / REJECTS_FILE, map(json_bytes, outcome.rejects))
    (out / COLD_FILE).unlink(missing_ok=True)
    if outcome.cold:
        marked = (event for event in outcome.events if event.id in outcome.cold)
        files.write_lines(out / COLD_FILE, (json_bytes({"id": event.id, "kind": event.kind}) for event in marked))
    files.write_lines(out / SUMMARY_FILE, [msgspec.json.format(msgspec.json.encode(outcome.summary), indent=2)])


def outcome(findings: Findings, settings: SettingsHistory, seconds: float) -> Outcome:
    config, artefacts = settings.newest.config, settings.newest.artefacts
    events = sorted(findings.events, key=attrgetter("time_ms", "id"))
    rejects = sorted(findings.rejects, key=attrgetter("topic", "partition", "offset", "index"))
    decisions = [event for event in events if event.kind == "throttle"]
    reached = [ReachedLevel(event.client_key, event.time_ms // DAY_MS, event.level) for event in decisions]
    counts = findings.summary
    summary = {
        "records": counts.records,
        "rows": counts.rows,
        "rejects": by_reason(rejects),
        "unjudged": dict(sorted((counts.unjudged + Counter()).items())),
        "skipped_rows": counts.skipped,
        "redelivered_rows": counts.redelivered,
        "evicted_clients": counts.evicted,
        "clients": counts.clients,
        "clients_in_several_raw_partitions": counts.scattered,
        "split_clients": counts.order.split,
        "rows_back_in_time": counts.back,
        "classes": counts.by_class(reached),
        "alerts": _count(events, "alert"),
        "drifts": _count(events, "drift"),
        "throttles": _by_level_and_detector(decisions),
        "certified": bool(decisions) and all(event.certified for event in decisions),
        "false_alarms": _false_alarms(counts, reached, artefacts),
        "cold": False,
        "cold_start_events": len(findings.cold),
        "config_hash": config.hash,
        "artefact_hash": artefacts.hash,
        "earlier_config_hashes": [earlier.config.hash for earlier in settings.settings[:-1]],
        "engine_version": __version__,
        "seconds": round(seconds, 3),
        "rows_per_s": round(findings.rows / seconds) if seconds else 0,
    }
    return Outcome(events, rejects, summary, frozenset(findings.cold), counts.spaces, counts.order)


def _count(events: Iterable[Event], kind: str) -> int:
    return sum(event.kind == kind for event in events)


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _by_level_and_detector(decisions: Iterable[Event]) -> dict[str, dict[str, int]]:
    counted = Counter((event.level, event.detector) for event in decisions)
    table: dict[str, dict[str, int]] = {}
    for (level, detector), count in sorted(counted.items()):
        table.setdefault(LEVELS[level], {})[detector] = count
    return table


def _false_alarms(
    counts: Summary, reached: list[ReachedLevel], artefacts: Artefacts
) -> dict[str, dict[str, dict[str, float | bool | None]]]:
    """By class and level: the client-days that the certificate expects to alarm falsely, and those that were alarmed.

    promised, expected : null without a promise. Thresholds are the same in every space of the artefacts.
    """
    reference = next(iter(artefacts.models.values())).reference if artefacts.models else None
    days = {name: of_class["client_days"] for name, of_class in counts.by_class(()).items()}
    alarmed = counts.alarmed_days(reached)
    table: dict[str, dict[str, dict[str, float | bool | None]]] = {}
    for number, name in enumerate(CLASSES):
        for level, level_name in enumerate(LEVELS[1:], 1):
            share = 1.0 if reference is None else float(reference.promised[number, level])
            promised = None if share >= 1.0 else share
            table.setdefault(name, {})[level_name] = {
                "promised": promised,
                "certified": reference is not None and bool(reference.certified[number, level]),
                "expected": None if promised is None else round(promised * days[name], 6),
                "alarmed": alarmed[name][level_name],
            }
    return table
