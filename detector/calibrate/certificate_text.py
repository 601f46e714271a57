"""A certificate in words: what it promises, to whom, and what it does not promise."""

from collections.abc import Iterator

from detector.events.escape import printable
from detector.events.wording import one_in
from models.artefacts.certificate import Certificate, CertifiedLevel, ClassPart

PROMISE = """It promises: of ordinary clients of a class, at most the stated share reaches a level on a day, over all
models, detectors and families together. A client is ordinary if it could equally have been one of the certifying
clients: same service, same kinds of use. The share is an average over calibrations; the interval says how far this
calibration may be off. Per-client offsets only raise thresholds, so they weaken no promise.

It does not promise that attackers are found. It says nothing about clients whose use has changed, about classes that
clients were not declared in, or about several accounts of one person. Figures marked ~ are aims; the promised figure is
in the next column. `probewatch certify-check` compares a certificate with newer history and reports staleness."""
ALIKE_SHARE = 0.01
FAR = 20.0
"""Tail lengths. In an exponential tail of slope 1.5 to 3.3 the highest client is 3 to 8 above the sixth."""


def warnings(parts: tuple[ClassPart, ...], *, cold: bool) -> tuple[str, ...]:
    """What to know before relying on a certificate."""
    return tuple(_warnings(parts, cold))


def _warnings(parts: tuple[ClassPart, ...], cold: bool) -> Iterator[str]:
    if cold:
        yield "fitted without trusted history: nothing is promised; calibrate again once there are benign days"
    for part in parts:
        if part.alike > max(1, ALIKE_SHARE * part.certifying_clients):
            yield (
                f"{part.name}: {part.alike:,} certifying clients behaved exactly like another one; copies of one"
                " machine count as many clients, so the promise is weaker than the number of clients suggests"
            )
        fragile = filter(None, (_fragile(part.name, level) for level in part.levels))
        yield from list(fragile)[:1]


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
