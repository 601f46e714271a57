"""How many alerts were right: by labels of people, and by the promise of the certificate."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from detector.events.finding import LEVELS
from streams.analyst.events import Alert, ThrottleEvent
from streams.analyst.labels import Label, Verdict, wilson

Pair = tuple[str, str]
"""Client and model."""


class Truth:
    """Labels by incident, else by client and model: another configuration opens other incidents."""

    def __init__(self, labels: Mapping[str, Label]) -> None:
        self._by_incident = {uid: label.verdict for uid, label in labels.items()}
        ordered = sorted(labels.values(), key=lambda label: label.labelled_at)
        self.by_pair: dict[Pair, Verdict] = {(label.client, label.model): label.verdict for label in ordered}

    def of(self, event: Alert | ThrottleEvent) -> Verdict | None:
        return self._by_incident.get(event.incident) or self.by_pair.get((event.client, event.model))


class Score(msgspec.Struct, frozen=True):
    """Counts of clients, by model. Benign clients count as correct alerts: real behaviour, but allowed.

    detector : "" for all together. alerted : clients with an alert. labelled : alerted clients with a verdict. false :
    alerted clients labelled false positive. precision : share of the labelled that are not false.
    precision_low, precision_high : its 95 % Wilson interval. recall : share alerted of all clients labelled not false.
    None without such clients.
    """

    detector: str
    alerted: int
    labelled: int
    false: int
    precision: float | None
    precision_low: float | None
    precision_high: float | None
    recall: float | None


def scores(alerts: Iterable[Alert], truth: Truth) -> list[Score]:
    """All detectors together under "", then each. Recall of a detector refers to the same labelled clients."""
    by_detector: dict[str, dict[Pair, Verdict | None]] = defaultdict(dict)
    for alert in alerts:
        if alert.client:
            for name in ("", alert.detector):
                by_detector[name].setdefault((alert.client, alert.model), truth.of(alert))
    by_detector[""]  # also without any alert
    guilty = [pair for pair, verdict in truth.by_pair.items() if verdict != "false_positive"]
    return [_score(name, pairs, guilty) for name, pairs in sorted(by_detector.items())]


def _score(detector: str, pairs: Mapping[Pair, Verdict | None], guilty: Collection[Pair]) -> Score:
    verdicts = [verdict for verdict in pairs.values() if verdict is not None]
    false = verdicts.count("false_positive")
    right = len(verdicts) - false
    low, high = wilson(right, len(verdicts)) if verdicts else (None, None)
    recalled = sum(pair in pairs for pair in guilty)
    return Score(
        detector, len(pairs), len(verdicts), false,
        _rounded(right / len(verdicts) if verdicts else None), _rounded(low), _rounded(high),
        _rounded(recalled / len(guilty) if guilty else None),
    )  # fmt: skip


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


class Alarms(msgspec.Struct, frozen=True):
    """One level of one replay, in client-days.

    client_days : of all classes. promised_days : of classes with a promise. expected : false alarms that the
    certificate allows for in classes with a promise. alarmed : client-days on which a decision reached the level.
    not_false : alarmed client-days of clients with a label other than false positive. false_at_most : the other
    alarmed client-days.
    """

    level: str
    client_days: int
    promised_days: int
    expected: float
    alarmed: int
    not_false: int
    false_at_most: int


def alarms(summary: Mapping[str, Any], throttles: Iterable[ThrottleEvent], truth: Truth) -> list[Alarms]:
    by_class, days = summary["false_alarms"], {name: c["client_days"] for name, c in summary["classes"].items()}
    reached: dict[tuple[str, Any], tuple[int, bool]] = {}
    for event in throttles:
        day = (event.client, event.time.date())
        top, is_right = reached.get(day, (0, False))
        verdict = truth.of(event)
        reached[day] = max(top, event.level), is_right or verdict in ("true_positive", "benign")
    rows = []
    for level, level_name in enumerate(LEVELS[1:], 1):
        cells = {name: cells[level_name] for name, cells in by_class.items()}
        promised = [name for name, cell in cells.items() if cell["promised"] is not None]
        alarmed = sum(cell["alarmed"] for cell in cells.values())
        right = sum(is_right for top, is_right in reached.values() if top >= level)
        rows.append(
            Alarms(
                level_name, sum(days.values()), sum(days[name] for name in promised),
                round(sum(cells[name]["expected"] for name in promised), 6), alarmed, right, max(0, alarmed - right),
            )
        )  # fmt: skip
    return rows
