"""What became of the history, held against one uninterrupted offline fold of the same records."""

import asyncio
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Container, Sequence
from typing import NamedTuple

from detector.frame import RowFrame
from streams.sketch.identity import source_id
from streams.wire import frames
from streams.worker.sink import ID_HEADER
from tests.faults.fault import Fault
from tests.faults.history import Life, Position, fold, fold_models, positions
from tests.faults.scene import Scene
from tests.faults.workers import Exit
from tests.pipeline import read_topic

WATCHDOG = (
    "not read for .* s although records wait",
    "Faust has not polled",
    "no assignment for .* s",
    "its step .* has not finished",
)
"""What a worker says when it ends because Faust or its client stands still: not planned, and not the worker's fault."""


class Strike(NamedTuple):
    """One fault of a run. rows : how many had been sent when it began. at_s : wall clock, as brokers write it into
    records. since_s : monotonic. seconds : until its cause was gone. settled_s : until all was as if it had not been.
    """

    fault: Fault
    rows: int
    at_s: float
    since_s: float
    seconds: float
    settled_s: float


class Blame(NamedTuple):
    """What went wrong, or happened again, from one fault to the next.

    lost : events expected and not written. doubled : events that nobody expects, or with other bytes. repeated : the
    same bytes once more. rows_lost : not in `requests`. watched : workers that their watchdog ended. exits : workers
    that ended for another reason than planned.
    """

    lost: int
    doubled: int
    repeated: int
    rows_lost: int
    watched: int
    exits: list[str]


class Verdict(NamedTuple):
    """rows : of the history. resent : how many stand in `requests` once more. blames : one for each strike, in order.

    ends : how often workers ended themselves, as planned. left_badly : who was asked to leave and did not, in order.
    strange : what was written and not expected, and what was expected under its id.
    """

    rows: int
    events: int
    resent: int
    ends: int
    blames: list[Blame]
    left_badly: list[str]
    strange: list[str]

    @property
    def good(self) -> bool:
        return not self.left_badly and not any(b.lost or b.doubled or b.rows_lost or b.exits for b in self.blames)


async def judge(scene: Scene, strikes: Sequence[Strike]) -> Verdict:
    """The scene must have settled, and its workers have left."""
    stand = Counter(await _stand(scene))
    lives = [
        *(_read(scene, life, stand) for life in scene.lives),
        Life(scene.incarnation, await read_topic(scene.config, scene.config.topics.raw[0])),
    ]
    expected = await asyncio.to_thread(fold, scene.config, scene.fitted, lives)
    expected |= await asyncio.to_thread(fold_models, scene.config, scene.fitted)
    tally = _Tally(strikes)
    values: set[tuple[str, bytes]] = set()
    strange: list[str] = []
    async for at_s, name, value in _written(scene):
        if name not in expected or expected[name].value != value:
            tally.doubled[tally.at(at_s)] += 1
            strange.append(f"{value.decode()} instead of {expected[name].value.decode() if name in expected else None}")
        elif (name, value) in values:
            tally.repeated[tally.at(at_s)] += 1
        values.add((name, value))
    for name in expected.keys() - {name for name, _ in values}:
        tally.lost[tally.at_row(scene.feed.number(expected[name].time_ms))] += 1
    due = positions(scene.config, lives)
    resent = sum(stand[position] - 1 for position in due if position in stand)
    for position in due.keys() - stand.keys():
        tally.rows_lost[tally.at(due[position] / 1000)] += 1
    left = [f"{name} left with {code}" for name, code in scene.stopped if code != 0]
    blames = tally.blames(scene.exits)
    return Verdict(len(due), len(expected), resent, len(scene.exits), blames, left, strange)


def _read(scene: Scene, life: Life, stand: Container[Position]) -> Life:
    """What sketch had read of a topic before it went: up to the last row of each partition that it wrote."""
    topic = scene.config.topics.raw[0]
    last: dict[int, int] = {}
    for record in life.records:
        if (source_id(topic, record.partition, life.incarnation), record.offset, 0) in stand:
            last[record.partition] = record.offset
    return life._replace(records=[r for r in life.records if r.offset <= last.get(r.partition, -1)])


class _Tally:
    """Counts by the number of the strike during which, or after which, something happened."""

    def __init__(self, strikes: Sequence[Strike]) -> None:
        self._strikes = strikes
        self.lost: Counter[int] = Counter()
        self.doubled: Counter[int] = Counter()
        self.repeated: Counter[int] = Counter()
        self.rows_lost: Counter[int] = Counter()

    def at(self, at_s: float) -> int:
        return self._number([strike.at_s for strike in self._strikes], at_s)

    def at_row(self, row: int) -> int:
        return self._number([strike.rows for strike in self._strikes], row)

    @staticmethod
    def _number(begins: Sequence[float], place: float) -> int:
        """What was in flight when the first strike began belongs to it."""
        return max(0, bisect_right(begins, place) - 1)

    def blames(self, exits: Sequence[Exit]) -> list[Blame]:
        unplanned: dict[int, list[str]] = {}
        watched: Counter[int] = Counter()
        for exit in exits:
            number = self._number([strike.since_s for strike in self._strikes], exit.at_s)
            if any(re.search(pattern, exit.said) for pattern in WATCHDOG):
                watched[number] += 1
            elif not any(re.search(pattern, exit.said) for pattern in self._strikes[number].fault.ends):
                unplanned.setdefault(number, []).append(f"{exit.worker} ended with {exit.code}: {exit.said}")
        return [
            Blame(self.lost[n], self.doubled[n], self.repeated[n], self.rows_lost[n], watched[n], unplanned.get(n, []))
            for n in range(len(self._strikes))
        ]


async def _written(scene: Scene) -> AsyncIterator[tuple[float, str, bytes]]:
    """Time, id and value of every event in the topics."""
    for topic in (scene.config.topics.throttle, scene.config.topics.alerts, scene.config.topics.drift):
        for record in await read_topic(scene.config, topic):
            yield record.timestamp / 1000, dict(record.headers)[ID_HEADER].decode(), record.value


async def _stand(scene: Scene) -> list[Position]:
    """The position of every row in `requests`, as often as it stands there."""
    found: list[Position] = []
    for record in await read_topic(scene.config, scene.config.topics.requests):
        try:
            frame = frames.decode(record.value, record.partition, record.offset)
        except frames.FrameError:
            continue  # written by a fault
        if isinstance(frame, RowFrame):
            rows = frame.rows
            found += zip(rows.source.tolist(), rows.offset.tolist(), rows.index.tolist(), strict=True)
    return found
