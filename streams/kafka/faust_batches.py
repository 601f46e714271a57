"""Faust supplies group membership, rebalancing and flow control; its producer, tables, web and acks are switched off.

One Faust event is a batch: everything that one fetch returned of one partition. Stock Faust spends 80-90 µs on every
message, and `take()` does not help; one event a batch costs 2-4 µs a message. Ours are:

- Committed offsets. A stage calls `done(partition, offset)`: everything below need never be read again. Faust would
  want one acknowledgement for every event, and `judge` finishes a frame when its blocks are written, a minute later.
- Batch numbers. Batches of a partition are numbered from the last seek on, and dropped ones keep their number: a batch
  lost in queues or rebalances is noticed (`Batch.number`) before anything behind it is committed.
- Arguments of the consumer: security, and the broker-side wait that gathers messages into batches.
- Topic ids, stored with the committed offsets: offsets of a re-created topic would mean other records.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import aiokafka
import faust
import msgspec
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import CommitFailedError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.app.base import BootStrategy
from faust.events import Event
from faust.topics import Topic
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage, Message

from streams.kafka.topic_ids import topic_ids

MAX_RECORDS = 5_000
"""Most records in one batch: bounds how long a stage blocks the event loop."""

QUEUED_BATCHES = 4
"""Batches queued for a stage. Faust's default of 4,096 events would be gigabytes, since an event is a batch."""


class Batch(NamedTuple):
    """Records of one partition, in order, never empty. number : 0 for the first since the position was set.

    more : whether others of the same fetch follow, of this partition or another.
    """

    partition: TP
    records: Sequence[Any]  # aiokafka.ConsumerRecord
    number: int
    more: bool = False

    @property
    def end(self) -> int:
        """The offset behind the last record."""
        return int(self.records[-1].offset) + 1


class BatchTopic(Topic):
    """A topic whose events carry a Batch; there is nothing to decode."""

    def _compile_decode(self) -> None:
        async def decode(message: Message, *, propagate: bool = False) -> Event:
            return Event(self.app, None, cast(Any, message.value), None, message)

        self.decode = decode  # type: ignore[method-assign]


class SoleAssignor(RoundRobinPartitionAssignor):  # type: ignore[misc]
    """One member, the first by name, gets every partition; the others are standbys."""

    name = "sole"

    @classmethod
    def assign(cls, cluster: Any, members: Mapping[str, Any]) -> dict[str, Any]:
        first = min(members)
        nothing = ConsumerProtocolMemberAssignment(cls.version, [], b"")
        everything: dict[str, Any] = super().assign(cluster, {first: members[first]})
        return dict.fromkeys(members, nothing) | everything


def sticky_assignor() -> type[StickyPartitionAssignor]:
    """Partitions stay with the member that has their state, as far as shares are even.

    A class for each member: the library stores what a member owns in the class. Offer it alone: the library joins once
    for each assignor, every join begins a rebalance, and two members may do so to each other forever.
    """
    return type("MemberStickyAssignor", (StickyPartitionAssignor,), {})


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """Reads with the arguments of the application instead of Faust's settings."""

    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        app = cast(BatchApp, self.app)
        self._assignor = RoundRobinPartitionAssignor
        return aiokafka.AIOKafkaConsumer(
            group_id=app.conf.id,
            enable_auto_commit=False,
            **{"partition_assignment_strategy": [RoundRobinPartitionAssignor], **app.consumer_arguments},
        )

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        consumer, assigned = self._ensure_consumer(), self.assignment()
        places = {tp: OffsetAndMetadata(offset, "") for tp, offset in offsets.items() if tp in assigned}
        batches = cast(BatchConsumer, self.consumer)
        if places and batches.memory is not None:
            places[batches.memory.place] = OffsetAndMetadata(0, batches.memory.text(batches.topic_ids))
        try:
            # Not the consumer's own `commit`: it refuses partitions that are not assigned, such as the memory's.
            offsets_by_place = {aiokafka.TopicPartition(*tp): at for tp, at in places.items()}
            await consumer._coordinator.commit_offsets(consumer._subscription.subscription.assignment, offsets_by_place)
        except CommitFailedError:  # the group is rebalancing; the next owner reads from the committed offset
            return False
        except Exception as error:
            await self.crash(error)
            return False
        return True


