"""Kafka clients with our settings: what is written is acknowledged by all replicas, and once where the broker can."""

import asyncio
import contextlib
import functools
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, errors
from aiokafka.producer.message_accumulator import BatchBuilder

from models.errors import WorldError
from streams.config.config import Config
from streams.kafka import bounded_fetch
from streams.kafka.broker import Features

FRAMING_BYTES = 64 * 2**10
"""Allowed for keys, headers and envelopes on top of the largest value."""


DELIVERY_S = 120.0
"""For as long a message may lack its acknowledgement while Kafka answers. The library itself would try for ever."""

_REMEDIES = (
    (
        (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError),
        "raise the topic's max.message.bytes (`probewatch topics check` says to what)",
    ),
    (
        (errors.TopicAuthorizationFailedError, errors.ClusterAuthorizationFailedError),
        "allow the service's user to write there (`probewatch topics acls` prints the rights)",
    ),
    (
        (errors.UnknownTopicOrPartitionError,),
        "there is no such topic or partition (`probewatch topics create`)",
    ),
    ((errors.KafkaStorageError,), "a disk of the broker is full or broken"),
    (
        (errors.NotEnoughReplicasError, errors.NotEnoughReplicasAfterAppendError),
        "fewer replicas are in step than min.insync.replicas",
    ),
)


class SendError(WorldError, RuntimeError):
    """The broker refused a message. Names the message, the reason and the remedy, never its content."""

    def __init__(self, topic: str, size: int, cause: BaseException) -> None:
        found = next((text for kinds, text in _REMEDIES if isinstance(cause, kinds)), str(cause))
        super().__init__(f"{topic}: a message of {size} bytes was not taken: {type(cause).__name__}: {found}")


def never_away() -> float:
    return 0.0


class _Patience:
    """DELIVERY_S from now on, but for the time in which Kafka is away."""

    def __init__(self, away_s: Callable[[], float]) -> None:
        self._away_s = away_s
        self._begin = time.monotonic() - away_s()

    @property
    def left_s(self) -> float:
        return DELIVERY_S - (time.monotonic() - self._away_s() - self._begin)


