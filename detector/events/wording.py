"""From a finding to sentences for people. Words only: every figure is in the finding."""

import math
from typing import NamedTuple

from detector.detectors import REGISTRY
from detector.events.escape import printable
from detector.events.finding import LEVELS, PERSON, Family, Finding
from detector.evidence import PROCESSES

TITLES = {detector.name: detector.title for detector in REGISTRY} | {PERSON: "Decision taken back by a person"}

FEATURES = {
    "flip": "flips of the answer",
    "edit": "one-field and few-field edits",
    "collinear": "steps along one line",
    "margin": "answers close to the decision threshold",
    "record": "new best scores",
    "step": "search-like step lengths",
    "field": "the choice of the edited field",
    "equal_step": "steps of equal length",
}
"""What each feature of a variant means."""

MEANINGS = FEATURES | {process.feature: process.meaning for process in PROCESSES if not process.of_family}
"""What each feature of a contribution means; a name that is not here speaks for itself."""

OF_CLIENTS = frozenset(detector.name for detector in REGISTRY if not detector.profiles)
"""Detectors that look at all of a client's inputs; its largest family has little to do with them."""

CELLS = 64

RESPONSES = {
    "cap": "held to its limits",
    "delay": "slowed down",
    "challenge": "asked to prove itself",
    "block": "refused",
}

COUNTED = {process.name: process.unit for process in PROCESSES if process.unit != "nats"}
"""Processes whose evidence is a plain count (in thousandths), not nats. An explained input counts for several."""

