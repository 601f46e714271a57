"""Labels: verdicts of analysts on incidents, and the share of false alarms."""

from collections.abc import Collection, Iterable
from datetime import datetime
from math import sqrt
from typing import Literal

import msgspec

from probewatch_door.record import Time
from streams.analyst import feedback
from streams.analyst.events import Alert, Place
from streams.config.config import Config

SCHEMA = "probewatch.feedback/1"
Verdict = Literal["true_positive", "false_positive", "benign"]
VERDICTS: dict[Verdict, Literal[1, 2, 5]] = {"true_positive": 2, "false_positive": 1, "benign": 5}
"""OCSF's verdict_id of each."""

WORDS: dict[str, Verdict] = {"true": "true_positive", "false": "false_positive", "benign": "benign"}
"""As a person gives them. benign: it was what the alert says, and permitted: a test by one's own people, say."""

Z_95 = 1.959964


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """Schema probewatch.feedback/1: the verdict on one incident. event_uid : the alert it was given on."""

    schema: Literal["probewatch.feedback/1"] = "probewatch.feedback/1"
    finding_uid: str
    event_uid: str
    verdict: Verdict
    verdict_id: Literal[1, 2, 5]
    reason: str
    labelled_at: Time
    detectors: tuple[str, ...]
    model: str
    client: str
    config_hash: str
    artefact_hash: str


_label = msgspec.json.Decoder(Label)


def label_of(alert: Alert, detectors: Collection[str], verdict: Verdict, reason: str, at: datetime) -> Label:
    """detectors : all that the incident's alerts name."""
    return Label(
        finding_uid=alert.incident,
        event_uid=alert.uid,
        verdict=verdict,
        verdict_id=VERDICTS[verdict],
        reason=reason,
        labelled_at=at,
        detectors=tuple(detectors),
        model=alert.model,
        client=alert.client,
        config_hash=alert.config_hash,
        artefact_hash=alert.artefact_hash,
    )


def read_labels(place: Place, config: Config) -> dict[str, Label]:
    """finding_uid -> the last label given. Raises EventError for a file, SourceError for an unreadable topic."""
    return labels_in(feedback.read(place, config))


def labels_in(said: Iterable[feedback.FeedbackRecord]) -> dict[str, Label]:
    """Likewise, of what was read."""
    return {label.finding_uid: label for label in feedback.of(said, SCHEMA, _label.decode)}


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """Verdicts on one detector's incidents. false_share : of all labelled; low, high : its 95 % Wilson interval."""

    detector: str
    labelled: int
    true_positive: int
    benign: int
    false_positive: int
    false_share: float
    low: float
    high: float


class LabelReport(msgspec.Struct, frozen=True):
    """All labels, and the share of false alarms by detector."""

    labels: list[Label]
    detectors: list[Share]


def shares(labels: Iterable[Label]) -> list[Share]:
    """By detector; an incident of several detectors counts for each. It is a share of what was *labelled*."""
    verdicts: dict[str, list[Verdict]] = {}
    for label in labels:
        for detector in label.detectors:
            verdicts.setdefault(detector, []).append(label.verdict)
    return [_share(detector, found) for detector, found in sorted(verdicts.items())]


def _share(detector: str, found: list[Verdict]) -> Share:
    false = found.count("false_positive")
    low, high = wilson(false, len(found))
    return Share(
        detector=detector,
        labelled=len(found),
        true_positive=found.count("true_positive"),
        benign=found.count("benign"),
        false_positive=false,
        false_share=round(false / len(found), 4),
        low=round(low, 4),
        high=round(high, 4),
    )


def wilson(hits: int, of: int, z: float = Z_95) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927): unlike the usual one it is sound for few cases, and for none hit."""
    if of == 0:
        return 0.0, 1.0
    share, spread = hits / of, z * z / of
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * sqrt(share * (1 - share) / of + spread / (4 * of))
    return max(0.0, middle - half), min(1.0, middle + half)
