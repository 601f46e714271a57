"""History to artefacts: fit encoders on three in eight clients, references on their rows, thresholds on the others.

History is read twice: once to fit the encoders, once through the same sketch that runs live.
"""

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from detector import __version__
from detector.calibrate.certificate_text import PROMISE, field_warnings, page, warnings
from detector.calibrate.certify import Certification, certify, class_parts
from detector.calibrate.client_days import DailyMaxima, first_rows, select
from detector.calibrate.fit import COLD_ROWS, daily_maxima, fit_reference, is_fitting, with_drift_limits
from detector.calibrate.screening import suspicious
from detector.events.escape import json_bytes
from detector.events.wording import one_in
from detector.evidence import PROCESSES
from models import private
from models.artefacts.certificate import Certificate, Grounds
from models.artefacts.population import Population
from models.artefacts.reference import Reference
from models.artefacts.store import CERTIFICATE, ModelArtefact, save_artefacts
from models.artefacts.training_set import Members
from models.encoders.base import Encoder
from models.pseudonym import pseudonym
from models.rows import CLASSES, U64, distinct
from streams import files
from streams.config.config import Config
from streams.fit import history, training_set
from streams.fit.client_lists import NO_REMOVAL, Removal
from streams.fit.history import History
from streams.fit.sample import FittedInputs, fit_inputs, read_samples, why_nothing
from streams.history.base import Source, SourceError
from streams.history.order import LogOrder
from streams.progress import Reporter
from streams.secrets.load import Secrets, load_signing_key
from streams.sketch.identity import identity_of
from streams.wire.rejects import REJECTS_FILE, by_reason

REJECTED_SHARE_MAX = 0.01
CERTIFICATE_PAGE = "certificate.md"
HIGHEST = "highest.csv"
HIGHEST_CLIENTS = 10


class Sketched(NamedTuple):
    """A model with a fitted encoder and no reference yet: enough for the sketch."""

    model: str
    encoder: Encoder
    decision_threshold: float | None
    population: Population | None
    members: Members | None

    @property
    def space(self) -> str:
        return f"{self.model}@{self.encoder.id}"


class FittedModels(NamedTuple):
    models: dict[str, Sketched]


class Calibration(msgspec.Struct, frozen=True):
    """A calibration. artefact_hash : of the folder. certificate : what it promises, see docs/certificates.md."""

    artefact_hash: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
    certificate: Certificate


class Report(NamedTuple):
    """Result of a calibration, for printing. unread : what could not be read of the history, "" for nothing."""

    artefacts_hash: str
    certificate: Certificate
    unread: str
    order: LogOrder

    def rows(self) -> Iterator[dict[str, Any]]:
        """One line per class and level. Thresholds in tail lengths; "~" marks a conditional one."""
        for part in filter(attrgetter("certifying_clients"), self.certificate.classes):
            for level in part.levels:
                yield {
                    "class": part.name,
                    "certifying clients": part.certifying_clients,
                    "level": level.level,
                    "threshold": f"{'' if level.certified else '~'}{level.threshold:.1f}",
                    "aims at": one_in(level.budget),
                    "promised": one_in(level.promised),
                    "this calibration (95 %)": f"{level.rate_low:.2g} to {level.rate_high:.2g}",
                }


def calibrate(
    sources: Sequence[Source],
    out: Path,
    config: Config,
    secrets: Secrets,
    reporter: Reporter,
    *,
    cold: bool = False,
    removed: Removal = NO_REMOVAL,
    training_sets: Sequence[Path] = (),
    max_rejected: float = REJECTED_SHARE_MAX,
) -> Report:
    """Fit and write signed artefacts to `out`.

    cold : the history may hold attackers, so each client contributes little and nothing is promised. removed : clients
    that neither fit nor certify. training_sets : files of `probewatch training-set`. max_rejected : share of records
    that may be unreadable; `out`/rejects.jsonl lists those that are. Raises SecretsError, and SourceError if more are,
    if nothing can be fitted on the history, or if a training set does not fit.
    """
    identity = identity_of(secrets, config.input.registry)
    signing_key = load_signing_key(config, out)
    sets = {str(path): training_set.read_set(path, secrets.projection_seed) for path in training_sets}
    samples = read_samples(sources, config, identity, removed, reporter)
    inputs, notes = fit_inputs(samples, config, secrets.projection_seed)
    models = _models(inputs, sets, config)
    whole = history.read(sources, config, identity, models, reporter)
    _check_rejected(whole, max_rejected, out)
    if not inputs:
        raise SourceError(f"{why_nothing(samples, whole.told)}; no artefacts were written")
    kept = whole.without(removed.reasons)
    fit_all = _fit(models, kept, reporter, cold=cold)
    certificate = _certificate(config, models, whole, kept, fit_all, removed, cold=cold)
    certificate = _with_fields(certificate, inputs, notes)
    fitted: list[ModelArtefact] = []
    for name, model in models.models.items():
        labels = {identity.label(label): str(label) for label in inputs[name].labels}
        reference = fit_all.certification.applied(fit_all.references[name])
        about = model.encoder, reference, model.decision_threshold, labels, model.population
        fitted.append(ModelArtefact(name, *about, members=model.members))
    documents = {CERTIFICATE: certificate.to_json(), CERTIFICATE_PAGE: page(certificate).encode()}
    provenance = {
        "cold": cold,
        "history_sha256": whole.sha256,
        "config_hash": config.hash,
        "engine_version": __version__,
        "code_sha256": certificate.grounds.code_sha256,
        "processes": [process.name for process in PROCESSES],
        "rejects": by_reason(whole.rejects),
        "training_rows": {name: model.members.rows for name, model in models.models.items() if model.members},
    }
    artefacts_hash = save_artefacts(out, fitted, provenance, signing_key, documents)
    highest = "".join(_highest(fit_all.certification.days, kept, secrets.key_id))
    private.write(out / HIGHEST, highest.encode())
    return Report(artefacts_hash, certificate, whole.told, whole.order)


