"""The analyst's commands: what was decided, about whom, and what people found out about it."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from streams.cli_arguments import AsJson, ConfigFile
from streams.terminal import say, show, speaking

if TYPE_CHECKING:
    from detector.config import Config
    from streams.desk.desk import Desk
    from streams.desk.events import Event, Filter, Kind

From = Annotated[
    str,
    typer.Option(
        "--from", metavar="PLACE", help="A replay's folder, a file of events, or kafka: the configured topics."
    ),
]
Since = Annotated[
    str, typer.Option("--since", metavar="TIME", help="Not before: a date, RFC 3339, or a span back (90m, 24h, 7d).")
]
Until = Annotated[str, typer.Option("--until", metavar="TIME", help="Before: likewise.")]
ForClient = Annotated[str, typer.Option("--client", metavar="CLIENT", help="Pseudonym (k1-...), or the client id.")]
ForModel = Annotated[str, typer.Option("--model", metavar="NAME", help="Only about this model.")]
ForDetector = Annotated[str, typer.Option("--detector", metavar="NAME", help="Only of this detector.")]
Level = Annotated[int, typer.Option("--level", min=0, max=4, help="At least: 1 watch, 2 soft, 3 hard, 4 block.")]
Mode = Annotated[Literal["shadow", "enforce"] | None, typer.Option("--mode", help="Only decided in this mode.")]
Follow = Annotated[bool, typer.Option("--follow", help="Go on as they come, until Ctrl-C; JSON is then one a line.")]
Name = Annotated[
    str,
    typer.Argument(
        metavar="[ID]", help="One in full: the beginning of its id, or of its incident's.", show_default=False
    ),
]
Feedback = Annotated[
    str,
    typer.Option(
        "--labels",
        metavar="PLACE",
        help="Labels and suppressions: a file, or kafka. By default feedback.jsonl in the folder, or the topic.",
    ),
]
To = Annotated[
    Path | None,
    typer.Option(
        "--to", metavar="FILE", help="Write to this file. By default feedback.jsonl in the folder, or the topic."
    ),
]
KAFKA = "kafka"


def add_to(app: typer.Typer) -> None:
    app.command()(alerts)
    app.command()(throttles)
    app.command()(clients)
    app.command()(label)
    app.command()(labels)
    app.command()(suppress)
    app.command()(suppressions)


@speaking
def alerts(
    alert: Name = "",
    place: From = KAFKA,
    since: Since = "",
    until: Until = "",
    client: ForClient = "",
    model: ForModel = "",
    detector: ForDetector = "",
    level: Level = 0,
    mode: Mode = None,
    each: Annotated[bool, typer.Option("--each", help="Every alert; else a line for each incident.")] = False,
    suppressed: Annotated[bool, typer.Option("--suppressed", help="Those too that are suppressed.")] = False,
    following: Follow = False,
    feedback: Feedback = "",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """What needs a person: incidents, newest last; one of them in full if its id is given.

    An incident is one client and model; more evidence updates it, and no second line appears.

    Example: probewatch alerts --since 24h --level 4
    """
    from streams.desk import view
    from streams.desk.suppress import hidden, read_suppressions

    settings, wanted = _wanted(config, since, until, client, model, detector, level, mode)
    if following:
        unseen = () if suppressed else read_suppressions(_place(feedback or place), settings)
        shown = _Shown("alert", view.alert_row, view.alert_json, lambda event: not hidden(event, unseen))
        _follow(settings, place, wanted, shown, as_json)
        return
    desk = _desk(settings, place, feedback)
    if alert:
        _show_one(desk, alert, as_json)
        return
    found, all_found = desk.alarmed(wanted, suppressed=suppressed), desk.alarmed(wanted, suppressed=True)
    if each:
        named = {incident.uid for incident in found}
        listed = [one for one in desk.alerts(wanted) if one.incident in named]
        _show(listed, view.alert_row, view.alert_json, as_json)
    else:
        _show(found, view.incident_row, view.builtins, as_json)
    if len(found) < len(all_found):
        say(f"{len(all_found) - len(found):,} incidents are suppressed; --suppressed shows them")


@speaking
def throttles(
    decision: Name = "",
    place: From = KAFKA,
    since: Since = "",
    until: Until = "",
    client: ForClient = "",
    model: ForModel = "",
    detector: ForDetector = "",
    level: Level = 0,
    mode: Mode = None,
    in_force: Annotated[bool, typer.Option("--in-force", help="Only what gateways are asked to do now.")] = False,
    following: Follow = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Decisions about clients, newest last; one with its incident if its id is given.

    Example: probewatch throttles --in-force --model loan
    """
    from streams.desk import view

    settings, wanted = _wanted(config, since, until, client, model, detector, level, mode)
    if following:
        _follow(settings, place, wanted, _Shown("throttle", view.throttle_row, view.throttle_json), as_json)
        return
    desk = _desk(settings, place, "", labels=bool(decision))
    if decision:
        _show_one(desk, decision, as_json)
        return
    _show(desk.throttles(wanted, in_force=in_force), view.throttle_row, view.throttle_json, as_json)


