"""Liveness of Kafka: is it reachable, are its topics still the same, how far do its logs reach?

The check has a connection of its own, since a client that hangs cannot report that it hangs. While Kafka is unavailable
nothing can be lost, so a worker waits without limit, also for what it has sent: `clients.DELIVERY_S` does not count
that time.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaError
from faust.types import TP

from streams.config.config import Config
from streams.config.kafka import Kafka
from streams.kafka import clients
from streams.kafka.topic_ids import absent_topics, topic_ids

LOOK_S = 2.0
ANSWER_S = 10.0
REPEAT_S = 30.0
RETRY_S = 1.0

log = structlog.get_logger("probewatch")


class TopicSnapshot(NamedTuple):
    """ids : topic -> id. ends : partition -> end offset of its log, or less. absent : topics that there are not."""

    ids: Mapping[str, str]
    ends: Mapping[TP, int]
    absent: frozenset[str] = frozenset()


class Outage:
    """Logs that Kafka is unavailable, at once and every REPEAT_S, and when it is available again."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._since: float | None = None
        self._ended_s = 0.0
        self._logged = 0.0

    @property
    def seconds(self) -> float:
        return 0.0 if self._since is None else time.monotonic() - self._since

    @property
    def total_s(self) -> float:
        """Of this outage and all before it."""
        return self._ended_s + self.seconds

    def begins_or_lasts(self, error: BaseException) -> None:
        now = time.monotonic()
        if self._since is None:
            self._since, self._logged = now, float("-inf")
        if now - self._logged >= REPEAT_S:
            self._logged = now
            why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            log.warning("Kafka is unavailable", at=self._kafka.bootstrap, for_s=round(self.seconds), why=why)

    def ends(self) -> None:
        if self._since is not None:
            log.info("Kafka is available again", after_s=round(self.seconds))
            self._ended_s += self.seconds
            self._since = None


class Absence:
    """Logs topics that do not exist, at once and every REPEAT_S, and when they do. Kafka's clients would wait for them
    in silence for ever."""

    def __init__(self) -> None:
        self.topics: frozenset[str] = frozenset()
        self.seen = False
        self._logged = float("-inf")

    def see(self, absent: frozenset[str]) -> None:
        now = time.monotonic()
        if absent and (absent - self.topics or now - self._logged >= REPEAT_S):
            self._logged = now
            log.warning("topics do not exist, nothing is read from them", topics=sorted(absent), key="topics.raw")
        elif self.topics and not absent:
            log.info("all topics exist now", topics=sorted(self.topics))
        self.topics, self.seen = absent, True


async def wait_for_kafka(kafka: Kafka) -> None:
    """Return when a broker responds. Raises only what waiting cannot fix: rejected credentials or certificates."""
    outage = Outage(kafka)
    while True:
        try:
            await _reach(kafka)
        except (OSError, KafkaError, TimeoutError) as error:
            if isinstance(error, ssl.SSLCertVerificationError) or (
                isinstance(error, KafkaError) and not error.retriable
            ):
                raise
            outage.begins_or_lasts(error)
            await asyncio.sleep(RETRY_S)
        else:
            outage.ends()
            return


async def _reach(kafka: Kafka) -> None:
    """Raises the error of the last address if none responds; aiokafka's own start does not report it."""
    hosts = collect_hosts(kafka.bootstrap)
    for number, (host, port, _) in enumerate(hosts):
        try:
            async with asyncio.timeout(ANSWER_S):
                connection = await create_conn(host, port, **kafka.client())
        except (OSError, KafkaError, TimeoutError):
            if number == len(hosts) - 1:
                raise
        else:
            connection.close()
            return


class Liveness:
    """Checks Kafka every LOOK_S.

    wanted : returns the topics and partitions to check now.
    check : called with each snapshot; may raise.
    """

    def __init__(
        self,
        config: Config,
        wanted: Callable[[], tuple[Sequence[str], Sequence[TP]]],
        check: Callable[[TopicSnapshot], None],
    ) -> None:
        self._config = config
        self._wanted = wanted
        self._check = check
        self._outage = Outage(config.kafka)
        self._absence = Absence()
        self._consumer: AIOKafkaConsumer | None = None

    @property
    def unavailable_s(self) -> float:
        """Seconds since Kafka last responded; 0 while it is reachable."""
        return self._outage.seconds

    def away_s(self) -> float:
        """Seconds in which Kafka did not respond, in all."""
        return self._outage.total_s

    @property
    def absent(self) -> frozenset[str]:
        """Topics that there were not when Kafka was last asked."""
        return self._absence.topics

    async def until_there(self, names: Collection[str]) -> None:
        """Returns once these topics exist."""
        while names and not (self._absence.seen and self.absent.isdisjoint(names)):  # noqa: ASYNC110 set by `run`
            await asyncio.sleep(LOOK_S / 10)

    async def run(self) -> None:
        """Never returns. Raises what `check` raises."""
        try:
            while True:
                try:
                    snapshot = await self._look()
                except (OSError, KafkaError, TimeoutError) as error:
                    self._outage.begins_or_lasts(error)
                    await self._hang_up()
                else:
                    self._outage.ends()
                    self._absence.see(snapshot.absent)
                    self._check(snapshot)
                await asyncio.sleep(LOOK_S)
        finally:
            await self._hang_up()

    async def _look(self) -> TopicSnapshot:
        if self._consumer is None:
            await _reach(self._config.kafka)
        async with asyncio.timeout(ANSWER_S):
            if self._consumer is None:
                self._consumer = await _started(clients.bare_reader(self._config))
            names, partitions = self._wanted()
            ids = await topic_ids(self._consumer._client, names)
            absent = await absent_topics(self._consumer._client, names) if len(ids) < len(names) else frozenset()
            logs = [TopicPartition(*tp) for tp in partitions]
            ends = await self._consumer.end_offsets(logs) if logs else {}
            return TopicSnapshot(ids, {TP(*partition): end for partition, end in ends.items()}, absent)

    async def _hang_up(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with suppress(OSError, KafkaError, TimeoutError):
                await asyncio.wait_for(consumer.stop(), ANSWER_S)


async def _started(consumer: AIOKafkaConsumer) -> AIOKafkaConsumer:
    try:
        await consumer.start()
    except BaseException:
        await consumer.stop()
        raise
    return consumer
