"""`probewatch replay`: history judged again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from streams.cli.arguments import ArtefactFolder, AsJson, Classes, ConfigFile, Out, Sources
from streams.cli.artefacts import secrets_or_new
from streams.cli.compare import compared
from streams.terminal import say, show, speaking

if TYPE_CHECKING:
    from models.artefacts.store import Artefacts
    from streams.config.config import Config
    from streams.history.base import Source
    from streams.progress import Bars
    from streams.replay import Options, Outcome, Selection
    from streams.secrets.load import Secrets

STOPPED = 130
WHAT_IF = "what-if"
COMPARISON_FILE = "compare.json"

EarlierConfig = Annotated[
    list[Path] | None,
    typer.Option(
        "--earlier-config",
        metavar="FILE",
        help="What workers had before --config; they wrote down when it changed. Oldest first, once for each.",
    ),
]
PlainClients = Annotated[
    bool, typer.Option("--plain-clients", help="Put the log's client ids, not pseudonyms, into `client`.")
]
Since = Annotated[
    str, typer.Option("--since", metavar="TIME", help="Tell events from this event time on: RFC 3339, or a date.")
]
Until = Annotated[str, typer.Option("--until", metavar="TIME", help="Tell events before this event time.")]
First = Annotated[
    int | None,
    typer.Option("--from", metavar="OFFSET", min=0, help="Tell events from this offset of every partition on."),
]
End = Annotated[int | None, typer.Option("--to", metavar="OFFSET", min=0, help="Tell events before this offset.")]
OfClient = Annotated[
    str, typer.Option("--client", metavar="CLIENT", help="Only this client: pseudonym (k1-...), or client id.")
]
OfModel = Annotated[str, typer.Option("--model", metavar="NAME", help="Only this model.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on where the same replay into DIR was stopped; else begin anew.")
]
Jobs = Annotated[
    int, typer.Option("--jobs", metavar="N", min=1, max=256, help="Processes, for frames; the same bytes as one.")
]
Publish = Annotated[
    str, typer.Option("--publish", metavar="TOPIC", help="Also write events to this topic, marked as a replay.")
]
Evidence = Annotated[
    int,
    typer.Option(
        "--evidence",
        metavar="N",
        min=0,
        max=10_000,
        help="Also write evidence.jsonl: N rows of the client before and behind the one that alarmed.",
    ),
]
Verify = Annotated[
    str,
    typer.Option(
        "--verify",
        metavar="RECORDED",
        help="Hold events against recorded ones, a replay's folder or kafka; exit code 1 if they differ.",
    ),
]
WhatIf = Annotated[
    Path | None,
    typer.Option(
        "--what-if", metavar="FILE", help="Also replay with this configuration, into DIR/what-if, and compare."
    ),
]
Report = Annotated[
    bool, typer.Option("--report/--no-report", help="Write report.html: one file that any browser opens.")
]
Labels = Annotated[
    str,
    typer.Option("--labels", metavar="PLACE", help="What `label` wrote, a file or kafka: for report and comparison."),
]


class _Made(NamedTuple):
    """What one replay is made with. folder : of the artefacts. cold : they were fitted on the history itself."""

    config: "Config"
    artefacts: "Artefacts"
    secrets: "Secrets"
    folder: Path
    cold: bool


def add_to(app: typer.Typer, panel: str) -> None:
    app.command(rich_help_panel=panel)(replay)


@speaking
def replay(
    sources: Sources,
    out: Out,
    artefacts: ArtefactFolder = None,
    config: ConfigFile = None,
    earlier_config: EarlierConfig = None,
    classes: Classes = None,
    plain_clients: PlainClients = False,
    since: Since = "",
    until: Until = "",
    first: First = None,
    end: End = None,
    client: OfClient = "",
    model: OfModel = "",
    resume: Resume = False,
    jobs: Jobs = 1,
    publish: Publish = "",
    evidence: Evidence = 0,
    verify: Verify = "",
    what_if: WhatIf = None,
    report: Report = True,
    labels: Labels = "",
    as_json: AsJson = False,
) -> None:
    """Judge history with the code that runs live: alerts, throttle, rejects (.jsonl) and summary.json go to DIR.

    Without artefacts the history itself is fitted first ("cold"): good for a first look, not for figures to rely on.

    Example: probewatch replay logs/june.jsonl.zst --out out/june --artefacts artefacts
    """
    from streams.analyst.labels import read_labels
    from streams.fit.client_lists import with_classes
    from streams.history.sources import open_sources
    from streams.progress import Bars
    from streams.replay import Options, StoppedError
    from streams.replay.interrupt import stopping
    from streams.replay.publish import refuse_live
    from streams.secrets.load import load_settings

    if as_json and verify and what_if is not None:
        raise typer.BadParameter("prints one value: with --verify, or with --what-if", param_hint="--json")
    settings = load_settings(config)
    other = None if what_if is None else load_settings(what_if)
    if publish:
        refuse_live(settings, publish)
    opened = open_sources(sources, settings)
    with Bars() as bars, stopping() as stops:
        made = _made(settings, artefacts, classes, opened, out, bars)
        made = made._replace(config=with_classes(settings, classes, made.secrets))
        selection = _selection((since, until), (first, end), client, model, made.secrets)
        options = Options(plain_clients, selection, out, resume, None, jobs, [made.folder], stops)
        if earlier_config:
            options = _eras(opened, made, [load_settings(file) for file in earlier_config], classes, options)
        outcome = _replayed(opened, made, options, bars, out)
        try:
            if evidence:
                _evidence(opened, made, options, bars, (out, outcome, evidence))
            if report:
                _report(opened, made, options, bars, (out, outcome, labels))
        except StoppedError:
            say(f"stopped; events and summary are in {out}, what should have come with them is not complete")
            raise typer.Exit(STOPPED) from None
        if publish:
            _publish(settings, publish, outcome, bars)
        if other is not None:
            second = _other(made, other, artefacts, classes)
            other_way = options._replace(kept_in=out / WHAT_IF, eras=None, folders=[second.folder])
            _replayed(opened, second, other_way, bars, out / WHAT_IF)
    _told(outcome, out, as_json, alone=other is None and not verify)
    if other is not None:
        known = read_labels(labels, settings) if labels else {}
        compared(out, out / WHAT_IF, settings, known, as_json, out / COMPARISON_FILE)
    if verify:
        _verified(verify, outcome, selection, settings, as_json)


def _made(
    config: "Config",
    folder: Path | None,
    classes: Path | None,
    sources: "Sequence[Source]",
    out: Path,
    bars: "Bars",
) -> _Made:
    """Fitted artefacts and their secrets; without any, the history itself is fitted."""
    from models.artefacts.store import ArtefactError, load_artefacts
    from streams.fit.calibrate import calibrate as fit
    from streams.fit.client_lists import with_classes
    from streams.secrets.load import load_secrets, trusted_keys

    if folder is not None and not folder.is_dir():
        raise ArtefactError(f"{folder}: no such folder; `probewatch calibrate SOURCE --out {folder}` fills it")
    if folder is None and config.artefacts.is_dir():
        folder = config.artefacts
    if folder is not None:
        secrets = load_secrets(config, folder)
        loaded = load_artefacts(folder, secrets.projection_seed, trusted_keys(config))
        return _Made(config, loaded, secrets, folder, False)
    say("COLD: no artefacts; fitted on the replayed history itself, so thresholds are conditional on it")
    fitted = out / "artefacts"
    secrets = secrets_or_new(config, fitted)
    fit(sources, fitted, with_classes(config, classes, secrets), secrets, bars, cold=True)
    loaded = load_artefacts(fitted, secrets.projection_seed, trusted_keys(config))
    return _Made(config, loaded, secrets, fitted, True)


def _other(made: _Made, config: "Config", folder: Path | None, classes: Path | None) -> _Made:
    """The other configuration over the same history: the same names of clients, its own artefacts if it names some."""
    from models.artefacts.store import load_artefacts
    from streams.fit.client_lists import with_classes
    from streams.secrets.load import trusted_keys

    config = with_classes(config, classes, made.secrets)
    if folder is not None or "artefacts" not in config.model_fields_set:
        return made._replace(config=config)
    loaded = load_artefacts(config.artefacts, made.secrets.projection_seed, trusted_keys(config))
    return made._replace(config=config, artefacts=loaded, folder=config.artefacts)


def _eras(
    sources: "Sequence[Source]", made: _Made, earlier: "Sequence[Config]", classes: Path | None, options: "Options"
) -> "Options":
    """Settings over time: those of `earlier`, then today's."""
    from detector.engine import EngineSettings
    from streams.replay.settings_changes import eras_of, known_of

    before = [_other(made, config, None, classes) for config in earlier]
    settings = [EngineSettings(one.config, one.artefacts) for one in (*before, made)]
    eras = eras_of(settings, known_of(sources, made.config))
    return options._replace(eras=eras, folders=[one.folder for one in (*before, made)])


