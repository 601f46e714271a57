"""`link`, live: frames through its folds, events out, and what the folds find back into `requests`.

One member of the group owns every partition, since a window is complete only with all of them; the others are standbys.
When event time has passed a window, `link` writes a CloseFrame into every partition of `requests`, and closes the
window when it has read that frame in each: which rows were too late is thereby part of the log. The order makes a crash
harmless: events and frames acknowledged -> state written -> offsets committable. What is repeated after a crash has the
same ids and the same bytes.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import river.drift  # noqa: F401  # takes seconds to import: not while the first window is being closed
import structlog
from aiokafka import TopicPartition
from faust.types import TP

from detector import link
from detector.frame import Frame
from detector.link_fold import DamagedStateError
from models.artefacts.store import Artefacts
from streams.config.config import Config
from streams.kafka import clients, topics
from streams.kafka.broker import Features, log_ends
from streams.kafka.faust_batches import Batch, Memory, SoleAssignor
from streams.kafka.topic_ids import topic_ids
from streams.metrics import Metrics
from streams.wire import frames
from streams.worker.sink import Sink
from streams.worker.stage import StageError
from streams.worker.state_topic import LOG_HEADER, read_log

FETCH_WAIT_MS = 500
GATHER_BYTES = 2**18
"""Windows last minutes: frames are fetched together, not one by one as they come."""

FRAMES_A_TURN = 16
"""Then other stages of the process have their turn."""

STATE_KEY = b"link"

log = structlog.get_logger("probewatch")


@dataclass(slots=True)
class _Stored:
    """What the topic of state and `requests` hold.

    states : undamaged ones. damaged : how many records are not. logs : topic ids that their offsets belong to.
    starts : where `requests` begins, by partition.
    """

    states: list[bytes] = field(default_factory=list)
    damaged: int = 0
    logs: set[str] = field(default_factory=set)
    starts: dict[int, int] = field(default_factory=dict)


class LinkStage:
    """The state of all folds and partitions is one record of a topic; it can be rebuilt from there and `requests`."""

    name = "link"

    def __init__(
        self,
        config: Config,
        features: Features,
        artefacts: Artefacts,
        metrics: Metrics,
        away_s: Callable[[], float] = clients.never_away,
    ) -> None:
        """away_s : of `clients.Producer`."""
        self.topics: Sequence[str] = (config.topics.requests,)
        self.memory: Memory | None = None  # the id of the log is stored with the state
        self.remedy = (
            f"Name a new topics.link_state and reset the offsets of group {config.kafka.group}-{self.name}, or"
            " name a new topics.requests"
        )
        self.tick_s = config.state.round_s
        self._config = config
        self._features = features
        self._artefacts = artefacts
        self._metrics = metrics
        self._producer = clients.producer(config, features, topics.state_bytes(config), away_s=away_s)
        self._sink = Sink(self._producer, config.topics, metrics)
        self._state = self._empty()
        self._owned: dict[TP, int] = {}  # -> offset that is safe
        self._ends: dict[int, int] = {}
        self._log_id = ""

    @property
    def consumer_arguments(self) -> dict[str, Any]:
        arguments = clients.group_reading(
            self._config, self._features, fetch_max_wait_ms=FETCH_WAIT_MS, fetch_min_bytes=GATHER_BYTES
        )
        return arguments | {"partition_assignment_strategy": [SoleAssignor]}

    async def start(self) -> None:
        """Raises StageError if a topic is missing or `requests` has other partitions than configured."""
        names = [self._config.topics.requests, self._config.topics.link_state, self._config.topics.drift]
        counts = await topics.partition_counts(self._config, names)
        if missing := [name for name in names if name not in counts]:
            raise StageError(f"no such topic: {', '.join(missing)} (`probewatch topics create` makes them)")
        if counts[names[0]] != (wanted := self._config.topics.partitions):
            raise StageError(f"{names[0]}: expected {wanted} partitions (topics.partitions); got {counts[names[0]]}")
        await self._producer.start()

    async def stop(self) -> None:
        await self._producer.stop()

    async def acquire(self, partitions: Sequence[TP], committed: Mapping[TP, int | None]) -> None:
        """Load the state, or become a standby without partitions. Raises StageError, link_fold.StateError."""
        self._owned, self._state, self._ends = {}, self._empty(), {}
        if not partitions:
            return
        if len(partitions) != self._config.topics.partitions:
            raise StageError(
                f"{len(partitions)} of {self._config.topics.partitions} partitions; link needs all of them"
            )
        stored = await self._read(partitions)
        begin = {tp.partition: committed[tp] or 0 for tp in partitions}
        if stored.states or stored.damaged:
            self._state, begin = self._load(stored, begin)
        self._owned = {tp: begin[tp.partition] for tp in partitions}

    def _empty(self) -> link.LinkState:
        return link.LinkState.of(self._config, self._artefacts)

    def _load(self, stored: _Stored, begin: dict[int, int]) -> tuple[link.LinkState, dict[int, int]]:
        """The furthest state that lacks nothing before where reading begins. If it is damaged, the furthest other one,
        and reading begins again at its offsets."""
        state = self._furthest(stored, begin)
        if state is not None:
            self._check_log(stored, state)
            return state, begin
        if stored.damaged:
            state = self._furthest(stored, {}) or self._empty()
            again = {partition: min(offset, state.next.get(partition, 0)) for partition, offset in begin.items()}
            if all(again[n] == begin[n] or again[n] >= stored.starts[n] for n in again):
                log.warning("state damaged: reading again", topic=self.topics[0], begin=again, instead=begin)
                return state, again
        raise StageError(
            f"{self._config.topics.link_state} is behind the offsets of group"
            f" {self._config.kafka.group}-{self.name}: reset them, or name a new topics.link_state"
        )

    def _furthest(self, stored: _Stored, begin: Mapping[int, int]) -> link.LinkState | None:
        """Of the states that have reached `begin`, the one that has read most.

        Not the last record: a stalled member that wakes may have written an old state behind a newer one. A state that
        cannot be loaded although its checksum is right counts as damaged.
        """
        states = [(link.reached(value), value) for value in stored.states]
        whole = [state for state in states if all(state[0].get(n, 0) >= offset for n, offset in begin.items())]
        for _, value in sorted(whole, key=lambda state: sum(state[0].values()), reverse=True):
            state = self._empty()
            try:
                state.load(value)
            except DamagedStateError as error:
                self._damaged(stored, error, self._config.topics.link_state)
                stored.states.remove(value)
            else:
                return state
        return None

    def _check_log(self, stored: _Stored, state: link.LinkState) -> None:
        """Raises StageError if the state belongs to another log."""
        for partition, offset in state.next.items():
            if offset > (end := self._ends.get(partition, 0)) or stored.logs - {"", self._log_id}:
                raise StageError(
                    f"{self.topics[0]}[{partition}]: the state has reached offset {offset}, but the log ends at {end}:"
                    f" the topic was re-created. {self.remedy}"
                )

    def _damaged(self, stored: _Stored, error: DamagedStateError, at: str) -> None:
        stored.damaged += 1
        self._metrics.damaged.labels(self._config.topics.link_state).inc()
        log.warning("damaged", what=str(error), at=at)

    async def _read(self, partitions: Sequence[TP]) -> _Stored:
        """Every stored state, and where `requests` begins and ends."""
        topic, logs = self._config.topics.link_state, [TopicPartition(*tp) for tp in partitions]
        most = topics.state_bytes(self._config) + clients.FRAMING_BYTES
        stored = _Stored()
        async with clients.reader(self._config, max_partition_fetch_bytes=most, fetch_max_bytes=most) as consumer:
            self._log_id = (await topic_ids(consumer._client, self.topics)).get(self.topics[0], "")
            ends = await log_ends(consumer, logs, self._features)
            starts = await consumer.beginning_offsets(logs)
            self._ends = {tp.partition: ends[tp] for tp in logs}
            stored.starts = {tp.partition: starts[tp] for tp in logs}
            async for record in read_log(consumer, [TopicPartition(topic, 0)], self._features):
                try:
                    link.reached(record.value or b"")
                except DamagedStateError as error:
                    self._damaged(stored, error, f"{topic}[0]@{record.offset}")
                else:
                    stored.states.append(record.value)
                    stored.logs.add(dict(record.headers).get(LOG_HEADER, b"").decode(errors="replace"))
        return stored

    async def process(self, batch: Batch) -> None:
        rows = 0
        for start in range(0, len(batch.records), FRAMES_A_TURN):
            rows += self._state.step(_decoded(batch.records[start : start + FRAMES_A_TURN]))
            await asyncio.sleep(0)
        self._state.next[batch.partition.partition] = max(batch.end, self._state.next.get(batch.partition.partition, 0))
        self._metrics.frames.labels(self.name).inc(len(batch.records))
        self._metrics.rows.labels(self.name).inc(rows)
        self._metrics.late.set(self._state.late)
        await self._close()

    def _behind(self) -> set[int]:
        """Partitions not yet read to the end that they had at first: the others wait for them."""
        return {partition for partition, end in self._ends.items() if self._state.next.get(partition, 0) < end}

    async def _close(self) -> None:
        for frame in self._state.due(self._behind()):
            await self._sink.write(frame)
        closed = self._state.close()
        self._metrics.windows.inc(closed.windows)
        if closed.events or closed.frames:
            await asyncio.gather(self._sink.send(closed.events), *(self._sink.write(frame) for frame in closed.frames))
            await self._write()

    async def tick(self) -> None:
        """Write the state once a round, changed or not: that also replaces what a zombie wrote. Not before a backlog
        has been read: all of its windows are still open, and the former state with its offsets is good.
        """
        if not self._behind():
            await self._write()

    async def _write(self) -> None:
        if not self._owned:
            return
        value = self._state.dump()
        if len(value) > (most := topics.state_bytes(self._config)):
            raise StageError(f"the state takes {len(value)} bytes; a message holds {most} (state.block_bytes)")
        headers = [(LOG_HEADER, self._log_id.encode())]
        await self._producer.send_and_wait(
            self._config.topics.link_state, value, key=STATE_KEY, partition=0, headers=headers
        )
        self._owned = {tp: max(safe, self._state.next.get(tp.partition, 0)) for tp, safe in self._owned.items()}

    def committable(self) -> Mapping[TP, int]:
        return dict(self._owned)

    async def release(self) -> None:
        if not self._behind():
            await self._write()


def _decoded(records: Sequence[Any]) -> list[Frame]:
    """Without messages that are not frames: judge makes dead letters of them."""
    decoded = []
    for record in records:
        with contextlib.suppress(frames.FrameError):
            decoded.append(frames.decode(record.value or b"", record.partition, record.offset))
    return decoded
