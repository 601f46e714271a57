"""`probewatch replay`: history judged again."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from streams.cli.arguments import ArtefactFolder, AsJson, Classes, ConfigFile, JsonOutput, Out, Sources, output
from streams.cli.artefacts import secrets_or_new
from streams.cli.compare import compared
from streams.terminal import print_json, say, show, speaking, stop_requests

if TYPE_CHECKING:
    from models.artefacts.store import Artefacts
    from streams.config.config import Config
    from streams.history.base import Source
    from streams.progress import Bars, Reporter
    from streams.replay import Outcome, Plan, Selection
    from streams.secrets.load import Secrets

STOPPED = 130
WHAT_IF = "what-if"
COMPARISON_FILE = "compare.json"

EarlierConfig = Annotated[
    list[Path] | None,
    typer.Option(
        "--earlier-config",
        metavar="FILE",
        help="Earlier configuration of the workers, which recorded when it changed. Repeat it, oldest first.",
    ),
]
PlainClients = Annotated[
    bool, typer.Option("--plain-clients", help="Write client ids of the log instead of pseudonyms.")
]
Since = Annotated[
    str, typer.Option("--since", metavar="TIME", help="Only events from this event time on: RFC 3339, or a date.")
]
Until = Annotated[str, typer.Option("--until", metavar="TIME", help="Only events before this event time.")]
First = Annotated[
    int | None,
    typer.Option("--from", metavar="OFFSET", min=0, help="Only events from this offset of every partition on."),
]
End = Annotated[int | None, typer.Option("--to", metavar="OFFSET", min=0, help="Only events before this offset.")]
OfClient = Annotated[
    str, typer.Option("--client", metavar="CLIENT", help="Only this client: pseudonym (k1-...), or client id.")
]
OfModel = Annotated[str, typer.Option("--model", metavar="NAME", help="Only this model.")]
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs",
        metavar="N",
        min=1,
        max=256,
        help="Fold frames in N processes. After a stop, the same command takes over finished partitions of archives.",
    ),
]
Publish = Annotated[
    str, typer.Option("--publish", metavar="TOPIC", help="Also write the events to this topic, marked as a replay.")
]
Evidence = Annotated[
    int,
    typer.Option(
        "--evidence",
        metavar="N",
        min=0,
        max=10_000,
        help="Also write evidence.jsonl: for each alert, N rows of the client before and after the deciding one.",
    ),
]
Verify = Annotated[
    str,
    typer.Option(
        "--verify",
        metavar="RECORDED",
        help="Compare with recorded events, a replay's folder or `kafka`; exit code 1 if they differ.",
    ),
]
WhatIf = Annotated[
    Path | None,
    typer.Option(
        "--what-if", metavar="FILE", help="Also replay with this configuration, into DIR/what-if, and compare."
    ),
]
Report = Annotated[bool, typer.Option("--report/--no-report", help="Write report.html: one file, for any browser.")]
Labels = Annotated[
    str,
    typer.Option(
        "--labels", metavar="PLACE", help="Verdicts from `label`, a file or `kafka`: for report and comparison."
    ),
]


class _Fitted(NamedTuple):
    """What one replay judges with. folder : of the artefacts. cold : they were fitted on the history itself."""

    config: "Config"
    artefacts: "Artefacts"
    secrets: "Secrets"
    folder: Path
    cold: bool


def outputs() -> dict[str, JsonOutput]:
    from streams.compare import Comparison
    from streams.replay.outcome import ReplaySummary
    from streams.replay.verify import Verdict

    return {
        "replay": output(
            "The summary. With --verify: how the events differ from the recorded ones. With --what-if: the comparison.",
            ReplaySummary,
            Verdict,
            Comparison,
        )
    }


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
    from streams.history.sources import open_sources
    from streams.progress import Bars
    from streams.replay import Plan, Selection, StoppedError
    from streams.replay.publish import refuse_live
    from streams.secrets.load import load_settings

    if as_json and verify and what_if is not None:
        raise typer.BadParameter("prints one value: with --verify, or with --what-if", param_hint="--json")
    settings = load_settings(config)
    other = None if what_if is None else load_settings(what_if)
    if publish:
        refuse_live(settings, publish)
    opened = open_sources(sources, settings)
    with Bars() as bars, stop_requests() as stops:
        fitted = _fitted(settings, artefacts, classes, opened, out, bars)
        bounds = _time_ms(since, "--since"), _time_ms(until, "--until"), first, end
        selection = Selection(*bounds, _clients(client, fitted.secrets), model)
        plan = Plan(opened, *fitted[:3], selection, plain_clients, reporter=bars, stops=stops)
        history = [*(_with_config(fitted, load_settings(file), None, classes) for file in earlier_config or ()), fitted]
        plan = _with_changes(plan, history)
        outcome = _replay(plan, history, jobs, out)
        try:
            if evidence:
                _write_evidence(plan, outcome, evidence, out)
            if report:
                _write_report(plan, outcome, labels, out)
        except StoppedError:
            say(f"stopped; events and summary in {out} are complete, evidence and report are not")
            raise typer.Exit(STOPPED) from None
        if publish:
            _publish(settings, publish, outcome, bars)
        if other is not None:
            _replay_other(plan, _with_config(fitted, other, artefacts, classes), jobs, out / WHAT_IF)
    _print_summary(outcome, out, as_json, alone=other is None and not verify)
    if other is not None:
        verdicts = read_labels(labels, settings) if labels else {}
        compared(out, out / WHAT_IF, settings, verdicts, as_json, out / COMPARISON_FILE)
    if verify:
        _verify(verify, outcome, selection, settings, as_json)


def _fitted(
    config: "Config",
    folder: Path | None,
    classes: Path | None,
    sources: "Sequence[Source]",
    out: Path,
    reporter: "Reporter",
) -> _Fitted:
    """Fitted artefacts and their secrets; without any, the history itself is fitted."""
    from models.artefacts.store import ArtefactError, load_artefacts
    from streams.fit.calibrate import calibrate as fit
    from streams.fit.client_lists import with_classes
    from streams.secrets.load import load_secrets, trusted_keys

    if folder is not None and not folder.is_dir():
        raise ArtefactError(f"{folder}: no such folder; `probewatch calibrate SOURCE --out {folder}` fills it")
    if folder is None and config.artefacts.is_dir():
        folder = config.artefacts
    cold = folder is None
    if folder is None:
        say("COLD: no artefacts; fitted on the replayed history itself, so thresholds are conditional on it")
        folder = out / "artefacts"
        secrets = secrets_or_new(config, folder)
        fit(sources, folder, with_classes(config, classes, secrets), secrets, reporter, cold=True, max_rejected=1.0)
    else:
        secrets = load_secrets(config, folder)
    loaded = load_artefacts(folder, secrets.projection_seed, trusted_keys(config))
    return _Fitted(with_classes(config, classes, secrets), loaded, secrets, folder, cold)


def _with_config(fitted: _Fitted, config: "Config", folder: Path | None, classes: Path | None) -> _Fitted:
    """Another configuration with the same secrets, and with its own artefacts if it names some."""
    from models.artefacts.store import load_artefacts
    from streams.fit.client_lists import with_classes
    from streams.secrets.load import trusted_keys

    config = with_classes(config, classes, fitted.secrets)
    if folder is not None or "artefacts" not in config.model_fields_set:
        return fitted._replace(config=config)
    loaded = load_artefacts(config.artefacts, fitted.secrets.projection_seed, trusted_keys(config))
    return fitted._replace(config=config, artefacts=loaded, folder=config.artefacts)


def _with_changes(plan: "Plan", history: Sequence[_Fitted]) -> "Plan":
    """history : settings over time, oldest first."""
    from detector.engine import EngineSettings
    from streams.replay.settings_changes import read_settings_log, settings_history

    if len(history) == 1:
        return plan
    settings = [EngineSettings(fitted.config, fitted.artefacts) for fitted in history]
    return plan._replace(changes=settings_history(settings, read_settings_log(plan.sources, plan.config)))


def _time_ms(text: str, option: str) -> int | None:
    from streams.analyst.events import now
    from streams.analyst.times import time_of

    return int(time_of(text, option, now(), "past").timestamp() * 1000) if text else None


def _clients(client: str, secrets: "Secrets") -> frozenset[int]:
    from models.pseudonym import client_of
    from streams.sketch.identity import pseudonyms_of

    return frozenset(map(client_of, pseudonyms_of(client, secrets))) if client else frozenset()


def _replay(plan: "Plan", history: Sequence[_Fitted], count: int, out: Path) -> "Outcome":
    """Replay and write. count : processes."""
    from streams import replay as replays
    from streams.replay import jobs

    try:
        if count > 1:
            outcome = jobs.replay(plan, [fitted.folder for fitted in history], count, out)
        else:
            outcome = replays.replay(plan)
    except replays.StoppedError:
        finished = jobs.kept(out)
        then = f"; the same command takes over {finished:,} finished partitions" if finished else ""
        say(f"stopped before anything was written to {out}{then}")
        raise typer.Exit(STOPPED) from None
    outcome = outcome._replace(summary=outcome.summary | {"cold": history[-1].cold})
    replays.write(outcome, out)
    jobs.forget(out)
    return outcome


def _replay_other(plan: "Plan", other: _Fitted, count: int, out: Path) -> None:
    """The same history under another configuration."""
    _replay(plan._replace(config=other.config, artefacts=other.artefacts, changes=None), [other], count, out)


def _write_evidence(plan: "Plan", outcome: "Outcome", rows: int, out: Path) -> None:
    from streams.replay.evidence import around, gather, write_evidence

    alerts = [event for event in outcome.events if event.kind == "alert" and event.client_key]
    gathered = gather(plan, {event.client_key for event in alerts})
    write_evidence(around(alerts, gathered, plan.settings.newest, rows), out)


def _write_report(plan: "Plan", outcome: "Outcome", labels: str, out: Path) -> None:
    from streams.analyst.labels import read_labels
    from streams.report import REPORT_FILE, Replayed, write_report

    verdicts = read_labels(labels, plan.config) if labels else {}
    write_report(out / REPORT_FILE, Replayed(plan, outcome, verdicts))
    say(f"{out / REPORT_FILE}: open it in any browser")


def _publish(config: "Config", topic: str, outcome: "Outcome", bars: "Bars") -> None:
    from streams.replay.publish import publish

    written = publish(config, topic, outcome, bars.task(f"publishing to {topic}", len(outcome.events)))
    say(f"{written:,} events written to {topic}, marked as a replay")


def _print_summary(outcome: "Outcome", out: Path, as_json: bool, *, alone: bool) -> None:
    """alone : nothing else is printed, since --json prints one value."""
    from streams.wire.rejects import told

    summary = outcome.summary
    unread = told(summary["records"], outcome.rejects, summary["unjudged"])
    if unread:
        say(f"{unread}; see {out / 'rejects.jsonl'}" if outcome.rejects else unread)
    if summary["rows"] <= sum(summary["unjudged"].values()):
        say("no row was judged")
    for text in outcome.order.warnings():
        say(f"WARNING: {text}")
    if summary["evicted_clients"]:
        say(f"{summary['evicted_clients']:,} clients were evicted for lack of room: raise state.block_bytes")
    if summary["cold_start_events"]:
        say(
            f"{summary['cold_start_events']:,} events are cold starts: evidence from before is not in this history;"
            f" {out / 'cold_start.jsonl'} lists them"
        )
    if as_json and alone:
        print_json(summary)
    elif not as_json:
        show(({"class": name, **counts} for name, counts in summary["classes"].items()), False)
        say(f"{summary['rows']:,} rows, {summary['alerts']:,} alerts in {summary['seconds']} s; written to {out}")


def _verify(place: str, outcome: "Outcome", selection: "Selection", config: "Config", as_json: bool) -> None:
    from streams.analyst.events import read_events
    from streams.replay.verify import sentence, verify, wanted

    recorded = read_events(place, config, wanted(selection))
    verdict = verify(outcome, recorded, selection)
    if as_json:
        print_json(verdict)
    else:
        say(sentence(verdict))
    if not verdict.equal:
        raise typer.Exit(1)
