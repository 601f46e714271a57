"""Many incidents of one model within an hour are one finding: it, its log or its callers changed, or accounts came in
flocks. A person reads it once."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import msgspec

from probewatch_door.record import Time
from streams.analyst.incidents import Incident

HOUR = timedelta(hours=1)


class Wave(msgspec.Struct, frozen=True, kw_only=True):
    """More incidents with an alert than `alerts.wave_incidents_per_hour` within an hour, of one model.

    uid : of its first incident. level : the highest. open : incidents that are.
    """

    uid: str
    model: str
    detectors: tuple[str, ...]
    first: Time
    last: Time
    incidents: int
    clients: int
    alerts: int
    open: int
    level: int


def marked(incidents: Sequence[Incident], per_hour: int) -> list[Incident]:
    """The same, those of a wave with its uid. An incident counts when it begins."""
    by_model: dict[str, list[Incident]] = {}
    for incident in incidents:
        if incident.alerts:
            by_model.setdefault(incident.model, []).append(incident)
    wave_of: dict[str, str] = {}
    for group in by_model.values():
        group.sort(key=lambda incident: (incident.first, incident.uid))
        wave_of |= _of_waves(group, per_hour)
    return [msgspec.structs.replace(one, wave=wave_of.get(one.uid, "")) for one in incidents]


def _of_waves(group: Sequence[Incident], per_hour: int) -> dict[str, str]:
    """Incident -> its wave. group : in order of their beginning. Hours that share an incident are one wave."""
    found: dict[str, str] = {}
    begin = 0
    for end, incident in enumerate(group):
        while group[begin].first <= incident.first - HOUR:
            begin += 1
        if end - begin + 1 > per_hour:
            wave = found.get(group[begin].uid, group[begin].uid)
            for one in group[begin : end + 1]:
                found.setdefault(one.uid, wave)
    return found


def waves(incidents: Iterable[Incident]) -> list[Wave]:
    """Of marked incidents, in order of their last event."""
    groups: dict[str, list[Incident]] = {}
    for incident in incidents:
        if incident.wave:
            groups.setdefault(incident.wave, []).append(incident)
    return sorted((_wave(uid, group) for uid, group in groups.items()), key=lambda wave: (wave.last, wave.uid))


def _wave(uid: str, group: Sequence[Incident]) -> Wave:
    last: datetime = max(one.last for one in group)
    return Wave(
        uid=uid,
        model=group[0].model,
        detectors=tuple(sorted({name for one in group for name in one.detectors})),
        first=min(one.first for one in group),
        last=last,
        incidents=len(group),
        clients=len({one.client for one in group}),
        alerts=sum(one.alerts for one in group),
        open=sum(one.state == "open" for one in group),
        level=max(one.level for one in group),
    )


def sentence(wave: Wave) -> str:
    return (
        f"a wave of {wave.incidents:,} incidents of the model {wave.model} within"
        f" {(wave.last - wave.first).total_seconds() / 3600:.1f} h: look at the model, its log and its callers first"
    )
