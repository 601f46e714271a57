"""`probewatch label | labels | suppress | suppressions`: feedback of analysts on alerts."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from streams.cli.arguments import AsJson, ConfigFile, JsonOutput, output
from streams.cli.event_options import KAFKA, ForClient, ForDetector, ForModel, From, path_of, pseudonyms
from streams.terminal import print_json, say, show, speaking

To = Annotated[
    Path | None,
    typer.Option(
        "--to", metavar="FILE", help="File to write to. Default: feedback.jsonl beside the events, or the topic."
    ),
]


def outputs() -> dict[str, JsonOutput]:
    from streams.analyst.labels import Label, LabelReport
    from streams.analyst.suppress import Suppression

    return {
        "label": output("The label that was written (docs/formats/feedback.md).", Label),
        "labels": output("All labels, and the share of false alarms by detector.", LabelReport),
        "suppress": output("The suppressions that were written, one for each pseudonym.", list[Suppression]),
        "suppressions": output("All suppressions, including those that have ended.", list[Suppression]),
    }


def add_to(app: typer.Typer, panel: str) -> None:
    app.command(rich_help_panel=panel)(label)
    app.command(rich_help_panel=panel)(labels)
    app.command(rich_help_panel=panel)(suppress)
    app.command(rich_help_panel=panel)(suppressions)


@speaking
def label(
    alert: Annotated[
        str,
        typer.Argument(metavar="ALERT", help="Id of an alert or incident, or first digits.", show_default=False),
    ],
    verdict: Annotated[
        Literal["true", "false", "benign"],
        typer.Option("--verdict", help="true: probing. false: false alarm. benign: as the alert says, but permitted."),
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why; stored with the label.")],
    place: From = KAFKA,
    to: To = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Give a verdict on an incident. The latest verdict counts; decisions in force do not change.

    Example: probewatch label 0123abcd --verdict false --reason "the client's own nightly test"
    """
    from streams.analyst import feedback
    from streams.analyst.events import now
    from streams.analyst.index import open_index
    from streams.analyst.labels import WORDS, label_of
    from streams.secrets.load import load_settings

    settings = load_settings(config)
    index = open_index(path_of(place), settings, labels=False)
    event = index.alert(alert)
    made = label_of(event, index.incident(event.incident).detectors, WORDS[verdict], reason, now())
    written = feedback.keep(settings, made.finding_uid, made, to or feedback.beside(path_of(place)))
    _done(f"{made.verdict}: incident {made.finding_uid}, written to {written}", made, as_json)


@speaking
def labels(
    place: Annotated[
        str, typer.Option("--from", metavar="PLACE", help="A file of labels, a replay's folder, or kafka: the topic.")
    ] = KAFKA,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List labels, and the share of false alarms by detector with its 95 % interval.

    The share of labelled alerts is that of all alerts only if nobody chose which alerts to label.

    Example: probewatch labels --json
    """
    from streams.analyst.labels import LabelReport, read_labels, shares
    from streams.cli import tables
    from streams.secrets.load import load_settings

    settings = load_settings(config)
    given = read_labels(path_of(place), settings).values()
    report = LabelReport(list(given), shares(given))
    if as_json:
        print_json(report)
        return
    show(map(tables.label_row, report.labels))
    print()
    show(report.detectors)


@speaking
def suppress(
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="A date, RFC 3339, or a time from now (30d).")],
    reason: Annotated[str, typer.Option("--reason", help="Why; stored with the suppression.")],
    client: ForClient = "",
    model: ForModel = "",
    detector: ForDetector = "",
    place: From = KAFKA,
    to: To = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Hide alerts of a client, model or detector until a date. Decisions are still made, and gateways obey them.

    For the same client, model and detector the latest one counts; an end in the past cancels it. To exempt a client
    from decisions, use `allow`.

    Example: probewatch suppress --client acct-7 --until 30d --reason "load test, every night"
    """
    from streams.analyst import feedback
    from streams.analyst.events import now
    from streams.analyst.suppress import suppression_of
    from streams.analyst.times import shown, time_of
    from streams.secrets.load import load_settings

    settings = load_settings(config)
    end = time_of(until, "--until", now(), "future")
    names = pseudonyms(settings, client) or ("",)
    made = [suppression_of(name, model, detector, end, reason, now()) for name in names]
    written = ""
    for suppression in made:
        target = to or feedback.beside(path_of(place))
        written = feedback.keep(settings, suppression.suppression_id, suppression, target)
    _done(f"hidden until {shown(end)}; written to {written}", made, as_json)


@speaking
def suppressions(
    place: Annotated[
        str, typer.Option("--from", metavar="PLACE", help="A file of feedback, a replay's folder, or kafka: the topic.")
    ] = KAFKA,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List suppressions, including those that have ended.

    Example: probewatch suppressions
    """
    from streams.analyst.suppress import read_suppressions
    from streams.cli import tables
    from streams.secrets.load import load_settings

    listed = read_suppressions(path_of(place), load_settings(config))
    show(listed if as_json else map(tables.suppression_row, listed), as_json)


def _done(message: str, record: Any, as_json: bool) -> None:
    if as_json:
        print_json(record)
    else:
        say(message)