def _selection(
    times: tuple[str, str], offsets: tuple[int | None, int | None], client: str, model: str, secrets: "Secrets"
) -> "Selection":
    from models.pseudonym import client_of
    from streams.analyst.events import now
    from streams.analyst.times import time_of
    from streams.replay import Selection
    from streams.sketch.identity import pseudonyms_of

    since, until = (
        int(time_of(text, option, now(), "past").timestamp() * 1000) if text else None
        for text, option in zip(times, ("--since", "--until"), strict=True)
    )
    clients = frozenset(map(client_of, pseudonyms_of(client, secrets))) if client else frozenset()
    return Selection(since, until, *offsets, clients, model)


def _replayed(sources: "Sequence[Source]", made: _Made, options: "Options", bars: "Bars", out: Path) -> "Outcome":
    """Replay, and write. Asked to stop, it says how to go on."""
    from streams import replay as history
    from streams.replay.checkpoint import forget

    try:
        outcome = history.replay(sources, made.config, made.artefacts, made.secrets, bars, options)
    except history.StoppedError:
        say(f"stopped; what was done is kept in {out}: the same command with --resume goes on from there")
        raise typer.Exit(STOPPED) from None
    outcome = outcome._replace(summary=outcome.summary | {"cold": made.cold})
    history.write(outcome, out)
    forget(out)
    return outcome


