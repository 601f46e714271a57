"""`probewatch calibrate | training-set | certify-check | verify | sign`: artefacts and their certificates."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from detector.events.escape import printable
from streams.cli.arguments import AsJson, Classes, ConfigFile, JsonOutput, Out, RawSources, output
from streams.terminal import print_json, say, show, speaking

if TYPE_CHECKING:
    from models.artefacts.manifest import Inspection
    from streams.config.config import Config
    from streams.secrets.load import Secrets

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `calibrate` wrote.", show_default=False)]


class TrainingSetSummary(msgspec.Struct, frozen=True):
    """A set of training rows. model : "" for any. fields : kind of each. embedding : length of embeddings, 0 for none.
    false_positives : share of other inputs that the set recognises by mistake. bytes : size of the file."""

    model: str
    rows: int
    fields: dict[str, str]
    embedding: int
    false_positives: float
    bytes: int


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """Whether artefacts are as they were signed. files : state of each, "as signed", "altered" or "missing". period :
    of the history behind the certificate; absent without a certificate."""

    ok: bool
    faults: list[str]
    signer: str
    public_key: str
    hash: str
    engine_version: str
    history_sha256: str
    config_hash: str
    code_sha256: str
    certificate: str
    period: str | msgspec.UnsetType = msgspec.UNSET
    files: dict[str, str]


def outputs() -> dict[str, JsonOutput]:
    from streams.fit.calibrate import Calibration
    from streams.fit.certify import CheckResult

    return {
        "calibrate": output("The certificate of the new artefacts.", Calibration),
        "training-set": output("What the set recognises.", TrainingSetSummary),
        "certify-check": output("Whether a certificate holds on other history, by class and level.", CheckResult),
        "verify": output("Who signed the artefacts, and whether all files are as signed.", Verification),
    }


def add_to(app: typer.Typer, panel: str) -> None:
    app.command(rich_help_panel=panel)(calibrate)
    app.command("training-set", rich_help_panel=panel)(training_set)
    app.command("certify-check", rich_help_panel=panel)(certify_check)
    app.command(rich_help_panel=panel)(verify)
    app.command(rich_help_panel=panel)(sign)


@speaking
def calibrate(
    sources: RawSources,
    out: Out,
    config: ConfigFile = None,
    classes: Classes = None,
    exclude: Annotated[
        Path | None,
        typer.Option("--exclude", metavar="FILE", help="Clients to leave out: CSV `client_id,reason`."),
    ] = None,
    training_sets: Annotated[
        list[Path] | None,
        typer.Option(
            "--training-set", metavar="SET", help="Training rows to recognise, from `training-set`. Repeatable."
        ),
    ] = None,
    cold: Annotated[
        bool, typer.Option("--cold", help="The history may contain attackers: raise thresholds, promise nothing.")
    ] = False,
    max_rejected: Annotated[
        float,
        typer.Option("--max-rejected", min=0.0, max=1.0, help="Share of records that may be unreadable."),
    ] = 0.01,
    as_json: AsJson = False,
) -> None:
    """Fit encoders and thresholds on benign history, and certify the false-alarm rate.

    Three in eight clients fit encoders, tables and populations; the others set the thresholds. "~" marks levels with
    too few clients to certify their budget; `promised` is what is certified. DIR/certificate.md has the details, and
    DIR/rejects.jsonl what could not be read.
    Secrets that are not configured are created in DIR/secrets, once; `replay` finds them there.

    Example: probewatch calibrate logs/may/ --out artefacts --classes clients.csv
    """
    from detector.calibrate.certificate_text import field_rows
    from streams.fit.calibrate import Calibration
    from streams.fit.calibrate import calibrate as fit
    from streams.fit.client_lists import removal, with_classes
    from streams.history.sources import open_sources
    from streams.progress import Bars
    from streams.secrets.load import load_settings

    settings = load_settings(config)
    opened = open_sources(sources, settings)
    secrets = secrets_or_new(settings, out)
    declared, removed = with_classes(settings, classes, secrets), removal(exclude, secrets)
    with Bars() as bars:
        sets = training_sets or ()
        report = fit(
            opened, out, declared, secrets, bars,
            cold=cold, removed=removed, training_sets=sets, max_rejected=max_rejected,
        )  # fmt: skip
    if report.unread:
        say(report.unread)
    for warning in (*report.certificate.warnings, *report.order.warnings()):
        say(f"WARNING: {warning}")
    if as_json:
        print_json(Calibration(report.artefacts_hash, report.certificate))
    else:
        show(field_rows(report.certificate), False)
        show(report.rows(), False)
        say(f"certificate {report.certificate.id}; see {out / 'certificate.md'}")


@speaking
def training_set(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Training rows: .jsonl (.gz, .zst) of feature objects or of native records, or .csv with a header.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="SET", help="File to write.")],
    model: Annotated[
        str,
        typer.Option("--model", metavar="NAME", help="Model of the rows; rows of other models are skipped."),
    ] = "",
    leave_out: Annotated[
        list[str] | None,
        typer.Option("--leave-out", metavar="FIELD", help="A field that is not an input of the model. Repeatable."),
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Create a set that recognises training rows without storing them, for `calibrate --training-set SET`.

    The set is keyed with the projection seed, which calibration must share. If no seed is configured, the one in the
    folder `secrets` beside SET is used, or created there: write SET into the folder of the artefacts.

    Example: probewatch training-set train.csv --leave-out default --out artefacts/train.set
    """
    from streams.fit.training_set import make_set
    from streams.progress import Bars
    from streams.secrets.load import load_settings

    secrets = secrets_or_new(load_settings(config), out.parent)
    with Bars() as bars:
        made = make_set(file, out, secrets.projection_seed, bars, model, leave_out or ())
    layout = made.layout
    fields, dim = layout.get("fields", {}), layout.get("dim", 0)
    about = TrainingSetSummary(made.model, made.rows, fields, dim, made.false_positive_rate, out.stat().st_size)
    if as_json:
        print_json(about)
    else:
        shown = {
            "model": made.model or "any",
            "fields": len(fields),
            "false_positives": f"{made.false_positive_rate:.1e}",
        }
        show([msgspec.to_builtins(about) | shown])


