"""The gravest incidents told in full, each beside an ordinary client that sent about as much."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from detector import telling
from detector.finding import LEVELS
from detector.story import Story, follow
from streams.desk.incidents import Incident
from streams.desk.story import keys_of
from streams.replay.run import gather, settings_of
from streams.replay.survey import Space, Survey
from streams.report import evidence, inputs
from streams.report.contents import Detail, attack_names
from streams.report.plots import Figure
from streams.report.subject import Subject

if TYPE_CHECKING:
    from streams.report.write import Replayed

NEIGHBOURS = 3
"""Ordinary clients that are followed for each incident, until one of the same class is met."""
NEIGHBOUR_ROWS_MIN = 3

Stories = Mapping[tuple[int, str], Story]


def details(replayed: "Replayed", incidents: Sequence[Incident]) -> list[Detail]:
    """In the order of the incidents, the gravest of them only. Raises SourceError."""
    keys = {one.uid: keys_of(one.client, replayed.secrets) for one in incidents[: replayed.told]}
    decided = {event.client_key for event in replayed.events if event.kind == "throttle"}
    near = {key: _near(key, decided, replayed.survey) for found in keys.values() for key in found}
    wanted = sorted({*near, *(other for found in near.values() for other in found)})
    stories = _stories(replayed, wanted) if wanted else {}
    found = [_detail(one, keys[one.uid], near, stories, replayed) for one in incidents[: replayed.told]]
    return [detail for detail in found if detail is not None]


def _stories(replayed: "Replayed", clients: Sequence[int]) -> Stories:
    about = replayed.config, replayed.artefacts, replayed.secrets, replayed.reporter
    gathered = gather(replayed.sources, *about, clients, replayed.options)
    settings = settings_of(replayed.config, replayed.artefacts, replayed.options)
    return follow(settings, gathered.frames, clients, states=gathered.states)


def _near(key: int, decided: Collection[int], survey: Survey) -> list[int]:
    """Clients without any decision that sent about as many rows to the same model, the nearest first."""
    for space in survey.spaces.values():
        place = int(np.searchsorted(space.clients, np.uint64(key)))
        if place < len(space.clients) and int(space.clients[place]) == key:
            return _like(space, int(space.rows[place]), decided)
    return []


def _like(space: Space, rows: int, decided: Collection[int]) -> list[int]:
    ordinary = np.flatnonzero(
        (space.rows >= NEIGHBOUR_ROWS_MIN) & ~np.isin(space.clients, np.fromiter(sorted(decided), np.uint64))
    )
    apart = np.abs(np.log(space.rows[ordinary] / rows))
    chosen = ordinary[np.lexsort((space.clients[ordinary], apart))[:NEIGHBOURS]]
    return [int(key) for key in space.clients[chosen]]


def _detail(
    incident: Incident,
    keys: Collection[int],
    near: Mapping[int, Sequence[int]],
    stories: Stories,
    replayed: "Replayed",
) -> Detail | None:
    """None where no row of the client can be read any more."""
    story = next((story for story in stories.values() if story.key in keys and _tells(story, incident)), None)
    if story is None:
        return None
    artefact = replayed.artefacts.models[story.model]
    own = [one for one in story.findings if one.at >= 0 and one.finding.incident == incident.uid]
    row = max(own, key=lambda one: (one.finding.decision.level, one.at)).at
    provenance = settings_of(replayed.config, replayed.artefacts, replayed.options).provenance
    space = replayed.survey.spaces.get(story.space)
    subject = Subject(incident.uid, story, artefact, None if space is None else space.sample)
    others = (stories.get((key, story.space)) for key in near[story.key])
    neighbour = next((one for one in others if one is not None and one.client_class == story.client_class), None)
    return Detail(
        incident,
        telling.tell(story, artefact, row, provenance, None),
        _figures(subject, neighbour),
        "" if neighbour is None else neighbour.client,
        attack_names(own[-1].finding.reason) if incident.level >= LEVELS.index("hard") else [],
    )


def _tells(story: Story, incident: Incident) -> bool:
    return any(one.at >= 0 and one.finding.incident == incident.uid for one in story.findings)


def _figures(subject: Subject, neighbour: Story | None) -> list[Figure]:
    drawn = [evidence.evidence(subject), inputs.path(subject), inputs.answers(subject)]
    drawn += [evidence.beside(subject, neighbour)] if neighbour is not None else []
    drawn.append(inputs.fields(subject))
    return [figure for figure in drawn if figure is not None]
