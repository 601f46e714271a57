"""What analysts say of alerts: verdicts, and what they do not want to be shown."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from streams.cli.arguments import AsJson, ConfigFile, JsonOutput, output
from streams.cli.events import KAFKA, ForClient, ForDetector, ForModel, From, filter_of, place_of
from streams.terminal import print_json, say, show, speaking

To = Annotated[
    Path | None,
    typer.Option(
        "--to", metavar="FILE", help="Write to this file. By default feedback.jsonl in the folder, or the topic."
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
        str, typer.Argument(metavar="ALERT", help="The beginning of its id, or of its incident's.", show_default=False)
    ],
    verdict: Annotated[
        Literal["true", "false", "benign"],
        typer.Option("--verdict", help="true: probing. false: a false alarm. benign: what it says, but permitted."),
    ],
    reason: Annotated[str, typer.Option("--reason", help="How you know.")],
    place: From = KAFKA,
    to: To = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Say what an incident was. Given again, the last verdict counts; nothing that gateways do changes.

    Example: probewatch label 0123abcd --verdict false --reason "the client's own nightly test"
    """
    from streams.analyst import feedback
    from streams.analyst.desk import open_desk
    from streams.analyst.events import now
    from streams.analyst.labels import WORDS, label_of

    settings, _ = filter_of(config)
    desk = open_desk(place_of(place), settings, labels=False)
    found = desk.alert(alert)
    made = label_of(found, desk.incident(found.incident).detectors, WORDS[verdict], reason, now())
    kept = feedback.keep(settings, made.finding_uid, made, to or feedback.beside(place_of(place)))
    _done(f"{made.verdict}: incident {made.finding_uid}, written to {kept}", made, as_json)


@speaking
def labels(
    place: Annotated[
        str, typer.Option("--from", metavar="PLACE", help="A file of labels, a replay's folder, or kafka: the topic.")
    ] = KAFKA,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Verdicts that people gave, and by detector what share of them was false, with its 95 % interval.

    A share of what was labelled is that of all alerts only if nobody chose which to label.

    Example: probewatch labels --json
    """
    from streams.analyst import view
    from streams.analyst.labels import LabelReport, read_labels, shares

    settings, _ = filter_of(config)
    found = read_labels(place_of(place), settings).values()
    report = LabelReport(list(found), shares(found))
    if as_json:
        print_json(report)
        return
    show(map(view.label_row, report.labels))
    print()
    show(report.detectors)


@speaking
def suppress(
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="A date, RFC 3339, or a span from now (30d).")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept.")],
    client: ForClient = "",
    model: ForModel = "",
    detector: ForDetector = "",
    place: From = KAFKA,
    to: To = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Do not show alerts of a client, model or detector before a date. Decisions still fall, and gateways obey them.

    Given again for the same, the later end counts; one that has passed takes it back. `allow` leaves a client alone.

    Example: probewatch suppress --client acct-7 --until 30d --reason "load test, every night"
    """
    from streams.analyst import feedback
    from streams.analyst.events import now
    from streams.analyst.suppress import suppression_of
    from streams.analyst.times import shown, time_of

    settings, wanted = filter_of(config, client=client)
    end = time_of(until, "--until", now(), "future")
    kept, names = "", wanted.client or ("",)
    made = [suppression_of(name, model, detector, end, reason, now()) for name in names]
    for one in made:
        kept = feedback.keep(settings, one.suppression_id, one, to or feedback.beside(place_of(place)))
    _done(f"not shown before {shown(end)}; written to {kept}", made, as_json)


@speaking
def suppressions(
    place: Annotated[
        str, typer.Option("--from", metavar="PLACE", help="A file of feedback, a replay's folder, or kafka: the topic.")
    ] = KAFKA,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """What is not shown, and until when; those that have passed too.

    Example: probewatch suppressions
    """
    from streams.analyst import view
    from streams.analyst.suppress import read_suppressions

    settings, _ = filter_of(config)
    found = read_suppressions(place_of(place), settings)
    show(found if as_json else map(view.suppression_row, found), as_json)


def _done(said: str, record: Any, as_json: bool) -> None:
    if as_json:
        print_json(record)
    else:
        say(said)
