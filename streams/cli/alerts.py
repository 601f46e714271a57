"""`probewatch alerts | throttles | clients`: list, filter, follow and inspect."""

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from detector.events.escape import printable
from streams.cli.arguments import AsJson, JsonOutput, output
from streams.cli.event_options import EventOptions, path_of, with_event_options
from streams.terminal import print_json, say, show, speaking

if TYPE_CHECKING:
    from streams.analyst.events import Filter, Kind
    from streams.analyst.index import EventIndex
    from streams.analyst.suppress import CurrentSuppressions
    from streams.config.config import Config

Id = Annotated[
    str,
    typer.Argument(metavar="[ID]", help="Id, or its first digits: prints its incident in full.", show_default=False),
]
Feedback = Annotated[
    str,
    typer.Option(
        "--labels",
        metavar="PLACE",
        help="Labels and suppressions: a file, or kafka. Default: feedback.jsonl beside the events, or the topic.",
    ),
]


def outputs() -> dict[str, JsonOutput]:
    from probewatch_door.record import Throttle
    from streams.analyst.events import AlertFields
    from streams.analyst.incidents import Client, Incident
    from streams.analyst.index import ClientDetail, IncidentDetail

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
@with_event_options()
def alerts(
    options: EventOptions,
    alert: Id = "",
    each: Annotated[bool, typer.Option("--each", help="List every alert instead of incidents.")] = False,
    suppressed: Annotated[bool, typer.Option("--suppressed", help="Include suppressed incidents.")] = False,
    waves: Annotated[bool, typer.Option("--waves/--no-waves", help="Show the incidents of a wave as one.")] = True,
    feedback: Feedback = "",
    as_json: AsJson = False,
) -> None:
    """List incidents with alerts, newest last. With an ID: show that incident in full.

    An incident collects the alerts about one client and model; many within an hour are one wave.

    Example: probewatch alerts --since 24h --level 4
    """
    from streams.analyst.suppress import CurrentSuppressions
    from streams.cli import tables

    settings, wanted = options.filter()
    if options.follow:
        hidden = None if suppressed else CurrentSuppressions(path_of(feedback or options.place), settings)
        _follow(settings, options, wanted, _Shown("alert", tables.alert_row, tables.alert_fields, hidden), as_json)
        return
    index = _index(settings, options, feedback)
    if alert:
        _show_incident(index, alert, as_json)
        return
    incidents, all_incidents = index.alerted(wanted, suppressed=suppressed), index.alerted(wanted, suppressed=True)
    if each:
        uids = {incident.uid for incident in incidents}
        listed = [event for event in index.alerts(wanted) if event.incident in uids]
        _show(listed, tables.alert_row, tables.alert_fields, as_json)
    else:
        if as_json or not waves:
            _show(incidents, tables.incident_row, None, as_json)
        else:
            show(tables.incident_rows(incidents))
    if len(incidents) < len(all_incidents):
        say(f"{len(all_incidents) - len(incidents):,} suppressed incidents not shown; --suppressed includes them")


@speaking
@with_event_options()
def throttles(
    options: EventOptions,
    decision: Id = "",
    in_force: Annotated[bool, typer.Option("--in-force", help="Only decisions in force now.")] = False,
    as_json: AsJson = False,
) -> None:
    """List decisions about clients, newest last. With an ID: show its incident in full.

    Example: probewatch throttles --in-force --model loan
    """
    from streams.cli import tables

    settings, wanted = options.filter()
    if options.follow:
        _follow(settings, options, wanted, _Shown("throttle", tables.throttle_row, attrgetter("record")), as_json)
        return
    index = _index(settings, options, "", labels=bool(decision))
    if decision:
        _show_incident(index, decision, as_json)
        return
    _show(index.throttles(wanted, in_force=in_force), tables.throttle_row, attrgetter("record"), as_json)


@speaking
@with_event_options("client")
def clients(
    options: EventOptions,
    name: Annotated[
        str,
        typer.Argument(metavar="[CLIENT]", help="Pseudonym or client id: prints all about it.", show_default=False),
    ] = "",
    feedback: Feedback = "",
    as_json: AsJson = False,
) -> None:
    """List clients with decisions. With a CLIENT: show it with all its incidents and decisions.

    Example: probewatch clients --since 7d --level 3
    """
    from streams.analyst.index import ClientDetail
    from streams.cli import tables

    settings, wanted = options.filter(name)
    if options.follow:
        _follow(settings, options, wanted, _Shown("throttle", tables.throttle_row, attrgetter("record")), as_json)
        return
    index = _index(settings, options, feedback)
    listed = index.clients(wanted)
    if not name:
        _show(listed, tables.client_row, None, as_json)
        return
    incidents = [incident for incident in index.incidents if incident.client in wanted.client]
    if as_json:
        print_json(ClientDetail(listed[0] if listed else None, [index.detail(incident) for incident in incidents]))
        return
    if not listed:
        say(f"{name}: no decisions about this client")
    show(map(tables.client_row, listed))
    for incident in incidents:
        _print(["", *tables.incident_text(index, incident)])


def _index(settings: "Config", options: EventOptions, feedback: str, *, labels: bool = True) -> "EventIndex":
    from streams.analyst.index import open_index
    from streams.progress import Bars

    with Bars() as bars:
        advance = bars.task("reading events", None)
        place = path_of(feedback) if feedback else None
        return open_index(path_of(options.place), settings, feedback=place, advance=advance, labels=labels)


def _show_incident(index: "EventIndex", prefix: str, as_json: bool) -> None:
    from streams.cli import tables

    incident = index.incident(prefix)
    if as_json:
        print_json(index.detail(incident))
    else:
        _print(tables.incident_text(index, incident))


class _Shown(NamedTuple):
    """How --follow prints events of one kind. row : for people. fields : for JSON. hidden : suppressions to obey."""

    kind: "Kind"
    row: Callable[[Any], dict[str, Any]]
    fields: Callable[[Any], Any]
    hidden: "CurrentSuppressions | None" = None


def _follow(settings: "Config", options: EventOptions, wanted: "Filter", shown: _Shown, as_json: bool) -> None:
    """Print past and new events, one a line, until Ctrl-C."""
    import asyncio
    import contextlib

    from streams.analyst.events import follow

    options.check_follow()

    async def print_all() -> None:
        async for event in follow(settings, wanted, (shown.kind,), past=True):
            if shown.hidden is not None:
                await asyncio.to_thread(shown.hidden.refresh)
                if shown.hidden.hides(event):
                    continue
            if as_json:
                print_json(shown.fields(event))
            else:
                _print(["  ".join(map(str, shown.row(event).values()))])

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(print_all())


def _show(
    items: "Iterable[Any]",
    row: Callable[[Any], dict[str, Any]],
    fields: Callable[[Any], Any] | None,
    as_json: bool,
) -> None:
    """A table of rows for people; JSON of all fields, or of the structs themselves if `fields` is None."""
    if as_json:
        show(items if fields is None else map(fields, items), True)
    else:
        show(map(row, items))


def _print(lines: "Iterable[str]") -> None:
    for line in lines:
        print(printable(line), flush=True)
