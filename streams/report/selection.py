"""The gravest incidents told in full, each beside an ordinary client that sent about as much."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from detector.events.finding import LEVELS
from detector.trace import explanation
from detector.trace.trace import Trace, follow
from models.rows import U64
from streams.analyst.incidents import Incident
from streams.explain.find import keys_of
from streams.replay.evidence import gather
from streams.replay.summary import SpaceSummary
from streams.report import evidence, inputs
from streams.report.contents import Detail, attack_names
from streams.report.plots import PlotFigure
from streams.report.replayed import Replayed
from streams.report.subject import TracedClient

NEIGHBOUR_ROWS_MIN = 3

Stories = Mapping[tuple[int, str], Trace]


def details(replayed: Replayed, incidents: Sequence[Incident]) -> list[Detail]:
    """In the order of the incidents, the gravest of them only. Raises SourceError."""
    told = incidents[: replayed.told]
    keys = {one.uid: keys_of(one.client, replayed.plan.secrets) for one in told}
    decided = np.unique(
        np.array([event.client_key for event in replayed.events if event.kind == "throttle"], np.uint64)
    )
    beside: dict[tuple[int, str], int] = {}
    for name, space in replayed.outcome.spaces.items():
        about = [key for one in told if one.model == space.model for key in keys[one.uid]]
        beside |= {(key, name): other for key, other in _ordinary(space, about, decided).items()}
    wanted = sorted({*(key for found in keys.values() for key in found), *beside.values()})
    stories = _stories(replayed, wanted) if wanted else {}
    found = [_detail(one, keys[one.uid], beside, stories, replayed) for one in told]
    return [detail for detail in found if detail is not None]


def _stories(replayed: Replayed, clients: Sequence[int]) -> Stories:
    gathered = gather(replayed.plan, clients)
    return follow(replayed.plan.settings.newest, gathered.frames, clients, states=gathered.states)


def _ordinary(space: SpaceSummary, keys: Sequence[int], decided: U64) -> dict[int, int]:
    """For each client one of its class without any decision that sent about as many rows."""
    places = np.searchsorted(space.clients, np.array(keys, np.uint64))
    known = [(key, int(at)) for key, at in zip(keys, places, strict=True) if key in space.clients[at : at + 1].tolist()]
    ordinary = np.flatnonzero((space.rows >= NEIGHBOUR_ROWS_MIN) & ~np.isin(space.clients, decided))
    found = {}
    for key, at in known:
        alike = ordinary[space.client_class[ordinary] == space.client_class[at]]
        if len(alike):
            apart = np.abs(np.log(space.rows[alike] / space.rows[at]))
            found[key] = int(space.clients[alike[int(apart.argmin())]])
    return found


def _detail(
    incident: Incident,
    keys: Collection[int],
    beside: Mapping[tuple[int, str], int],
    stories: Stories,
    replayed: Replayed,
) -> Detail | None:
    """None where no row of the client can be read any more."""
    story = next((story for story in stories.values() if story.key in keys and _tells(story, incident)), None)
    if story is None:
        return None
    artefact = replayed.plan.artefacts.models[story.model]
    own = [one for one in story.findings if one.at >= 0 and one.finding.incident == incident.uid]
    row = max(own, key=lambda one: (one.finding.decision.level, one.at)).at
    provenance = replayed.plan.settings.newest.provenance
    space = replayed.outcome.spaces.get(story.space)
    subject = TracedClient(incident.uid, story, artefact, None if space is None else space.sample)
    neighbour = stories.get((beside.get((story.key, story.space), -1), story.space))
    return Detail(
        incident,
        explanation.tell(story, artefact, row, provenance, None),
        _figures(subject, neighbour),
        "" if neighbour is None else neighbour.client,
        attack_names(own[-1].finding.reason) if incident.level >= LEVELS.index("hard") else [],
    )


def _tells(story: Trace, incident: Incident) -> bool:
    return any(one.at >= 0 and one.finding.incident == incident.uid for one in story.findings)


def _figures(subject: TracedClient, neighbour: Trace | None) -> list[PlotFigure]:
    answers = inputs.answers(subject)
    beside = None if neighbour is None else evidence.beside(subject, neighbour)
    pair = [figure for figure in (answers, beside) if figure is not None]
    if len(pair) == 1:
        pair = [pair[0]._replace(wide=True)]
    return [evidence.evidence(subject), inputs.path(subject), *pair, inputs.fields(subject)]
