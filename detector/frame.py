"""Messages of `requests`: rows, orders of people, and what `link` and `judge` write. Each takes effect at its offset
there."""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from models.rows import Rows


@dataclass(frozen=True, slots=True)
class RowFrame:
    """Rows of one space that belong to one partition of `requests`.

    offset : position of this frame in that partition. source_name : the raw partition for people, "topic[3]", or, if
    the rows are of several, all of them as `label` writes them. key_id : which pseudonym key made `client`.
    names : only for replays with plain client names.
    """

    partition: int
    offset: int
    model: str
    space: str
    source_name: str
    key_id: str
    rows: Rows
    names: Mapping[int, str] = field(default_factory=dict)

    def source_of(self, row: int) -> str:
        """The raw partition of a row."""
        return named(self.source_name).get(int(self.rows.source[row]), self.source_name)


_ONE = r"[\w.-]+\[\d+\]:[0-9a-f]{8}"
_SEVERAL = re.compile(f"{_ONE}(,{_ONE})+", re.ASCII)


def label(sources: Mapping[int, str]) -> str:
    """`source_name` of rows of these raw partitions, at least one, by id. Several are each followed by the id."""
    if len(sources) == 1:
        return next(iter(sources.values()))
    return ",".join(f"{name}:{source:08x}" for source, name in sources.items())


@functools.lru_cache(256)
def named(label: str) -> Mapping[int, str]:
    """What a label of several raw partitions says, id -> name; nothing for the name of one."""
    parts = [part.split(":") for part in label.split(",")] if _SEVERAL.fullmatch(label) else []
    return {int(source, 16): name for name, source in parts}


@dataclass(frozen=True, slots=True)
class ControlFrame:
    """An order that must be the same live and replayed, so it travels with the rows.

    action : "allow" | "lift" | "block". client : uint64 of `name`, the client's pseudonym. model : "" for every model.
    until_ms : end of an allowance, on the client's own clock (0 takes it back), or of a block, on everybody's.
    given_ms : when the order was given, on the clock of who gave it; 0 if nobody wrote it down.
    """

    partition: int
    offset: int
    action: str
    client: int
    name: str
    model: str
    until_ms: int
    reason: str
    given_ms: int = 0


@dataclass(frozen=True, slots=True)
class ShiftFrame:
    """How far the population of a space has moved, from `link`: what every client's own movement is compared with.

    since_ms, until_ms : the newest window in it. vector : (d,) mean `values` less the reference's centre, value units.
    """

    partition: int
    offset: int
    model: str
    space: str
    since_ms: int
    until_ms: int
    rows: int
    vector: tuple[int, ...]

    @property
    def about(self) -> str:
        """A later shift of the same space replaces this one."""
        return self.space


@dataclass(frozen=True, slots=True)
class CloseFrame:
    """From `link`: a fold's windows that end by `until_ms` are closed for all rows behind this frame in its partition.

    Which rows are too late is thereby part of the log, and the same for every reader, at whatever pace it reads.
    """

    partition: int
    offset: int
    until_ms: int
    fold: str


@dataclass(frozen=True, slots=True)
class ResultFrame:
    """From `link`: what a fold found in closed windows, for all partitions. Readers pass over folds they do not know.

    about : what the result is about; a later one of the same fold about the same thing replaces it.
    until_ms : end of the newest window in it.
    body : JSON, UTF-8, at most RESULT_BYTES_MAX; its fields are the fold's own.
    """

    partition: int
    offset: int
    fold: str
    about: str
    until_ms: int
    body: bytes


RESULT_BYTES_MAX = 65_536

LinkFrame = ShiftFrame | CloseFrame | ResultFrame
"""What `link` writes into every partition of `requests`."""


@dataclass(frozen=True, slots=True)
class DecidedFrame:
    """From `judge`, into partition 0: a client was decided on, for the breaker to count (detector/breaker).

    client, name : uint64 and pseudonym. excess_milli : the statistic, thousandths of a tail length. known : the client
    has a past. others : how many other clients of its block were seen within a day, (without a past, with one).
    decided_ms : time of the decision, on the client's clock. again : a decision in force, told with today's evidence.
    """

    partition: int
    offset: int
    model: str
    space: str
    artefact_hash: str
    client: int
    name: str
    client_class: int
    level: int
    excess_milli: int
    known: bool
    others: tuple[int, int]
    decided_ms: int
    again: bool = False


@dataclass(frozen=True, slots=True)
class BreakerFrame:
    """From the `judge` of partition 0, into every partition: what of a space's decisions is enforced from here on.

    revision : offset in partition 0 of what it follows from; an older frame changes nothing. floors : (level, known,
    rank) below which decisions of that level stay in shadow; none: all are enforced. since_ms, until_ms : when it
    opened, and event time now. level, seen, promised, clients : at its opening, of the level that opened it: clients
    decided on within an hour, how many the certificate promises at most, among how many clients. opens : tell people.
    """

    partition: int
    offset: int
    model: str
    space: str
    artefact_hash: str
    revision: int
    floors: tuple[tuple[int, bool, int], ...]
    since_ms: int
    until_ms: int
    level: int
    seen: int
    promised: float
    clients: int
    opens: bool


@dataclass(frozen=True, slots=True)
class ResetFrame:
    """A person's order, into partition 0: the breaker of a model ("" for every one) counts anew. given_ms : when."""

    partition: int
    offset: int
    model: str
    reason: str
    given_ms: int


JudgeFrame = DecidedFrame | BreakerFrame
"""What `judge` writes into `requests`."""

Frame = RowFrame | ControlFrame | ResetFrame | LinkFrame | JudgeFrame
