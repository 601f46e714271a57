"""certify-check: replay other benign history through the code of calibration and compare it with the certificate.

All clients of that history count with their last day, as in the calibration. Client-days are reported as well but not
tested, since days of one client are not independent. Per-client offsets are left out: they only lower what is realised.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from detector.calibrate import shift
from detector.calibrate.certify import last_days, over_all
from detector.calibrate.client_days import DailyMaxima
from detector.calibrate.fit import daily_maxima
from models.artefacts.certificate import Certificate, chance_of_more, holm, rank_of
from models.artefacts.store import ArtefactError, Artefacts
from models.rows import I64
from streams import files
from streams.config.config import Config
from streams.fit import history
from streams.history.base import Source, SourceError
from streams.progress import Reporter
from streams.secrets.load import Secrets
from streams.sketch.identity import identity_of

CHANCE_MAX = 0.05
LAST_CHECK = Path("checks") / "last.json"


class CheckLine(msgspec.Struct, frozen=True):
    """One class and level. clients, alarmed : last days, which are tested; client_days, alarmed_days : all of them.

    chance : of at least as many alarms if the promise holds, adjusted for all lines (Holm); None if the level is
    conditional or has no clients. broken : chance below 5 %.
    """

    name: str
    level: str
    budget: float
    certified: bool
    promised: float
    clients: int
    alarmed: int
    client_days: int
    alarmed_days: int
    chance: float | None
    broken: bool

    @property
    def realised(self) -> float:
        return self.alarmed / self.clients if self.clients else 0.0


class ShiftedMeasure(msgspec.Struct, frozen=True):
    """A comparison of the shift check; see detector/calibrate/shift.py."""

    client_class: str
    measure: str
    then: float
    now: float
    chance: float
    shifted: bool


class CertificateCheck(msgspec.Struct, frozen=True):
    """Result of a check; stored as the artefacts' last check."""

    certificate: str
    history_sha256: str
    first: str
    last: str
    lines: tuple[CheckLine, ...]
    shifts: tuple[ShiftedMeasure, ...]
    notes: tuple[str, ...]

    @property
    def broken(self) -> list[CheckLine]:
        return [line for line in self.lines if line.broken]

    @property
    def stale(self) -> list[ShiftedMeasure]:
        return [moved for moved in self.shifts if moved.shifted]

    @property
    def holds(self) -> bool:
        return not self.broken and not self.stale

    def failures(self) -> Iterator[str]:
        """What does not hold, in words."""
        for line in self.broken:
            yield (
                f"BROKEN: {line.name}, {line.level}: promised {line.promised:g}, realised {line.realised:.2g}"
                f" ({line.alarmed:,} of {line.clients:,} clients; chance {line.chance:.1g})"
            )
        for moved in self.stale:
            yield (
                f"STALE: {moved.client_class}: {moved.measure}: {moved.then:.2%} of clients when certified,"
                f" {moved.now:.2%} now"
            )

    def rows(self) -> Iterator[dict[str, Any]]:
        """One line per class and level, for printing; classes without clients on either side are left out."""
        for line in self.lines:
            if not line.clients and line.promised >= 1:
                continue
            yield {
                "class": line.name,
                "level": line.level,
                "promised": f"{'' if line.certified else '~'}{line.promised:.2g}",
                "realised": f"{line.realised:.2g}" if line.clients else "-",
                "clients": f"{line.alarmed:,} of {line.clients:,}",
                "client-days": f"{line.alarmed_days:,} of {line.client_days:,}",
                "chance": "conditional" if line.chance is None else f"{line.chance:.2g}",
                "verdict": "BROKEN" if line.broken else "",
            }


class CheckResult(CertificateCheck, frozen=True, kw_only=True):
    """A certificate checked on other history. holds : no promise is broken, and clients have not shifted. verdict :
    what does not hold, in words. notes : further remarks."""

    holds: bool
    verdict: tuple[str, ...]

    @classmethod
    def of(cls, found: CertificateCheck) -> "CheckResult":
        return cls(**msgspec.structs.asdict(found), holds=found.holds, verdict=tuple(found.failures()))