class Memory(NamedTuple):
    """Where a group stores the ids of the topics it reads: in the metadata of an offset that means nothing itself.

    place : a partition of a topic that lives as long as the group's state; brokers delete a topic's offsets with it.
    name : another name starts an empty memory.
    """

    place: TP
    name: str

    def text(self, ids: Mapping[str, str]) -> str:
        return msgspec.json.encode({self.name: ids}).decode()

    def ids(self, text: str) -> dict[str, str]:
        try:
            return msgspec.json.decode(text or "{}", type=dict[str, dict[str, str]]).get(self.name, {})
        except msgspec.MsgspecError:
            return {}


class GroupOffsets(NamedTuple):
    """Committed offsets of a group, and what has happened to its topics.

    recreated : topics with another id than when the group read them last.
    expired : how many records retention deleted before they were read.
    """

    offsets: dict[TP, int]
    recreated: set[str]
    expired: dict[TP, int]


class BatchConsumer(driver.Consumer):
    """Reads every topic in batches. topic_ids : of these topics, if the broker has any (Kafka 2.8)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.polls = 0
        self.topic_ids: dict[str, str] = {}
        self.memory: Memory | None = None
        self._done: dict[TP, int] = {}
        self._numbers: dict[TP, int] = {}
        self._epoch = 0
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def done(self, partition: TP, offset: int) -> None:
        """Everything below `offset` need never be read again; committed with the next commit. Never decreases."""
        self._done[partition] = max(offset, self._done.get(partition, 0))

    async def group_offsets(self, partitions: Sequence[TP], topics: Sequence[str]) -> GroupOffsets:
        """The group's offsets of these partitions, and whether the topics are still the same."""
        consumer, memory = self._thread._ensure_consumer(), self.memory
        places = [aiokafka.TopicPartition(*tp) for tp in (*partitions, *([memory.place] if memory else ()))]

        async def ask() -> tuple[dict[str, str], Mapping[Any, int], Mapping[Any, OffsetAndMetadata]]:
            ids, starts = await topic_ids(consumer._client, topics), await consumer.beginning_offsets(places)
            return ids, starts, await consumer._coordinator.fetch_committed_offsets(places)

        self.topic_ids, starts, committed = await self._thread.call_thread(ask)
        known = memory.ids(committed.pop(places[-1]).metadata) if memory and places[-1] in committed else {}
        recreated = {topic for topic, now in self.topic_ids.items() if known.get(topic, now) != now}
        offsets = {TP(*place): at.offset for place, at in committed.items()}
        expired = {tp: starts[tp] - at for tp, at in offsets.items() if 0 <= at < starts.get(tp, 0)}
        return GroupOffsets(offsets, recreated, expired)

    async def set_back(self, offsets: Mapping[TP, int]) -> bool:
        """Commit offsets below the committed ones. False if the group is rebalancing again."""
        done: bool = await self._thread.commit(offsets)
        return done

    def reading_at(self, partition: TP) -> int | None:
        """The next offset that the client will return, None before it knows."""
        assignment = self._thread._ensure_consumer()._subscription.subscription.assignment
        place = aiokafka.TopicPartition(*partition)
        offset: int | None = assignment.state_value(place)._position if place in assignment.tps else None
        return offset

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:  # noqa: ASYNC109 Faust names it
        self.polls += 1
        epoch = self._epoch
        records, _ = await self._wait_next_records(timeout)
        if not records or self.should_stop:
            return
        if epoch != self._epoch or not self.flow_active:
            # Fetched around a rebalance: it is unknown before or after which seek. Drop it and seek again.
            await self._seek_again()
            return
        generation = self.app.consumer_generation_id
        for batch in self._batches(records):
            if epoch != self._epoch or not self.flow_active:
                return
            self.app.monitor.track_tp_end_offset(batch.partition, self.highwater(batch.partition))
            yield batch.partition, _message(batch, generation)

    def _batches(self, records: Mapping[Any, Sequence[Any]]) -> list[Batch]:
        """Numbers are assigned before the first batch is yielded, so that batches never yielded are missed."""
        batches = []
        for partition, fetched in records.items():
            tp = ensure_TP(partition)
            for start in range(0, len(fetched), MAX_RECORDS):
                number = self._numbers.get(tp, 0)
                batches.append(Batch(tp, fetched[start : start + MAX_RECORDS], number, more=True))
                self._numbers[tp] = number + 1
        return [*batches[:-1], batches[-1]._replace(more=False)]

    async def _seek_again(self) -> None:
        try:
            await self.perform_seek()
        except (TimeoutError, KafkaError) as error:
            self.log.info("the rebalance continues, its end will seek: %r", error)

    async def perform_seek(self) -> None:
        self._forget_numbers(None)
        await super().perform_seek()
        self._forget_numbers(None)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """The client leaves partitions without a committed offset at their position, behind what was just dropped."""
        offsets = await super().seek_to_committed()
        fresh = [aiokafka.TopicPartition(tp.topic, tp.partition) for tp, offset in offsets.items() if not offset]
        if fresh:
            await self._thread.call_thread(self._thread._ensure_consumer().seek_to_beginning, *fresh)
        return offsets

    async def seek(self, partition: TP, offset: int) -> None:
        self._forget_numbers([partition])
        await super().seek(partition, offset)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await super().on_partitions_revoked(revoked)
        self._forget_numbers(revoked)
        for tp in revoked:
            self._done.pop(tp, None)

    def _forget_numbers(self, partitions: Iterable[TP] | None) -> None:
        self._epoch += 1
        for tp in list(self._numbers) if partitions is None else partitions:
            self._numbers.pop(tp, None)

    def on_buffer_full(self, tp: TP) -> None:
        """Faust would pause the partition until the queue is nearly empty, and others keep it full: with a backlog it
        starved. The full queue itself blocks each producer of batches in turn."""

    async def verify_all_partitions_active(self) -> None:
        """Faust's own check crashes on a partition whose position a rebalance has not set yet. `StageRunner.overdue`
        replaces it."""

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return iter([tp for tp in self._done if topics is None or tp in topics or tp.topic in topics])

    def _new_offset(self, tp: TP) -> int | None:
        return self._done.get(tp) or None


