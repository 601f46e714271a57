"""What the synthetic prober must lead to: its records folded here, under the configured artefacts, before all else."""

from dataclasses import replace
from typing import NamedTuple

import msgspec

from detector import engine
from detector.events.encode import ALERT_LEVEL
from detector.events.finding import LEVELS, Event
from models.artefacts.store import Artefacts
from models.errors import UserError
from models.pseudonym import pseudonym
from streams.adapters import Formats, native
from streams.analyst.events import ThrottleEvent
from streams.config.config import Config
from streams.ops.selftest import prober
from streams.secrets.load import Secrets
from streams.sketch.identity import Identity, identity_of
from streams.sketch.sketcher import RawRecord, Sketcher

ROWS_MAX = 400


class SelftestError(UserError, ValueError):
    """The self-test cannot start. Says why."""


class Due(msgspec.Struct, frozen=True):
    """An expected decision. rows_seen : the client's row at which it is expected."""

    level: int
    detector: str
    rows_seen: int

    def __str__(self) -> str:
        return f"{LEVELS[self.level]} ({self.detector}) at request {self.rows_seen}"


class Rehearsal(NamedTuple):
    """What is to be sent, and what is to come of it. client, key : its pseudonym, and the number in it. topic : a raw
    topic of the native format."""

    model: str
    topic: str
    client: str
    key: int
    values: list[bytes]
    due: list[Due]


def due_of(throttle: ThrottleEvent) -> Due:
    return Due(throttle.level, throttle.detector, throttle.record.trigger.rows_seen)


def rehearse(
    config: Config, artefacts: Artefacts, secrets: Secrets, model: str, *, name: str, end_ms: int
) -> Rehearsal:
    """The prober's records up to its first alert, and every decision until then. Raises SelftestError if none falls.

    model : "" for the first by name. name : the client id. end_ms : when the last record is said to have come.
    """
    model = model or min(artefacts.models, default="")
    if model not in artefacts.models:
        raise SelftestError(
            f"--model: expected one of {', '.join(sorted(artefacts.models)) or '(none)'}; got {model!r}"
        )
    topics = Formats(config).topics(native.ADAPTER)
    if not topics:
        raise SelftestError("no raw topic has the format native (input.formats): the synthetic prober writes no other")
    identity = identity_of(secrets, config.input.registry)
    made = prober.records(artefacts.models[model], name, ROWS_MAX, end_ms)
    values = [msgspec.json.encode(record) for record in made]
    due: list[Due] = []
    for decision in _decisions(config, artefacts, identity, topics[0], values):
        assert decision.position is not None
        due.append(Due(decision.level, decision.detector, decision.position.rows_seen))
        if decision.level >= ALERT_LEVEL:
            key, tail = identity.client(name)
            return Rehearsal(
                model, topics[0], pseudonym(identity.key_id, key, tail), key, values[: due[-1].rows_seen], due
            )
    raise SelftestError(
        f"{model}: {ROWS_MAX} requests of the synthetic prober make no alert under these artefacts; try another"
        " --model, or look at the thresholds in certificate.md"
    )


def _decisions(
    config: Config, artefacts: Artefacts, identity: Identity, topic: str, values: list[bytes]
) -> list[Event]:
    raw = [RawRecord(offset, value, None, (), -1) for offset, value in enumerate(values)]
    sketcher = Sketcher(artefacts, identity, config)
    result = sketcher.frames(topic, 0, config.input.incarnation, raw, 1)
    if result.rejects or result.unjudged:
        faults = "; ".join([*map(str, result.rejects[:1]), *result.unjudged])
        raise SelftestError(f"the synthetic prober cannot be read: {faults}")
    state = engine.open_partition(engine.EngineSettings(config, artefacts), 0)
    placed = [replace(frame, offset=offset) for offset, frame in enumerate(result.frames)]
    return [event for frame in placed for event in engine.step(state, frame) if event.kind == "throttle"]