@speaking
def certify_check(
    sources: RawSources,
    artefacts: Annotated[Path, typer.Option("--artefacts", metavar="DIR", help="Folder that `calibrate` wrote.")],
    config: ConfigFile = None,
    classes: Classes = None,
    as_json: AsJson = False,
) -> None:
    """Check a certificate on other benign history: false-alarm rates, and whether clients have shifted.

    Exit code 1 if a promise is broken or clients have shifted. The result is stored in DIR/checks; `doctor` and `run`
    warn about it.

    Example: probewatch certify-check logs/june/ --artefacts artefacts
    """
    from models.artefacts.store import load_artefacts
    from streams.fit.certify import CheckResult, check, store
    from streams.fit.client_lists import with_classes
    from streams.history.sources import open_sources
    from streams.progress import Bars
    from streams.secrets.load import load_secrets, load_settings, trusted_keys

    settings = load_settings(config)
    opened = open_sources(sources, settings)
    secrets = load_secrets(settings, artefacts)
    fitted = load_artefacts(artefacts, secrets.projection_seed, trusted_keys(settings))
    with Bars() as bars:
        found = check(opened, with_classes(settings, classes, secrets), fitted, secrets, bars)
    store(artefacts, found)
    if as_json:
        print_json(CheckResult.of(found))
    else:
        show(found.rows(), False)
        show((moved_row for moved_row in _shifts(found)), False)
    for text in (*found.failures(), *(f"note: {note}" for note in found.notes)):
        say(text)
    if not found.holds:
        raise typer.Exit(1)
    say(f"certificate {found.certificate} holds on this history")