class BatchTransport(driver.Transport):
    Consumer = BatchConsumer


class _Boot(BootStrategy):
    """Without Faust's producer, whose failures are only logged, and without its web server."""

    enable_kafka_producer = False
    enable_web = False


class BatchApp(faust.App):
    """A Faust application that reads batches and writes nothing of its own, neither topics nor folders.

    failed : future of the first error, Faust's or an agent's. Nothing is restarted inside the process: a stage that
    continued after an error could commit records that it never processed.
    """

    BootStrategy = _Boot

    def __init__(self, group: str, consumer_arguments: Mapping[str, Any], **settings: Any) -> None:
        self.consumer_arguments = consumer_arguments
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        session_s = consumer_arguments["session_timeout_ms"] / 1000
        super().__init__(
            group,
            loop=asyncio.get_running_loop(),
            broker=[f"kafka://{address}" for address in consumer_arguments["bootstrap_servers"].split(",")],
            broker_session_timeout=session_s,
            broker_request_timeout=max(40.0, session_s),
            broker_commit_interval=1.0,
            stream_buffer_maxsize=QUEUED_BATCHES,
            stream_wait_empty=False,
            topic_disable_leader=True,
            topic_allow_declare=False,
            autodiscover=False,
            **settings,
        )

    def batch_topics(self, names: Sequence[str]) -> BatchTopic:
        """One channel over several topics. Without acknowledgements: `BatchConsumer.done` replaces them."""
        return BatchTopic(self, topics=list(names), acks=False, key_serializer="raw", value_serializer="raw")

    @property
    def batch_consumer(self) -> BatchConsumer:
        return cast(BatchConsumer, self.consumer)

    def fail(self, error: BaseException) -> None:
        """Report an error, from any thread. The first one counts."""
        self.loop.call_soon_threadsafe(self._fail, error)

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)

    def _crash(self, reason: BaseException) -> None:
        self.fail(reason)
        super()._crash(reason)

    async def _on_agent_error(self, agent: Any, exc: BaseException) -> None:
        """Faust's own would commit here."""
        self.fail(exc)

    def _new_transport(self) -> BatchTransport:
        return BatchTransport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """Faust would create a folder for tables; all state is in topics."""


def _message(batch: Batch, generation: int) -> ConsumerMessage:
    last = batch.records[-1]
    return ConsumerMessage(
        batch.partition.topic,
        batch.partition.partition,
        last.offset,
        last.timestamp / 1000.0,
        last.timestamp_type,
        None,
        None,
        cast(Any, batch),
        None,
        0,
        0,
        batch.partition,
        generation_id=generation,
    )
