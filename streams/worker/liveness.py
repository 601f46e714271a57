"""Is Kafka there, are its topics still the same, and is there more to read than what comes?

Asked on a connection of its own: a client that hangs cannot be asked about itself. While Kafka is away nothing is at
stake, so a worker waits, however long; only a message on its way is waited for no longer than `clients.DELIVERY_S`.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
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
from streams.kafka.topic_ids import topic_ids

LOOK_S = 2.0
ANSWER_S = 10.0
REPEAT_S = 30.0
RETRY_S = 1.0

log = structlog.get_logger("probewatch")


class Seen(NamedTuple):
    """ids : topic -> id. ends : partition -> at most the offset of the next record."""

    ids: Mapping[str, str]
    ends: Mapping[TP, int]


class Absence:
    """Says once that Kafka is away, again every REPEAT_S, and when it is back."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._since: float | None = None
        self._told = 0.0

    @property
    def seconds(self) -> float:
        return 0.0 if self._since is None else time.monotonic() - self._since

    def begins_or_lasts(self, error: BaseException) -> None:
        now = time.monotonic()
        if self._since is None:
            self._since, self._told = now, float("-inf")
        if now - self._told >= REPEAT_S:
            self._told = now
            why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            log.warning("Kafka does not answer", at=self._kafka.bootstrap, for_s=round(self.seconds), why=why)

    def ends(self) -> None:
        if self._since is not None:
            log.info("Kafka answers again", after_s=round(self.seconds))
            self._since = None


async def arrival(kafka: Kafka) -> None:
    """Returns when a broker answers. Raises only what waiting does not mend: refused credentials or certificates."""
    absence = Absence(kafka)
    while True:
        try:
            await _reach(kafka)
        except (OSError, KafkaError, TimeoutError) as error:
            if isinstance(error, ssl.SSLCertVerificationError) or (
                isinstance(error, KafkaError) and not error.retriable
            ):
                raise
            absence.begins_or_lasts(error)
            await asyncio.sleep(RETRY_S)
        else:
            absence.ends()
            return


async def _reach(kafka: Kafka) -> None:
    """Raises why the last of the addresses does not answer: aiokafka's own start keeps that to itself."""
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


class Contact:
    """Looks every LOOK_S. wanted : the topics and partitions to look at now. tell : gets what was seen; may raise."""

    def __init__(
        self,
        config: Config,
        wanted: Callable[[], tuple[Sequence[str], Sequence[TP]]],
        tell: Callable[[Seen], None],
    ) -> None:
        self._config = config
        self._wanted = wanted
        self._tell = tell
        self._absence = Absence(config.kafka)
        self._consumer: AIOKafkaConsumer | None = None

    @property
    def away_s(self) -> float:
        """For how long nobody has answered, s; 0 while somebody does."""
        return self._absence.seconds

    async def run(self) -> None:
        """For ever. Raises what `tell` raises."""
        try:
            while True:
                try:
                    seen = await self._look()
                except (OSError, KafkaError, TimeoutError) as error:
                    self._absence.begins_or_lasts(error)
                    await self._hang_up()
                else:
                    self._absence.ends()
                    self._tell(seen)
                await asyncio.sleep(LOOK_S)
        finally:
            await self._hang_up()

    async def _look(self) -> Seen:
        if self._consumer is None:
            await _reach(self._config.kafka)
        async with asyncio.timeout(ANSWER_S):
            if self._consumer is None:
                self._consumer = await _started(clients.bare_reader(self._config))
            names, partitions = self._wanted()
            ids = await topic_ids(self._consumer._client, names)
            places = [TopicPartition(*tp) for tp in partitions]
            ends = await self._consumer.end_offsets(places) if places else {}
            return Seen(ids, {TP(*place): end for place, end in ends.items()})

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