def _shifts(found: Any) -> Iterator[dict[str, Any]]:
    for moved in found.shifts:
        yield {
            "class": moved.client_class,
            "shift": moved.measure,
            "then": f"{moved.then:.2%}",
            "now": f"{moved.now:.2%}",
            "chance": f"{moved.chance:.2g}",
            "verdict": "STALE" if moved.shifted else "",
        }


@speaking
def verify(
    folder: Folder,
    config: ConfigFile = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="Required signer: a public key, 64 hexadecimal digits."),
    ] = None,
    openssf: Annotated[
        Path | None,
        typer.Option("--openssf", metavar="PEM", help="Also check model.sig with this OpenSSF public key."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show who signed artefacts, what they were fitted on, and whether a file was altered.

    Exit code 1 if one was, or if this version cannot read them.

    Example: probewatch verify artefacts --key signer.pub
    """
    from models.artefacts.store import inspect_artefacts, readable
    from streams.fit import openssf as model_signing
    from streams.secrets.load import load_settings, read_public_key, trusted_keys

    trusted = trusted_keys(load_settings(config)) if key is None else (read_public_key(key),)
    found = inspect_artefacts(folder, trusted)
    faults = list(found.faults)
    if not faults and (fault := readable(folder, found)):
        faults.append(fault)
    if openssf is not None and (fault := model_signing.verify(folder, openssf)):
        faults.append(fault)
    if as_json:
        print_json(_verification(folder, found, faults))
    else:
        for name, value in msgspec.to_builtins(_verification(folder, found, faults)).items():
            if name not in ("ok", "faults", "files"):
                print(printable(f"{name:14} {value}"))
        show(({"file": file.name, "state": file.state} for file in found.files), False)
        for fault in faults:
            say(f"FAULT: {fault}")
    if faults:
        raise typer.Exit(1)


@speaking
def sign(
    folder: Folder,
    openssf: Annotated[
        Path, typer.Option("--openssf", metavar="PEM", help="Elliptic-curve private key, for model.sig.")
    ],
) -> None:
    """Add an OpenSSF model-signing signature to artefacts that `calibrate` has signed.

    Example: probewatch sign artefacts --openssf key.pem
    """
    from streams.fit import openssf as model_signing

    say(f"written to {model_signing.sign(folder, openssf)}")


def secrets_or_new(config: "Config", folder: Path) -> "Secrets":
    """The configured secrets, else those in `folder`/secrets, created if they are missing."""
    from streams.secrets.load import SecretsError, create_secrets, load_secrets

    try:
        return load_secrets(config, folder)
    except SecretsError as error:
        if "not set" not in str(error):
            raise
    for path in create_secrets(folder):
        say(f"created {path}: keep it safe and out of version control")
    return load_secrets(config, folder)


def _verification(folder: Path, found: "Inspection", faults: list[str]) -> Verification:
    from models.artefacts.signing import fingerprint
    from models.artefacts.store import read_certificate

    signer = found.signer
    provenance = found.manifest.get("provenance", {})
    try:
        certificate = read_certificate(folder, found)
    except (OSError, ValueError):
        certificate = None
    return Verification(
        ok=not faults,
        faults=faults,
        signer="nobody" if signer is None else f"{fingerprint(signer)}{'' if found.trusted else ' (not trusted)'}",
        public_key="" if signer is None else signer.hex(),
        hash=found.hash,
        engine_version=provenance.get("engine_version", ""),
        history_sha256=provenance.get("history_sha256", ""),
        config_hash=provenance.get("config_hash", ""),
        code_sha256=provenance.get("code_sha256", ""),
        certificate="none that can be read" if certificate is None else certificate.id,
        period=msgspec.UNSET if certificate is None else f"{certificate.grounds.first} to {certificate.grounds.last}",
        files={file.name: file.state for file in found.files},
    )
