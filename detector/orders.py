"""What people order about a client's access: refused until a time, whatever the evidence says, and taken back.

Such decisions have an origin of their own, so that none of the judge's ends them. Their times are of the clock that the
order was given by: a client that is to be refused has none that counts.
"""

from collections.abc import Mapping
from operator import attrgetter
from typing import NamedTuple

from detector import policy
from detector.events.build import incident_of, ordered
from detector.events.encode import id_of
from detector.events.finding import LEVELS, Finding, Provenance, Subject
from detector.frame import ControlFrame
from models.artefacts.store import Artefacts
from models.client_table import ClientTable
from models.rows import TIME_MS_MAX, TIME_MS_MIN

ACTIONS = ("allow", "lift", "block")


class Blocked(NamedTuple):
    """revision : of the last record. until_ms : 0 once taken back."""

    revision: int
    until_ms: int


Held = dict[tuple[int, str], Blocked]
"""(client, model or "" for all) -> what people last decided. What they took back stays, for its revision."""


def apply(
    held: Held, frame: ControlFrame, provenance: Provenance, artefacts: Artefacts, tables: Mapping[str, ClientTable]
) -> list[Finding]:
    """What an order changes of blocks, remembered in `held`. An order about every model also ends those about one.

    tables : by space. A block of a client that was decided on before belongs to that incident.
    """
    subject = _known_as(frame, artefacts, tables) or Subject(frame.model, "", _incident(frame), 0)
    given_ms = _possible(frame.given_ms)
    if frame.action == "block":
        about = (frame.client, frame.model)
        revision = held[about].revision + 1 if about in held else 1
        held[about] = Blocked(revision, _possible(frame.until_ms))
        return [ordered(provenance, frame, policy.blocked(revision, given_ms, held[about].until_ms), subject)]
    found = []
    for about in sorted(about for about in held if about[0] == frame.client and frame.model in ("", about[1])):
        revision, until_ms = held[about]
        if until_ms:
            decision, after = policy.lifted(policy.ClientStanding(len(LEVELS) - 1, revision, 0, until_ms, 0), given_ms)
            held[about] = Blocked(after.revision, 0)
            found.append(ordered(provenance, frame, decision, subject._replace(model=about[1])))
    return found


def _known_as(frame: ControlFrame, artefacts: Artefacts, tables: Mapping[str, ClientTable]) -> Subject | None:
    """Where the client of an order was decided on before, the first space by name; None if nowhere."""
    for artefact in sorted(artefacts.models.values(), key=attrgetter("space")):
        table = tables.get(artefact.space)
        slot = -1 if table is None or frame.model not in ("", artefact.model) else table.find(frame.client)
        if table is not None and slot >= 0:
            client = table.table.clients[slot]
            if client["revision"] > 0:
                return Subject(frame.model, "", incident_of(artefact.space, client), int(client["rows"]))
    return None


def _possible(ms: int) -> int:
    """Nobody who can write orders can name a time that no record can hold."""
    return min(max(ms, TIME_MS_MIN), TIME_MS_MAX - policy.DAY_MS)


def _incident(frame: ControlFrame) -> str:
    return id_of("order", frame.client, frame.model, frame.partition, frame.offset)
