"""What came of it: the table, the latency, summary.json."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from examples.attackers import Prober
from examples.demo.tape import Record
from examples.traffic import KINDS, Client
from probewatch_door.record import LIMITING

Throttles = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One line of the final table.

    watched : clients with any decision about them. rows : of each throttled client, the row at which it first was.
    """

    kind: str
    clients: int
    requests: int
    refused: int
    watched: int
    rows: tuple[int, ...]

    def cells(self) -> tuple[str, ...]:
        at = "-" if not self.rows else f"{statistics.median(self.rows):.0f}"
        counts = (self.clients, self.requests, self.watched, len(self.rows), at, self.refused)
        return (self.kind, *(f"{count:,}" if isinstance(count, int) else count for count in counts))


HEADERS = ("kind", "clients", "requests", "watched", "throttled", "at row", "refused (429)")


def first_rows(throttles: Throttles) -> dict[str, int]:
    """Pseudonym -> how many rows the client had sent when it was first limited. Mere observation is not counted."""
    rows: dict[str, int] = {}
    for record in throttles:
        if record["action"] in LIMITING and record["mode"] == "enforce":
            client, row = record["client"], record["trigger"]["rows_seen"]
            rows[client] = min(row, rows.get(client, row))
    return rows


def table(
    clients: Sequence[Client], probers: Iterable[Prober], throttles: Throttles, names: Mapping[str, str]
) -> list[ClassRow]:
    """names : client id -> pseudonym."""
    throttled_at, watched = first_rows(throttles), {record["client"] for record in throttles}

    def line(kind: str, ids: Sequence[str], sent: int, refused: int) -> ClassRow:
        mine = [names[id_] for id_ in ids]
        rows = tuple(throttled_at[name] for name in mine if name in throttled_at)
        return ClassRow(kind, len(ids), sent, refused, len(watched.intersection(mine)), rows)

    lines = []
    for kind in KINDS:
        same = [client for client in clients if client.kind == kind]
        sent, refused = sum(len(c.statuses) for c in same), sum(c.refused for c in same)
        lines.append(line(kind, [client.id for client in same], sent, refused))
    return lines + [line(p.kind, [p.client_id], p.served + p.refused, p.refused) for p in probers]


def latencies_ms(raw: Iterable[Record], throttles: Iterable[Record], values: Throttles) -> list[int]:
    """From log record to throttle event, by the timestamps of both in Kafka; one for each event."""
    written = {record.place: record.timestamp_ms for record in raw}
    taken = []
    for record, value in zip(throttles, values, strict=True):
        trigger = value["trigger"]
        place = f"{trigger['source']}@{trigger['offset']}"
        if place in written:
            taken.append(record.timestamp_ms - written[place])
    return taken


def summary(
    clients: Sequence[Client],
    probers: Sequence[Prober],
    rows_of: Mapping[str, int],
    names: Mapping[str, str],
    alerts: int,
    alerts_valid: int,
    latency: Sequence[int],
    records: int,
    rejects: int,
) -> dict[str, Any]:
    """summary.json. A benign client counts as throttled if a decision limits it or it was refused once."""
    p50, p99 = np.percentile(latency, [50, 99]).round(1).tolist() if latency else (None, None)
    return {
        "benign_clients": len(clients),
        "benign_throttled": sum(names[client.id] in rows_of or client.refused > 0 for client in clients),
        "attackers": [
            {
                "kind": prober.kind,
                "rows_to_throttle": rows_of.get(names[prober.client_id]),
                "served_before_refusal": prober.served_first,
                "refused": prober.refused,
            }
            for prober in probers
        ],
        "alerts": alerts,
        "alerts_valid": alerts_valid,
        "latency_ms": {"p50": p50, "p99": p99},
        "records": records,
        "rejects": rejects,
    }


def failures(found: Mapping[str, Any]) -> list[str]:
    """Why this run is not a success; empty if it is one."""
    wrong = [
        f"{attacker['kind']} was not throttled"
        for attacker in found["attackers"]
        if attacker["rows_to_throttle"] is None or not attacker["refused"]
    ]
    if len(found["attackers"]) != 2:
        wrong.append("there must be two attackers")
    if found["benign_throttled"]:
        wrong.append(f"{found['benign_throttled']} benign clients were throttled")
    if not found["alerts"] or found["alerts_valid"] != found["alerts"]:
        wrong.append(f"{found['alerts_valid']} of {found['alerts']} alerts are valid")
    return wrong