def check(
    sources: Sequence[Source], config: Config, artefacts: Artefacts, secrets: Secrets, reporter: Reporter
) -> CertificateCheck:
    """Replay and compare. Raises SourceError, and ArtefactError if there is no certificate."""
    certificate = artefacts.certificate
    if certificate is None:
        raise ArtefactError("these artefacts have no certificate; calibrate again")
    identity = identity_of(secrets, config.input.registry)
    found = history.read(sources, config, identity, artefacts, reporter)
    if found.sha256 == certificate.grounds.history_sha256:
        raise SourceError("this history was calibrated on; check the promise on other clients or days")
    if not found.row_count:
        raise SourceError("no row of this history belongs to a calibrated model; see `probewatch verify`")
    days = over_all(list(_spaces(config, artefacts, found, reporter)))
    last = last_days(days)
    thresholds = next(iter(artefacts.models.values())).reference.thresholds
    lines = _judged(certificate, thresholds, last, days)
    shifts = tuple(ShiftedMeasure(*one) for one in shift.compare(certificate.classes, last))
    notes = _notes(certificate, config)
    return CertificateCheck(certificate.id, found.sha256, *found.period(), lines, shifts, notes)


def store(folder: Path, found: CertificateCheck) -> None:
    """Write the result as the folder's last check, which is not signed."""
    files.write_lines(folder / LAST_CHECK, [msgspec.json.format(msgspec.json.encode(found), indent=1)])


def last_check(folder: Path, artefacts: Artefacts) -> CertificateCheck | None:
    """The last check of this certificate; None if there was none or it is unreadable."""
    try:
        found = msgspec.json.decode((folder / LAST_CHECK).read_bytes(), type=CertificateCheck)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if artefacts.certificate is not None and found.certificate == artefacts.certificate.id else None


def standing(folder: Path, artefacts: Artefacts) -> list[str]:
    """Warnings about the certificate for the operator."""
    if artefacts.certificate is None:
        return ["the artefacts have no certificate; calibrate again"]
    texts = [f"certificate {artefacts.certificate.id}: {warning}" for warning in artefacts.certificate.warnings]
    found = last_check(folder, artefacts)
    return texts if found is None else texts + [f"certificate {found.certificate}: {text}" for text in found.failures()]


def _spaces(config: Config, artefacts: Artefacts, found: history.History, reporter: Reporter) -> Iterator[DailyMaxima]:
    advance = reporter.task("judging", len(artefacts.models))
    for name, model in artefacts.models.items():
        configured = config.models.get(name)
        threshold = configured.decision_threshold if configured else None
        threshold = model.decision_threshold if threshold is None else threshold
        yield daily_maxima(model.encoder, threshold, model.reference, found.rows[name])
        advance(1)


def _judged(certificate: Certificate, thresholds: I64, last: DailyMaxima, days: DailyMaxima) -> tuple[CheckLine, ...]:
    lines = []
    for k, part in enumerate(certificate.classes):
        tested, everything = last.statistic[last.client_class == k], days.statistic[days.client_class == k]
        for number, level in enumerate(part.levels, 1):
            alarmed = int((tested >= thresholds[k, number]).sum())
            chance = None
            if level.certified and len(tested):
                rank = rank_of(level.budget, part.certifying_clients)
                chance = chance_of_more(alarmed, len(tested), part.certifying_clients, rank)
            alarmed_days = int((everything >= thresholds[k, number]).sum())
            counts = (len(tested), alarmed, len(everything), alarmed_days)
            lines.append(
                CheckLine(part.name, level.level, level.budget, level.certified, level.promised, *counts, chance, False)
            )
    adjusted = iter(holm([line.chance for line in lines if line.chance is not None]))
    return tuple(line if line.chance is None else _adjusted(line, next(adjusted)) for line in lines)


def _adjusted(line: CheckLine, chance: float) -> CheckLine:
    return msgspec.structs.replace(line, chance=chance, broken=chance < CHANCE_MAX)


def _notes(certificate: Certificate, config: Config) -> tuple[str, ...]:
    notes = []
    if certificate.grounds.code_sha256 != history.code_sha256():
        notes.append("the engine has changed since certification; calibrate again")
    if certificate.grounds.config_hash != config.hash:
        notes.append(f"the configuration has changed since calibration (then {certificate.grounds.config_hash})")
    return tuple(notes)
