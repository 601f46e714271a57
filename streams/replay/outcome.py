"""What a replay says: its events, its rejects, a summary; and the files they go to."""

from collections import Counter
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from detector import __version__
from detector.events.escape import json_bytes
from detector.events.finding import LEVELS, Event
from models.artefacts.store import Artefacts
from models.kernels.fold.client import DAY_MS
from models.rows import CLASSES
from streams.replay.census import Census, Reached
from streams.replay.fold import PartitionFold, ReplayedEvent
from streams.replay.settings_changes import Eras
from streams.replay.survey import Survey
from streams.wire.rejects import Reject

FILES = {"alert": "alerts.jsonl", "throttle": "throttle.jsonl", "drift": "drift.jsonl"}
REJECTS_FILE, SUMMARY_FILE, COLD_FILE = "rejects.jsonl", "summary.json", "cold_start.jsonl"


class Outcome(NamedTuple):
    """What a replay found. events : ordered by (time_ms, id). summary : as in docs/replay.md.

    cold : ids of the events that stand on a fold that began without what was before. survey : for a report.
    """

    events: list[Event]
    rejects: list[Reject]
    summary: dict[str, Any]
    cold: frozenset[str] = frozenset()
    survey: Survey = Survey()


def write(outcome: Outcome, out: Path) -> None:
    """The events by kind (FILES), rejects.jsonl, then summary.json; each appears complete or not at all.

    cold_start.jsonl names events, whose own bytes are those of any other replay; it is there if it has lines.
    """
    out.mkdir(parents=True, exist_ok=True)
    for kind, name in FILES.items():
        write_lines(out / name, (event.value for event in outcome.events if event.kind == kind))
    write_lines(out / REJECTS_FILE, map(json_bytes, outcome.rejects))
    (out / COLD_FILE).unlink(missing_ok=True)
    if outcome.cold:
        marked = (event for event in outcome.events if event.id in outcome.cold)
        write_lines(out / COLD_FILE, (json_bytes({"id": event.id, "kind": event.kind}) for event in marked))
    write_lines(out / SUMMARY_FILE, [msgspec.json.format(msgspec.json.encode(outcome.summary), indent=2)])


def write_lines(path: Path, lines: Iterable[bytes]) -> None:
    """The file appears complete or not at all."""
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("wb") as file:
        file.writelines(line + b"\n" for line in lines)
    unfinished.replace(path)


def outcome(part: PartitionFold, eras: Eras, seconds: float) -> Outcome:
    config, artefacts = eras.newest.config, eras.newest.artefacts
    told = sorted(part.told, key=lambda one: (one.event.time_ms, one.event.id))
    rejects = sorted(part.rejects, key=attrgetter("topic", "partition", "offset", "index"))
    decided = [(one.event, _decided.decode(one.event.value)) for one in told if one.event.kind == "throttle"]
    reached = [Reached(event.client_key, event.time_ms // DAY_MS, what.level) for event, what in decided]
    census = part.census
    summary = {
        "records": part.records,
        "rows": census.rows,
        "rejects": _counted(reject.reason for reject in rejects),
        "unjudged": dict(sorted((part.unjudged + Counter()).items())),
        "skipped_rows": part.skipped,
        "evicted_clients": part.evicted,
        "clients": census.clients,
        "clients_in_several_raw_partitions": census.scattered,
        "classes": census.by_class(reached),
        "alerts": _count(told, "alert"),
        "drifts": _count(told, "drift"),
        "throttles": _by_level_and_reason(what for _, what in decided),
        "certified": bool(decided) and all(what.certified for _, what in decided),
        "false_alarms": _false_alarms(census, reached, artefacts),
        "cold": False,
        "cold_start_events": sum(one.cold for one in told),
        "config_hash": config.hash,
        "artefact_hash": artefacts.hash,
        "earlier_config_hashes": [settings.config.hash for settings in eras.settings[:-1]],
        "engine_version": __version__,
        "seconds": round(seconds, 3),
        "rows_per_s": round(part.rows / seconds) if seconds else 0,
    }
    cold = frozenset(one.event.id for one in told if one.cold)
    return Outcome([one.event for one in told], rejects, summary, cold, census.survey)


class _Decided(msgspec.Struct):
    """What the summary needs of a throttle record."""

    level: int
    reason: str
    certified: bool


_decided = msgspec.json.Decoder(_Decided)


def _count(told: Iterable[ReplayedEvent], kind: str) -> int:
    return sum(one.event.kind == kind for one in told)


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _by_level_and_reason(decisions: Iterable[_Decided]) -> dict[str, dict[str, int]]:
    counted = Counter((decision.level, decision.reason) for decision in decisions)
    table: dict[str, dict[str, int]] = {}
    for (level, reason), count in sorted(counted.items()):
        table.setdefault(LEVELS[level], {})[reason] = count
    return table


def _false_alarms(
    census: Census, reached: list[Reached], artefacts: Artefacts
) -> dict[str, dict[str, dict[str, float | bool | None]]]:
    """By class and rung: how many client-days the certificate expects to alarm falsely, and how many were alarmed.

    promised, expected : null where nothing is promised. Thresholds are the same in every space of the artefacts.
    """
    reference = next(iter(artefacts.models.values())).reference if artefacts.models else None
    days = {name: counts["client_days"] for name, counts in census.by_class(()).items()}
    alarmed = census.alarmed_days(reached)
    table: dict[str, dict[str, dict[str, float | bool | None]]] = {}
    for number, name in enumerate(CLASSES):
        for rung, level in enumerate(LEVELS[1:], 1):
            share = 1.0 if reference is None else float(reference.promised[number, rung])
            promised = None if share >= 1.0 else share
            table.setdefault(name, {})[level] = {
                "promised": promised,
                "certified": reference is not None and bool(reference.certified[number, rung]),
                "expected": None if promised is None else round(promised * days[name], 6),
                "alarmed": alarmed[name][level],
            }
    return table