NAMED_MAX = 4
BUDGET_MIN = 1e-9
SPANS_MS = ((86_400_000, "days"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"))


class Explanation(NamedTuple):
    """One line each. A line with nothing to say is empty.

    seen : what the client did. evidence : its leading parts. threshold : what it was held against. budget : what the
    threshold promises. nearest : earlier request ids of the same family. decision : what follows.
    """

    title: str
    seen: str
    evidence: str
    threshold: str
    budget: str
    nearest: str
    decision: str

    def text(self) -> str:
        """All lines but the title, as sentences."""
        return " ".join(f"{line[0].upper()}{line[1:]}." for line in self[1:] if line)

    def printable(self) -> "Explanation":
        """Names of fields, labels and requests come from the log: here they are read, not looked up."""
        return Explanation(*map(printable, self))


def explain(finding: Finding) -> Explanation:
    by_person = finding.reason == PERSON
    earlier = earlier_requests(finding)
    explanation = Explanation(
        title=f"{TITLES.get(finding.reason, finding.reason)}: model {finding.model}",
        seen=_seen(finding),
        evidence="" if by_person else _evidence(finding),
        threshold="" if by_person else _threshold(finding),
        budget="" if by_person else _budget(finding),
        nearest=f"nearest earlier requests: {', '.join(earlier)}" if earlier else "",
        decision=_decision(finding),
    )
    return explanation.printable()


def _seen(finding: Finding) -> str:
    family, counts = finding.family, finding.counts
    if family is not None and family.variants > 0 and finding.reason not in OF_CLIENTS:
        parts = [f"{_count(family.variants, 'variant')} of one input in {span(family.last_ms - family.first_ms)}"]
        parts += [_fields(family), ", ".join(f"{rows:,} {label}" for label, rows in family.labels[:NAMED_MAX])]
        parts += [f"the answer flipped {_count(family.flips, 'time')}"] if family.flips else []
    else:
        parts = [f"{_count(counts.rows, 'row')}, {counts.distinct:,} of them different"]
        parts += [f"from {counts.cells} of the population's {CELLS} cells"] if counts.cells else []
    if counts.offgrid_rows:
        held = "row holds" if counts.offgrid_rows == 1 else "rows hold"
        where = f" of {_names(counts.offgrid_fields)}" if counts.offgrid_fields else ""
        parts.append(f"{counts.offgrid_rows:,} {held} values off the grid{where}")
    if counts.low_margin_rows:
        parts.append(f"{_count(counts.low_margin_rows, 'row')} close to the decision threshold")
    parts += [f"{_count(counts.member_rows, 'record')} of the training set"] if counts.member_rows else []
    parts += [f"{_count(counts.explained_rows, 'explanation')} asked for"] if counts.explained_rows else []
    parts += [f"{_count(counts.unreadable_rows, 'row')} not read in full"] if counts.unreadable_rows else []
    parts += [f"{_count(counts.unjudged_rows, 'row')} without a usable input"] if counts.unjudged_rows else []
    return "; ".join(part for part in parts if part)


def _fields(family: Family) -> str:
    """ "`income` took 9 values, `tenure` 4, and 2 more fields changed" """
    varied = [field for field in family.fields if field.distinct_values > 0]
    if not varied:
        return ""
    first, *others = varied[:NAMED_MAX]
    text = f"`{first.name}` took {_count(first.distinct_values, 'value')}"
    text += "".join(f", `{field.name}` {field.distinct_values:,}" for field in others)
    more = len(varied) - NAMED_MAX
    return text if more <= 0 else f"{text}, and {_count(more, 'more field')} changed"


def _evidence(finding: Finding) -> str:
    if finding.process in COUNTED:
        return f"{finding.evidence_mnats / 1000:,.0f} {COUNTED[finding.process]}"
    parts = [(name, mnats) for name, mnats in finding.contributions if mnats > 0][:NAMED_MAX]
    if not parts:
        return f"{nats(finding.evidence_mnats)} nats of evidence"
    (name, mnats), *others = parts
    text = f"{nats(mnats)} of {nats(finding.evidence_mnats)} nats from {phrase(name)}"
    return text + "".join(f", {nats(value)} from {phrase(other)}" for other, value in others)


def _threshold(finding: Finding) -> str:
    alone = finding.threshold_mnats / 1000
    unit = f"{alone:,.0f} {COUNTED[finding.process]}" if finding.process in COUNTED else f"{alone:.1f} nats"
    score = f"{finding.excess_milli / 1000:.2f} against {finding.threshold_milli / 1000:.2f}"
    name = LEVELS[finding.decision.level]
    return f'threshold "{name}" for class {finding.client_class}: {unit} alone; score over everything {score}'


def _budget(finding: Finding) -> str:
    if not BUDGET_MIN <= finding.budget <= 1:
        return ""
    share = f"{one_in(finding.budget)} ordinary clients is alarmed in a day"
    if finding.certified:
        return f"at most {share}, certified by {finding.certificate}"
    aim = f"the threshold aims at: {share}; this figure is conditional"
    if finding.certificate and finding.promised < 1:
        return f"{aim}: promised is {one_in(finding.promised)}, by certificate {finding.certificate}"
    return f"{aim}, no certificate backs it"


def one_in(rate: float) -> str:
    """Rounded down, so that the promise does not get smaller. (1 / 1e-5 is a little less than 100,000.)"""
    return f"1 in {math.floor(1 / rate + 1e-6):,}" if rate < 1 else "nothing"


def about(count: float) -> str:
    """An expected count: whole where it is large, two digits where it is small."""
    return f"{count:,.0f}" if count >= 10 else f"{count:.2g}"


def earlier_requests(finding: Finding) -> tuple[str, ...]:
    """Ids of the nearest requests of the family, without the deciding one, which may be its newest member."""
    ids = finding.family.nearest_request_ids if finding.family is not None else ()
    return tuple(request_id for request_id in ids if request_id != finding.trigger.request_id)


def _decision(finding: Finding) -> str:
    decision = finding.decision
    held = span(decision.expires_ms - decision.issued_ms)
    match decision.action:
        case "observe":
            text = f"watched for {held}"
        case "lift":
            text = "nothing is asked of gateways any more"
        case action:
            limits = _limits(finding)
            text = f"{RESPONSES.get(action, action)}{f' ({limits})' if limits else ''} for {held}"
    if decision.level == LEVELS.index("block"):
        text = f"a block is proposed, for a person to confirm; until then {text}"
    return f"{text}; in shadow mode: gateways do not act on it" if decision.mode == "shadow" else text


def _limits(finding: Finding) -> str:
    decision = finding.decision
    named = (
        (decision.requests_per_minute, "request", " a minute"),
        (decision.tokens_per_minute, "token", " a minute"),
        (decision.max_concurrency, "request", " at once"),
    )
    limits = [f"{_count(value, noun)}{how}" for value, noun, how in named if value is not None]
    return ", ".join(limits if decision.delay_ms is None else [*limits, f"delayed by {decision.delay_ms:,} ms"])


def phrase(feature: str) -> str:
    return MEANINGS.get(feature, feature)


def nats(mnats: int) -> str:
    return f"{mnats / 1000:.1f}"


def span(ms: int) -> str:
    """ "40 s", "12 min", "3 h", "2 days": the largest unit of which there are at least two (or seconds)."""
    for unit_ms, unit in SPANS_MS:
        if ms >= 2 * unit_ms or (unit == "s" and ms >= unit_ms):
            return f"{ms // unit_ms:,} {unit}"
    return "under 1 s"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)