def _check_rejected(whole: History, most: float, out: Path) -> None:
    """Lists what was rejected; raises SourceError if it was more than a share of the records."""
    files.write_lines(out / REJECTS_FILE, map(json_bytes, whole.rejects))
    if sum(reject.count for reject in whole.rejects) > most * whole.records:
        raise SourceError(
            f"{whole.told}: more than {most:.0%} of the records. {out / REJECTS_FILE} lists them; --max-rejected SHARE"
            " takes the others all the same; no artefacts were written"
        )


def _models(inputs: Mapping[str, FittedInputs], sets: Mapping[str, Members], config: Config) -> FittedModels:
    members = training_set.assign(sets, {name: one.encoder for name, one in inputs.items()})
    models = {}
    for name, one in inputs.items():
        configured = config.models.get(name)
        threshold = configured.decision_threshold if configured else None
        models[name] = Sketched(name, one.encoder, threshold, one.population, members.get(name))
    return FittedModels(models)


def _with_fields(certificate: Certificate, inputs: Mapping[str, FittedInputs], notes: Sequence[str]) -> Certificate:
    fields = {name: one.fields for name, one in inputs.items() if one.fields}
    told = [warning for name, taken in fields.items() for warning in field_warnings(name, taken)]
    return msgspec.structs.replace(
        certificate, fields=fields, warnings=(*certificate.warnings, *notes, *told)
    ).identified()


class Fitted(NamedTuple):
    """references : by model. set_aside : suspicious fitting clients, excluded from the fit."""

    references: dict[str, Reference]
    certification: Certification
    set_aside: U64


def _fit(models: FittedModels, kept: History, reporter: Reporter, *, cold: bool) -> Fitted:
    references: dict[str, Reference] = {}
    maxima: list[DailyMaxima] = []
    set_aside: list[U64] = []
    advance = reporter.task("fitting references", len(models.models))
    for name, model in models.models.items():
        rows = first_rows(kept.rows[name], COLD_ROWS) if cold else kept.rows[name]
        aside = np.zeros(0, np.uint64) if cold else suspicious(model.encoder, model.decision_threshold, rows)
        teaching = [select(part, ~np.isin(part.client, aside)) for part in rows]
        reference = fit_reference(model.encoder, model.decision_threshold, teaching, cold=cold)
        certifying = [select(part, ~is_fitting(part.client)) for part in rows]
        days = daily_maxima(model.encoder, model.decision_threshold, reference, certifying)
        maxima.append(days)
        references[name] = with_drift_limits(reference, days)
        set_aside.append(aside)
        advance(1)
    return Fitted(references, certify(maxima, cold=cold), distinct(np.concatenate(set_aside)))


def _certificate(
    config: Config,
    models: FittedModels,
    whole: History,
    kept: History,
    fitted: Fitted,
    removed: Removal,
    *,
    cold: bool,
) -> Certificate:
    parts = class_parts(fitted.certification, _fitting_clients(kept), cold=cold)
    days = fitted.certification.days.day
    first, last = whole.period()
    return Certificate(
        spaces=tuple(model.space for model in models.models.values()),
        classes=parts,
        fields={},
        removed=removed.found(whole.clients()),
        grounds=Grounds(
            history_sha256=whole.sha256,
            config_hash=config.hash,
            code_sha256=history.code_sha256(),
            engine_version=__version__,
            first=first,
            last=last,
            certified_from=history.date(int(days.min())) if len(days) else "",
            certified_to=history.date(int(days.max())) if len(days) else "",
            records=whole.records,
            rows=kept.row_count,
            declared_classes=len(config.input.registry),
            set_aside=len(fitted.set_aside),
        ),
        cold=cold,
        warnings=warnings(parts, cold=cold),
        statement=PROMISE,
    )


def _highest(days: DailyMaxima, kept: History, key_id: str) -> Iterator[str]:
    """The certifying clients that decide thresholds, for review, as a file that --exclude reads."""
    order = np.argsort(-days.statistic, kind="stable")
    chosen = [place for k in range(len(CLASSES)) for place in order[days.client_class[order] == k][:HIGHEST_CLIENTS]]
    yield "client,reason,class,tail_lengths,rows\n"
    for place in chosen:
        key = days.client[place]
        tail = next(
            part.client_tail[at[0]].tobytes()
            for parts in kept.rows.values()
            for part in parts
            if len(at := np.flatnonzero(part.client == key))
        )
        score, rows = days.statistic[place] / 1000, days.rows[place]
        yield f"{pseudonym(key_id, int(key), tail)},,{CLASSES[days.client_class[place]]},{score:.1f},{rows}\n"


def _fitting_clients(kept: History) -> list[int]:
    """(3,) by class."""
    rows = [part for parts in kept.rows.values() for part in parts]
    own = [np.concatenate([part.client[part.client_class == k] for part in rows] or [[]]) for k in range(len(CLASSES))]
    return [len(np.unique(clients[is_fitting(clients.astype(np.uint64))])) for clients in own]