class Producer(AIOKafkaProducer):  # type: ignore[misc]
    """Raises SendError for what is refused, and for what is not acknowledged in DELIVERY_S in which Kafka was there.
    The caller must not send to that partition again.

    away_s : for how long Kafka has been away so far, all its absences together, s; never falls.
    """

    def __init__(self, away_s: Callable[[], float] = never_away, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._away_s = away_s
        # The library gives up a message that finds no leader for 40 s, as during an orderly stop. But it is numbered:
        # what is sent behind the gap would be refused. Only DELIVERY_S gives up, and the whole producer with it.
        self._message_accumulator._batch_ttl = math.inf
        self._gave_up = False

    async def stop(self) -> None:
        """Waits for what is in flight, unless some of it was given up: nobody knows whether that ever arrives."""
        if self._gave_up:
            self._sender.sender_task.cancel()
        await super().stop()

    async def send(self, topic: str, value: bytes | None = None, *more: Any, **named: Any) -> "asyncio.Future[Any]":
        """A future of the acknowledgement."""
        size = len(value or b"")
        send = functools.partial(super().send, topic, value, *more, **named)
        taken = await self._taken(topic, size, send)
        return asyncio.ensure_future(self._told(topic, size, taken))

    async def send_in_order(
        self, topic: str, values: Iterable[bytes], partition: int, headers: Sequence[tuple[str, bytes]]
    ) -> None:
        """Returns when the broker has all of them. They travel as one batch, or as several one behind the other: behind
        one that fails nothing is sent. Raises SendError."""
        batch, size = self.create_batch(), 0
        for value in values:
            message = {"key": None, "value": value, "timestamp": None, "headers": headers}
            if batch.append(**message) is None:
                await self._send_whole(batch, size, topic, partition)
                batch, size = self.create_batch(), 0
                batch.append(**message)
            size += len(value)
        if size:
            await self._send_whole(batch, size, topic, partition)

    async def _send_whole(self, batch: BatchBuilder, size: int, topic: str, partition: int) -> None:
        send = functools.partial(self.send_batch, batch, topic, partition=partition)
        taken = await self._taken(topic, size, send)
        await self._told(topic, size, taken)

    async def _taken(
        self, topic: str, size: int, send: Callable[[], Coroutine[Any, Any, "asyncio.Future[Any]"]]
    ) -> "asyncio.Future[Any]":
        """The library stops waiting for room in its queue after 40 s; it has taken nothing then, and is asked again."""
        patience = _Patience(self._away_s)
        while True:
            try:
                return await send()
            except errors.KafkaError as error:
                if not isinstance(error, errors.KafkaTimeoutError) or patience.left_s <= 0:
                    raise SendError(topic, size, error) from error

    async def _told(self, topic: str, size: int, sent: "asyncio.Future[Any]") -> Any:
        patience = _Patience(self._away_s)
        while (left_s := patience.left_s) > 0:
            if (await asyncio.wait({sent}, timeout=left_s))[0]:
                try:
                    return sent.result()
                except errors.KafkaError as error:
                    raise SendError(topic, size, error) from error
        late = errors.KafkaTimeoutError(
            f"no acknowledgement for {DELIVERY_S:.0f} s: too few replicas in step, a full disk, or Kafka is away"
        )
        self._gave_up = True
        raise SendError(topic, size, late)


TURNS = 8


async def yield_to_io() -> None:
    """Some turns of the event loop, in which a producer writes to its sockets what was sent: computing holds it up."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


BATCH_BYTES = 16 * 2**10
"""The library's own bound for what travels together."""


def producer(
    config: Config,
    features: Features,
    value_bytes_max: int,
    batch_bytes: int = BATCH_BYTES,
    away_s: Callable[[], float] = never_away,
) -> Producer:
    """Not started. Callers await every send: a failure must stop them before the next record of that partition.

    batch_bytes : most that is sent to a partition at one time, but for a single larger message. away_s : of `Producer`.
    """
    return Producer(
        away_s,
        max_batch_size=batch_bytes,
        bootstrap_servers=config.kafka.bootstrap,
        acks="all",
        enable_idempotence=features.idempotence,
        max_request_size=value_bytes_max + FRAMING_BYTES,
        **config.kafka.client(),
    )


METADATA_MS = 30_000
"""How old what a client knows of topics may be: within a minute new raw partitions are known, shared out and read."""

COMMITTED: dict[str, Any] = {"isolation_level": "read_committed"}
"""Of transactions only what was committed is read. An end of a log is then the last stable offset: a transaction that
hangs holds a reader up, and is no reason to call it stuck."""


def bare_reader(config: Config, **arguments: Any) -> AIOKafkaConsumer:
    """A consumer of no group, not started; it reads what it is assigned and commits nothing."""
    bounded_fetch.install(config.input.max_batch_bytes)
    return AIOKafkaConsumer(
        bootstrap_servers=config.kafka.bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        **COMMITTED | arguments,
        **config.kafka.client(),
    )


@contextlib.asynccontextmanager
async def reader(config: Config, **arguments: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """The same, started, and stopped at the end."""
    consumer = bare_reader(config, **arguments)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


NEVER_MS = 10 * 365 * 86_400_000
"""aiokafka's member that has asked for no records for five minutes leaves its group, and never joins again. One that
stands by asks for none. Who has partitions and does not ask is noticed by `StageRunner.overdue`."""


def group_reading(config: Config, features: Features, **fetch: Any) -> dict[str, Any]:
    """Arguments of a group member's consumer. A group that has committed nothing begins at the oldest record."""
    bounded_fetch.install(config.input.max_batch_bytes)
    session_ms = int(1000 * min(config.kafka.session_timeout_s, features.session_s_max))
    return {
        "bootstrap_servers": config.kafka.bootstrap,
        "auto_offset_reset": "earliest",
        "session_timeout_ms": session_ms,
        "heartbeat_interval_ms": session_ms // 5,
        "rebalance_timeout_ms": max(60_000, session_ms),
        "max_poll_interval_ms": NEVER_MS,
        "metadata_max_age_ms": METADATA_MS,
        **COMMITTED,
        **fetch,
        **config.kafka.client(),
    }
