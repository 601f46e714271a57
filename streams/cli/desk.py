"""The analyst's view: what was decided, and about whom."""

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from streams.cli.arguments import AsJson, ConfigFile, JsonOutput, output
from streams.cli.events import (
    KAFKA,
    Follow,
    ForClient,
    ForDetector,
    ForModel,
    From,
    Level,
    Mode,
    Since,
    Until,
    filter_of,
    place_of,
)
from streams.terminal import print_json, say, show, speaking

if TYPE_CHECKING:
    from streams.analyst.desk import Desk
    from streams.analyst.events import Filter, Kind
    from streams.analyst.suppress import Unseen
    from streams.config.config import Config

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


def outputs() -> dict[str, JsonOutput]:
    from probewatch_door.record import Throttle
    from streams.analyst.desk import ClientDetail, IncidentDetail
    from streams.analyst.events import AlertFields
    from streams.analyst.incidents import Client, Incident

    return {
        "alerts": output(
            "Incidents. With --each: alerts. With --follow: one alert a line. With an ID: the incident in full.",
            list[Incident],
            list[AlertFields],
            AlertFields,
            IncidentDetail,
        ),
        "throttles": output(
            "Throttle records. With --follow: one a line. With an ID: the incident in full.",
            list[Throttle],
            Throttle,
            IncidentDetail,
        ),
        "clients": output(
            "Clients. With a CLIENT: that client in full. With --follow: one throttle record a line.",
            list[Client],
            ClientDetail,
            Throttle,
        ),
    }


def add_to(app: typer.Typer, panel: str) -> None:
    app.command(rich_help_panel=panel)(alerts)
    app.command(rich_help_panel=panel)(throttles)
    app.command(rich_help_panel=panel)(clients)


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
    from streams.analyst import view
    from streams.analyst.suppress import Unseen

    settings, wanted = filter_of(config, since, until, client, model, detector, level, mode)
    if following:
        unseen = None if suppressed else Unseen(place_of(feedback or place), settings)
        _follow(settings, place, wanted, _Shown("alert", view.alert_row, view.alert_fields, unseen), as_json)
        return
    desk = _desk(settings, place, feedback)
    if alert:
        _show_one(desk, alert, as_json)
        return
    found, all_found = desk.alarmed(wanted, suppressed=suppressed), desk.alarmed(wanted, suppressed=True)
    if each:
        named = {incident.uid for incident in found}
        listed = [one for one in desk.alerts(wanted) if one.incident in named]
        _show(listed, view.alert_row, view.alert_fields, as_json)
    else:
        _show(found, view.incident_row, None, as_json)
    if len(found) < len(all_found):
        say(f"suppressed, and shown by --suppressed: {len(all_found) - len(found):,}")


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
    from streams.analyst import view

    settings, wanted = filter_of(config, since, until, client, model, detector, level, mode)
    if following:
        _follow(settings, place, wanted, _Shown("throttle", view.throttle_row, attrgetter("record")), as_json)
        return
    desk = _desk(settings, place, "", labels=bool(decision))
    if decision:
        _show_one(desk, decision, as_json)
        return
    _show(desk.throttles(wanted, in_force=in_force), view.throttle_row, attrgetter("record"), as_json)


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
    from streams.analyst import view
    from streams.analyst.desk import ClientDetail

    settings, wanted = filter_of(config, since, until, name, model, detector, level, mode)
    if following:
        _follow(settings, place, wanted, _Shown("throttle", view.throttle_row, attrgetter("record")), as_json)
        return
    desk = _desk(settings, place, feedback)
    found = desk.clients(wanted)
    if not name:
        _show(found, view.client_row, None, as_json)
        return
    about = [one for one in desk.incidents if one.client in wanted.client]
    if as_json:
        print_json(ClientDetail(found[0] if found else None, [desk.detail(incident) for incident in about]))
        return
    if not found:
        say(f"{name}: nothing was decided about this client")
    show(map(view.client_row, found))
    for incident in about:
        _print(["", *view.incident_text(desk, incident)])


def _desk(settings: "Config", place: str, feedback: str, *, labels: bool = True) -> "Desk":
    from streams.analyst.desk import open_desk
    from streams.progress import Bars

    with Bars() as bars:
        advance = bars.task("reading events", None)
        said = place_of(feedback) if feedback else None
        return open_desk(place_of(place), settings, feedback=said, advance=advance, labels=labels)


def _show_one(desk: "Desk", name: str, as_json: bool) -> None:
    from streams.analyst import view

    incident = desk.incident(name)
    if as_json:
        print_json(desk.detail(incident))
    else:
        _print(view.incident_text(desk, incident))


class _Shown(NamedTuple):
    """How --follow prints events of one kind. row : for people. fields : for JSON. unseen : suppressions to obey."""

    kind: "Kind"
    row: Callable[[Any], dict[str, Any]]
    fields: Callable[[Any], Any]
    unseen: "Unseen | None" = None


def _follow(settings: "Config", place: str, wanted: "Filter", shown: _Shown, as_json: bool) -> None:
    """What is there, then what comes, a line each, until Ctrl-C."""
    import asyncio
    import contextlib

    from streams.analyst.errors import EventError
    from streams.analyst.events import follow

    if place_of(place) is not None:
        raise EventError("--follow: expected the configured topics; a file does not go on")

    async def print_all() -> None:
        async for event in follow(settings, wanted, (shown.kind,), past=True):
            if shown.unseen is not None:
                await asyncio.to_thread(shown.unseen.refresh)
            if shown.unseen is None or not shown.unseen.hides(event):
                if as_json:
                    print_json(shown.fields(event))
                else:
                    _print(["  ".join(map(str, shown.row(event).values()))])

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(print_all())


def _show(
    found: "Iterable[Any]",
    row: Callable[[Any], dict[str, Any]],
    fields: Callable[[Any], Any] | None,
    as_json: bool,
) -> None:
    """A table of rows for people; JSON of all fields, or of the structs themselves if `fields` is None."""
    show(map(row, found) if not as_json else found if fields is None else map(fields, found), as_json)


def _print(lines: "Iterable[str]") -> None:
    from detector.events.escape import printable

    for line in lines:
        print(printable(line), flush=True)
