"""Drift of a model to bytes: records for `topics.drift`, and a low-severity OCSF finding once it has lasted.

client.py writes the same record for a client that has moved.
"""

from dataclasses import dataclass
from typing import Literal

import msgspec

from detector import __version__
from detector.detectors.atlas import EROSION
from detector.events.encode import headers, id_of, moment
from detector.events.escape import json_bytes, printable
from detector.events.finding import Event
from detector.events.ocsf import CLASS_UID, OBSERVED, OCSF_VERSION, PROFILE, Json, attack
from probewatch_door.record import Position, Time

DRIFT = "drift"
LINK = "link"
CLIENT_INPUTS = "client_inputs"

MEANINGS = {
    "score": "mean score",
    "margin": "mean distance to the decision threshold",
    "novelty": "mean distance of inputs from the reference population",
    "refusals": "share of refused requests",
    "volume": "rows per hour, against the same hours of the week before",
    "inputs": "distance of the input distribution from the reference population",
    CLIENT_INPUTS: "distance of a client's mean input from the population's centre",
    "unseen_categories": "share of clients with a category that history did not have, or with none",
    "beyond_range": "share of clients with a number beyond the range of history, or with none",
    "off_grid": "share of clients with a value off the grid of history",
    "unreadable": "share of clients that send something unreadable",
    "unjudged": "share of clients that send no usable input",
    "unknown_model": "share of clients that name an unknown model",
    "clock_ahead": "share of clients whose requests claim a time that is yet to come",
}
"""Every statistic, and what its number is."""

TESTS = {
    "adwin": "ADWIN on window means, confidence parameter",
    "page_hinkley": "Page-Hinkley on window means, threshold in deviations of ordinary windows",
    "rff": "two-sample test on random Fourier features, p-value of the last window",
    "binomial": "binomial test against the share of ordinary clients, p-value",
}


@dataclass(frozen=True, slots=True)
class DriftFinding:
    """One statistic of one space that left its level. Levels in the statistic's own unit; see DriftRecord.

    lasting : the level was still there `drift.alert_windows` figures later.
    of_clients : of news about the population: `rows` of so many clients had such values, in the table field `field`, ""
    if it is of no field. Lasting at once, since it is in force until the next calibration.
    """

    model: str
    space: str
    statistic: str
    test: str
    since_ms: int
    until_ms: int
    before: float
    after: float
    deviation: float | None
    p_or_threshold: float
    rows: int
    lasting: bool
    config_hash: str
    artefact_hash: str
    field: str = ""
    of_clients: int = 0

    @property
    def drift_id(self) -> str:
        """The same for a drift when it begins and when it lasts."""
        about = (self.field,) if self.field else ()
        return id_of("drift", self.space, self.statistic, self.since_ms, self.test, *about)


class DriftRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Schema probewatch.drift/1, fields in the order of docs/formats/drift.md. Unknown fields are ignored.

    client, certified, certificate, trigger : of a client's drift only. field, clients, of_clients : of news about the
    population only, field where it is of one.
    """

    schema: Literal["probewatch.drift/1"] = "probewatch.drift/1"
    drift_id: str
    state: Literal["begins", "lasts"]
    model: str
    space: str
    client: str | msgspec.UnsetType = msgspec.UNSET
    statistic: str
    field: str | msgspec.UnsetType = msgspec.UNSET
    test: Literal["adwin", "page_hinkley", "rff", "averages", "binomial"]
    since: Time
    until: Time
    before: float
    after: float
    magnitude: float
    direction: Literal["up", "down", "away", "towards"]
    deviation: float | None
    p_or_threshold: float
    rows: int
    clients: int | msgspec.UnsetType = msgspec.UNSET
    of_clients: int | msgspec.UnsetType = msgspec.UNSET
    certified: bool | msgspec.UnsetType = msgspec.UNSET
    certificate: str | msgspec.UnsetType = msgspec.UNSET
    trigger: Position | msgspec.UnsetType = msgspec.UNSET
    config_hash: str
    artefact_hash: str
    engine_version: str

    @property
    def key(self) -> str:
        parts = (self.model, self.statistic, self.field, self.client)
        return ":".join(part for part in parts if part)


def events(finding: DriftFinding) -> list[Event]:
    """The record; once it lasts also the alert."""
    made = record(finding)
    record_id = id_of("record", made.drift_id, made.state, finding.until_ms)
    facts = (0, finding.until_ms, finding.model, DRIFT, 0, False, made.drift_id, None)
    made_events = [Event("drift", record_id, made.key.encode(), json_bytes(made), (), *facts)]
    if finding.lasting:
        uid = id_of("alert", made.drift_id)
        value = json_bytes(alert(finding, made, uid))
        key = made.drift_id.encode()
        made_events.append(Event("alert", uid, key, value, headers(uid, made.until, LINK), *facts))
    return made_events


def record(finding: DriftFinding) -> DriftRecord:
    before, after = round(finding.before, 6), round(finding.after, 6)
    away = finding.statistic == "inputs"
    return DriftRecord(
        drift_id=finding.drift_id,
        state="lasts" if finding.lasting else "begins",
        model=finding.model,
        space=finding.space,
        statistic=finding.statistic,
        field=finding.field or msgspec.UNSET,
        test=finding.test,  # type: ignore[arg-type]  # one of TESTS
        since=moment(finding.since_ms),
        until=moment(finding.until_ms),
        before=before,
        after=after,
        magnitude=round(abs(after - before), 6),
        direction="away" if away else "up" if after > before else "down",
        deviation=None if finding.deviation is None else round(abs(finding.deviation), 3),
        p_or_threshold=finding.p_or_threshold,
        rows=finding.rows,
        clients=finding.rows if finding.of_clients else msgspec.UNSET,
        of_clients=finding.of_clients or msgspec.UNSET,
        config_hash=finding.config_hash,
        artefact_hash=finding.artefact_hash,
        engine_version=__version__,
    )


def alert(finding: DriftFinding, made: DriftRecord, uid: str) -> Json:
    """The event as JSON values in a fixed order: severity low, about a model and no client."""
    title, sentence, tested = _news(made) if finding.of_clients else _moved(made)
    return {
        "activity_id": 1,
        "activity_name": "Create",
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": CLASS_UID,
        "class_name": "Detection Finding",
        "type_uid": CLASS_UID * 100 + 1,
        "type_name": "Detection Finding: Create",
        "severity_id": 2,
        "severity": "Low",
        "status_id": 1,
        "status": "New",
        "time": finding.until_ms,
        "start_time": finding.since_ms,
        "end_time": finding.until_ms,
        "message": f"{title}. {sentence}",
        "is_alert": True,
        "confidence_id": 2,
        "confidence": "Medium",
        "action_id": OBSERVED[0],
        "action": OBSERVED[1],
        "disposition_id": 15,
        "disposition": "Detected",
        "metadata": {
            "version": OCSF_VERSION,
            "profiles": [PROFILE],
            "product": {
                "name": "Probewatch",
                "vendor_name": "Probewatch",
                "version": made.engine_version,
                "feature": {"name": DRIFT, "version": made.engine_version},
            },
            "uid": uid,
            "correlation_uid": made.drift_id,
        },
        "finding_info": {
            "uid": made.drift_id,
            "title": title,
            "desc": f"{sentence} {tested}; {TESTS[made.test]} {made.p_or_threshold:g}.",
            "first_seen_time": finding.since_ms,
            "last_seen_time": finding.until_ms,
            "types": [DRIFT],
            "analytic": {
                "uid": f"probewatch.{DRIFT}",
                "name": DRIFT,
                "type_id": 3,
                "type": "Statistical",
                "algorithm": made.test,
                "version": made.engine_version,
            },
        },
        "attacks": [attack(EROSION)],
        "resources": [
            {"uid": made.space, "name": made.model, "type": "ai_model", "role_id": 1, "role": "Target"},
        ],
        "anomaly_analyses": [_analysis(made)],
        "unmapped": msgspec.to_builtins(made),
    }  # fmt: skip


def _moved(made: DriftRecord) -> tuple[str, str, str]:
    """Title, sentence, and what was tested."""
    sentence = (
        f"The {MEANINGS[made.statistic]} went from {made.before:g} to {made.after:g}"
        f" since {made.since:%Y-%m-%d %H:%M} UTC and stays there."
    )
    return f"Drift of {made.model}: {made.statistic} {made.direction}", sentence, f"{made.rows} rows since then"


def _news(made: DriftRecord) -> tuple[str, str, str]:
    where = f" of {printable(made.field)}" if made.field else ""
    sentence = (
        f"The {MEANINGS[made.statistic]}{where} went from {made.before:.2%} to {made.after:.0%}"
        f" since {made.since:%Y-%m-%d %H:%M} UTC. It is no evidence against a client from here on; calibrate again."
    )
    return f"News in {made.model}: {made.statistic}{where}", sentence, f"{made.clients} of {made.of_clients} clients"


def _analysis(made: DriftRecord) -> Json:
    compared: Json = {"observation_parameter": MEANINGS[made.statistic], "observation_type": "Time Series Analysis"}
    return {
        "analysis_targets": [{"name": made.space, "type": "space"}],
        "anomalies": [{**compared, "observations": [{"value": f"{made.after:.6f}", "count": made.rows}]}],
        "baselines": [{**compared, "observations": [{"value": f"{made.before:.6f}"}]}],
    }