def _evidence(
    sources: "Sequence[Source]",
    made: _Made,
    options: "Options",
    bars: "Bars",
    wanted: "tuple[Path, Outcome, int]",
) -> None:
    from streams.replay.evidence import around, write_evidence
    from streams.replay.run import gather, settings_of

    out, outcome, rows = wanted
    alerts = [event for event in outcome.events if event.kind == "alert" and event.client_key]
    clients = {event.client_key for event in alerts}
    gathered = gather(sources, made.config, made.artefacts, made.secrets, bars, clients, options)
    write_evidence(around(alerts, gathered, settings_of(made.config, made.artefacts, options), rows), out)


def _report(
    sources: "Sequence[Source]", made: _Made, options: "Options", bars: "Bars", about: "tuple[Path, Outcome, str]"
) -> None:
    from streams.analyst.labels import read_labels
    from streams.replay import StoppedError
    from streams.report import REPORT_FILE, Replayed, write_report

    out, outcome, labels = about
    found = read_labels(labels, made.config) if labels else {}
    replayed = Replayed(sources, *made[:3], bars, outcome, options, found)
    try:
        write_report(out / REPORT_FILE, replayed)
    except StoppedError:
        say(f"stopped before {out / REPORT_FILE} was written; all events stand in {out}")
        raise typer.Exit(STOPPED) from None
    say(f"{out / REPORT_FILE}: open it in any browser")


def _publish(config: "Config", topic: str, outcome: "Outcome", bars: "Bars") -> None:
    from streams.replay.publish import publish

    written = publish(config, topic, outcome, bars.task(f"publishing to {topic}", len(outcome.events)))
    say(f"{written:,} events written to {topic}, marked as a replay")


def _told(outcome: "Outcome", out: Path, as_json: bool, *, alone: bool) -> None:
    """alone : nothing else is printed; --json prints one value."""
    summary = outcome.summary
    if not summary["rows"]:
        say("no row was judged; see rejects.jsonl and `unjudged` in summary.json")
    if summary["evicted_clients"]:
        say(f"{summary['evicted_clients']:,} clients left for want of room and began anew: raise state.block_bytes")
    if summary["cold_start_events"]:
        say(
            f"{summary['cold_start_events']:,} events are cold starts: what was before is not in this history;"
            f" {out / 'cold_start.jsonl'} names them"
        )
    if as_json and alone:
        print(json.dumps(summary))
    elif not as_json:
        show(({"class": name, **counts} for name, counts in summary["classes"].items()), False)
        say(f"{summary['rows']:,} rows, {summary['alerts']:,} alerts in {summary['seconds']} s; written to {out}")


def _verified(place: str, outcome: "Outcome", selection: "Selection", config: "Config", as_json: bool) -> None:
    import msgspec

    from streams.analyst.events import read_events
    from streams.replay.verify import sentence, verify, wanted

    recorded = read_events(place, config, wanted(selection))
    verdict = verify(outcome, recorded, selection)
    if as_json:
        print(msgspec.json.encode(verdict).decode())
    else:
        say(sentence(verdict))
    if not verdict.equal:
        raise typer.Exit(1)