@speaking
def clients(
    name: Annotated[
        str,
        typer.Argument(metavar="[CLIENT]", help="All about one: its pseudonym, or the client id.", show_default=False),
    ] = "",
    place: From = KAFKA,
    since: Since = "",
    until: Until = "",
    model: ForModel = "",
    detector: ForDetector = "",
    level: Level = 0,
    mode: Mode = None,
    following: Follow = False,
    feedback: Feedback = "",
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Clients that something was decided about; one with all its incidents and decisions if it is named.

    Example: probewatch clients --since 7d --level 3
    """
    from streams.desk import view

    settings, wanted = _wanted(config, since, until, name, model, detector, level, mode)
    if following:
        _follow(settings, place, wanted, _Shown("throttle", view.throttle_row, view.throttle_json), as_json)
        return
    desk = _desk(settings, place, feedback)
    found = desk.clients(wanted)
    if not name:
        _show(found, view.client_row, view.builtins, as_json)
        return
    about = [one for one in desk.incidents if one.client in wanted.client]
    if as_json:
        whole = [view.incident_json(desk, incident) for incident in about]
        print(json.dumps({"client": view.builtins(found[0]) if found else None, "incidents": whole}))
        return
    if not found:
        say(f"{name}: nothing was decided about this client")
    _show(found, view.client_row, view.builtins, False)
    for incident in about:
        _print(["", *view.incident_text(desk, incident)])


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
    from streams.desk import feedback, view
    from streams.desk.events import now
    from streams.desk.labels import WORDS, label_of

    settings, _ = _wanted(config)
    desk = _desk(settings, place, "", labels=False)
    found = desk.alert(alert)
    made = label_of(found, desk.incident(found.incident).detectors, WORDS[verdict], reason, now())
    kept = feedback.keep(settings, made.finding_uid, made, to or feedback.beside(_place(place)))
    _done(f"{made.verdict}: incident {made.finding_uid}, written to {kept}", view.builtins(made), as_json)


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
    from streams.desk import view
    from streams.desk.labels import read_labels, shares

    settings, _ = _wanted(config)
    found = read_labels(_place(place), settings).values()
    counted = [view.builtins(share) for share in shares(found)]
    if as_json:
        print(json.dumps({"labels": [view.builtins(one) for one in found], "detectors": counted}))
        return
    show(map(view.label_row, found), False)
    print()
    show(counted, False)


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
    from streams.desk import feedback, view
    from streams.desk.events import now
    from streams.desk.suppress import suppression_of
    from streams.desk.times import shown, time_of

    settings, wanted = _wanted(config, client=client)
    end = time_of(until, "--until", now(), "future")
    kept, names = "", wanted.client or ("",)
    made = [suppression_of(name, model, detector, end, reason, now()) for name in names]
    for one in made:
        kept = feedback.keep(settings, one.suppression_id, one, to or feedback.beside(_place(place)))
    _done(f"not shown before {shown(end)}; written to {kept}", [view.builtins(one) for one in made], as_json)


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
    from streams.desk import view
    from streams.desk.suppress import read_suppressions

    settings, _ = _wanted(config)
    _show(read_suppressions(_place(place), settings), view.suppression_row, view.builtins, as_json)


def _wanted(
    config: Path | None,
    since: str = "",
    until: str = "",
    client: str = "",
    model: str = "",
    detector: str = "",
    level: int = 0,
    mode: str | None = None,
) -> "tuple[Config, Filter]":
    """The configuration, and the filter that these options ask for; who names a pseudonym needs no keys."""
    from detector.config import PSEUDONYM
    from streams.control import pseudonyms_of
    from streams.desk.events import Filter, now
    from streams.desk.times import time_of
    from streams.secrets import load_secrets, load_settings

    settings, at = load_settings(config), now()
    secrets = None if not client or PSEUDONYM.fullmatch(client) else load_secrets(settings, settings.artefacts)
    return settings, Filter(
        since=time_of(since, "--since", at, "past") if since else None,
        until=time_of(until, "--until", at, "past") if until else None,
        client=pseudonyms_of(client, secrets) if client else (),
        model=model,
        detector=detector,
        level=level,
        mode=mode or "",
    )


def _place(text: str) -> Path | None:
    return None if text == KAFKA else Path(text)


def _desk(settings: "Config", place: str, feedback: str, *, labels: bool = True) -> "Desk":
    from streams.desk.desk import open_desk
    from streams.progress import Bars

    with Bars() as bars:
        advance = bars.task("reading events", None)
        said = _place(feedback) if feedback else None
        return open_desk(_place(place), settings, feedback=said, advance=advance, labels=labels)


def _show_one(desk: "Desk", name: str, as_json: bool) -> None:
    from streams.desk import view

    incident = desk.incident(name)
    if as_json:
        print(json.dumps(view.incident_json(desk, incident)))
    else:
        _print(view.incident_text(desk, incident))


class _Shown(NamedTuple):
    """Events of which kind, and how: a row for people, all of it for programs."""

    kind: "Kind"
    row: Callable[[Any], dict[str, Any]]
    whole: Callable[[Any], dict[str, Any]]
    takes: "Callable[[Event], bool]" = lambda _: True


def _follow(settings: "Config", place: str, wanted: "Filter", shown: _Shown, as_json: bool) -> None:
    """What is there, then what comes, a line each, until Ctrl-C."""
    import asyncio
    import contextlib

    from streams.desk.errors import EventError
    from streams.desk.events import follow

    if _place(place) is not None:
        raise EventError("--follow: expected the configured topics; a file does not go on")

    async def print_all() -> None:
        async for event in follow(settings, wanted, (shown.kind,), past=True):
            if shown.takes(event):
                _print([json.dumps(shown.whole(event)) if as_json else "  ".join(map(str, shown.row(event).values()))])

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(print_all())


def _show(
    found: "Iterable[Any]",
    row: Callable[[Any], dict[str, Any]],
    whole: Callable[[Any], dict[str, Any]],
    as_json: bool,
) -> None:
    """A table for people, everything for programs."""
    show(map(whole if as_json else row, found), as_json)


def _print(lines: "Iterable[str]") -> None:
    from detector.printable import printable

    for line in lines:
        print(printable(line), flush=True)


def _done(said: str, record: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps(record))
    else:
        say(said)
