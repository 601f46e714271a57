"""A certificate in words: what it promises, to whom, and what it does not promise."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from detector.events.escape import printable
from detector.events.finding import LEVELS
from detector.events.wording import one_in
from models.artefacts.certificate import BUDGETS, Certificate, CertifiedLevel, ClassPart
from models.encoders.base import CATEGORY, CONFIGURED, LEFT_OUT, NUMBER, FieldTaken

PROMISE = """It promises: of ordinary clients of a class, at most the stated share reaches a level on a day, over all
models, detectors and families together. A client is ordinary if it could equally have been one of the certifying
clients: same service, same kinds of use. The share is an average over calibrations; the interval says how far this
calibration may be off. Per-client offsets only raise thresholds, so they weaken no promise.

It does not promise that attackers are found. It says nothing about clients whose use has changed, about classes that
clients were not declared in, or about several accounts of one person. Figures marked ~ are aims; the promised figure is
in the next column. `probewatch certify-check` compares a certificate with newer history and reports staleness."""
ALIKE_SHARE = 0.01
_PLURAL = {NUMBER: "numbers", CATEGORY: "categories"}
FAR = 20.0
"""Tail lengths. In an exponential tail of slope 1.5 to 3.3 the highest client is 3 to 8 above the sixth."""


UNSEEN_SHARE = 0.5
FEW_FITTING_CLIENTS = 100
FIELD_WARNINGS_MAX = 20
"""Of one model; the table of fields has all of them."""


def warnings(parts: tuple[ClassPart, ...], *, cold: bool) -> tuple[str, ...]:
    """What to know before relying on a certificate."""
    return tuple(_warnings(parts, cold))


def field_warnings(model: str, fields: Sequence[FieldTaken]) -> tuple[str, ...]:
    """What calibration left out, or could not read, in plain words."""
    told = [f"model {_quoted(model)}: {text}" for field in fields if (text := _field_warning(field))]
    if len(told) > FIELD_WARNINGS_MAX:
        more = f"model {_quoted(model)}: {len(told) - FIELD_WARNINGS_MAX} more such fields; see the table of fields"
        told = [*told[:FIELD_WARNINGS_MAX], more]
    return tuple(told)


def field_rows(certificate: Certificate) -> Iterator[dict[str, Any]]:
    """One line per model and field, for printing."""
    for model, fields in certificate.fields.items():
        for field in fields:
            kept = field.kind != LEFT_OUT
            yield {
                "model": model,
                "field": field.name,
                "taken as": field.kind if kept else "left out",
                "grid": f"{field.step:g}" if field.step else "",
                "levels": f"{field.levels:,}" if kept else "",
                "null": f"{field.null:.1%}",
                "unseen": "" if field.unseen is None else f"{field.unseen:.1%}",
                "note": field.reason or (f"{field.odd_rows:,} rows unreadable" if field.odd_rows else ""),
            }


def _field_warning(field: FieldTaken) -> str:
    name = _quoted(field.name)
    if field.kind == LEFT_OUT:
        return "" if field.reason == CONFIGURED else f"{name}: {field.reason}; left out"
    if field.odd_rows:
        share = _floored(1.0 - field.odd_rows / field.rows)
        hold = "1 row holds" if field.odd_rows == 1 else f"{field.odd_rows:,} rows hold"
        return f"{share} of {name} are {_PLURAL[field.kind]}, {hold} something else: read as missing"
    if field.kind == CATEGORY and field.unseen is not None and field.unseen > UNSEEN_SHARE:
        return (
            f"{name}: {field.unseen:.0%} of the certifying clients' values are new; leave it out if it is an identifier"
        )
    return ""


def _floored(share: float) -> str:
    """Per cent, never 100 % of what is not all of it."""
    return f"{math.floor(share * 10_000) / 100:.2f} %"


def _warnings(parts: tuple[ClassPart, ...], cold: bool) -> Iterator[str]:
    if cold:
        yield "fitted without trusted history: nothing is promised; calibrate again once there are benign days"
    certifying, fitting = (sum(counts) for counts in zip(*map(_clients, parts), strict=True)) if parts else (0, 0)
    if certifying < rank_needs(BUDGETS[1]):
        needs = ", ".join(f"{LEVELS[level]} {rank_needs(BUDGETS[level]):,}" for level in (1, 2, 3))
        yield (
            f"only {certifying:,} clients certify, so no level promises less than {one_in(1 / (certifying + 1))}"
            f" client-days; for what levels aim at, certifying clients (five in eight of all) are needed: {needs}"
        )
    if fitting < FEW_FITTING_CLIENTS:
        yield f"only {fitting:,} clients fit, so what is ordinary is a guess; {FEW_FITTING_CLIENTS} are a beginning"
    for part in parts:
        if part.alike > max(1, ALIKE_SHARE * part.certifying_clients):
            yield (
                f"{part.name}: {part.alike:,} certifying clients behaved exactly like another one; copies of one"
                " machine count as many clients, so the promise is weaker than the number of clients suggests"
            )
        fragile = filter(None, (_fragile(part.name, level) for level in part.levels))
        yield from list(fragile)[:1]


def _clients(part: ClassPart) -> tuple[int, int]:
    return part.certifying_clients, part.fitting_clients


def rank_needs(budget: float) -> int:
    """Certifying clients that promise a budget."""
    return round(1.0 / budget) - 1


def _fragile(name: str, level: CertifiedLevel) -> str:
    """A warning if a few clients far above all others decide the threshold, else ""."""
    for top, without in level.without_top.items():
        if without is not None and level.threshold - without > FAR:
            who = "one client alone raises" if top == "1" else f"{top} clients together raise"
            return (
                f"{name}: {who} the threshold of {level.level} from {without:.1f} to {level.threshold:.1f}: review the"
                " clients in highest.csv, and exclude those that were not ordinary (--exclude)"
            )
    return ""


def page(certificate: Certificate) -> str:
    """Markdown."""
    return "\n".join(printable(line, "\n") for line in _page(certificate)) + "\n"


def _quoted(name: str) -> str:
    """A name from the log, escaped."""
    return f"`{printable(name).replace('`', '')}`"


def _page(certificate: Certificate) -> Iterator[str]:
    grounds = certificate.grounds
    yield f"# Certificate {certificate.id}"
    yield ""
    yield f"False alarms of ordinary clients per day, for {', '.join(map(_quoted, certificate.spaces))}."
    for warning in certificate.warnings:
        yield f"\n**Warning:** {warning}."
    for part in certificate.classes:
        yield from _class(part)
    yield from _fields(certificate)
    yield "\n## What it promises and what it does not\n"
    yield certificate.statement
    yield "\n## Grounds\n"
    yield f"- History from {grounds.first} to {grounds.last}: {grounds.records:,} records, {grounds.rows:,} rows;"
    yield f"  SHA-256 `{grounds.history_sha256}`"
    yield f"- Last days of certifying clients: {grounds.certified_from} to {grounds.certified_to}"
    yield f"- Clients declared in the registry: {grounds.declared_classes:,}"
    removed = certificate.removed
    reasons = "; ".join(f"{count:,} {reason}" for reason, count in removed.reasons.items())
    yield f"- Suspicious fitting clients, excluded from the fit: {grounds.set_aside:,}"
    yield f"- Clients excluded by hand: {removed.found:,}{f' ({reasons})' if reasons else ''}"
    yield f"- Engine {grounds.engine_version}, code `{grounds.code_sha256[:16]}`, configuration `{grounds.config_hash}`"


def _fields(certificate: Certificate) -> Iterator[str]:
    rows = list(field_rows(certificate))
    if not rows:
        return
    yield "\n## Fields\n"
    yield "Shares count clients alike. Unseen: values of certifying clients that fewer than two fitting clients sent.\n"
    yield f"| {' | '.join(rows[0])} |"
    yield "|---" * len(rows[0]) + "|"
    for row in rows:
        cells = (_quoted(text) if name in ("model", "field") else text for name, text in row.items())
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _class(part: ClassPart) -> Iterator[str]:
    yield f"\n## {part.name.capitalize()}\n"
    if not part.certifying_clients:
        yield "No certifying clients: the consumers' thresholds apply, and nothing is promised."
        return
    own = f"{part.certifying_clients:,} certifying clients, {part.fitting_clients:,} fitting clients."
    yield own + (" Too few: the consumers' thresholds are the least." if part.borrowed else "")
    yield ""
    yield "| level | threshold | aims at | promised on average | this calibration, 95 % | at most, 95 % sure |"
    yield "|---|---|---|---|---|---|"
    for level in part.levels:
        mark = "" if level.certified else "~"
        between = f"{level.rate_low:.2g} to {level.rate_high:.2g}"
        sure = f"{level.rate_at_most:.2g}: {one_in(level.confident)}"
        yield (
            f"| {level.level} | {mark}{level.threshold:.1f} | {one_in(level.budget)} | {one_in(level.promised)} |"
            f" {between} | {sure} |"
        )
    yield ""
    yield "Thresholds in tail lengths, if the highest 1, 5 or 10 clients were absent, or as many more were above all:\n"
    yield "| level | without 1 | without 5 | without 10 | 1 more | 5 more | 10 more |"
    yield "|---|---|---|---|---|---|---|"
    for level in part.levels:
        moved = [*level.without_top.values(), *level.with_more.values()]
        yield f"| {level.level} | " + " | ".join("set by them" if x is None else f"{x:.1f}" for x in moved) + " |"
