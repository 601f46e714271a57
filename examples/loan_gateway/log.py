"""The gateway's request log on a Kafka topic. A gateway that waits for its log is down when the log is."""

import asyncio
import contextlib
import logging
from collections import deque
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

WAITING_MAX = 10_000
"""Records that wait for Kafka; one more drops the oldest."""

RETRY_S = 1.0
STOP_S = 5.0

logger = logging.getLogger("loan_gateway")


class KafkaLog:
    """Keyed by client, so that one client's records keep their order.

    connected : whether a broker was reached, last that was tried.
    waiting : records not handed to Kafka yet. dropped : those given up for lack of room, or at the end.
    failures : those that Kafka did not take.

    Example:

        async with KafkaLog("127.0.0.1:9092", "gateway-logs") as log:
            log.write("acct-1", b"{}")
    """

    def __init__(self, bootstrap: str, topic: str, waiting_max: int = WAITING_MAX) -> None:
        self.connected = False
        self.dropped = 0
        self.failures = 0
        self._bootstrap = bootstrap
        self._topic = topic
        self._waiting_max = waiting_max
        self._waiting: deque[tuple[bytes, bytes]] = deque()
        self._written, self._empty = asyncio.Event(), asyncio.Event()
        self._sending: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def write(self, client_id: str, record: bytes) -> None:
        """Returns at once, whatever Kafka does."""
        if len(self._waiting) == self._waiting_max:
            self._waiting.popleft()
            self._drop(1)
        self._waiting.append((client_id.encode(), record))
        self._empty.clear()
        self._written.set()

    async def __aenter__(self) -> Self:
        """Does not wait for a broker."""
        self._sending = asyncio.create_task(self._send_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits STOP_S for what is left."""
        assert self._sending is not None
        if self.waiting and self.connected:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), STOP_S)
        self._sending.cancel()
        await asyncio.wait([self._sending], timeout=STOP_S)
        self._drop(self.waiting)

    async def _send_all(self) -> None:
        while True:
            producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all", linger_ms=5)
            try:
                await producer.start()
                while True:
                    await self._send_next(producer)
            except (KafkaError, OSError) as error:
                self.connected = False
                logger.warning("the log waits for Kafka: %s", type(error).__name__)
                await asyncio.sleep(RETRY_S)
            finally:
                await producer.stop()

    async def _send_next(self, producer: AIOKafkaProducer) -> None:
        """The oldest record leaves the queue when the producer has taken it; meanwhile it may be dropped."""
        self.connected = True
        while not self._waiting:
            self._empty.set()
            self._written.clear()
            await self._written.wait()
        oldest = self._waiting[0]
        sent = await producer.send(self._topic, oldest[1], key=oldest[0])
        if self._waiting and self._waiting[0] is oldest:
            self._waiting.popleft()
        sent.add_done_callback(self._note)

    def _drop(self, records: int) -> None:
        if records and not self.dropped:
            logger.error("log records are dropped: %s wait for Kafka already", self._waiting_max)
        self.dropped += records

    def _note(self, sent: "asyncio.Future[object]") -> None:
        if not sent.cancelled() and sent.exception() is not None:
            self.failures += 1
            logger.error("a log record was lost: %s", type(sent.exception()).__name__)
