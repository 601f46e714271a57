"""Feeds the log from a process of its own, at a fixed rate whatever the service does; notes when throttle events come.

The time of a record (`ts`) is when the feeder hands it to its producer; a throttle record's `issued_at` is the time of
the record that decided. Both clocks are this machine's, so arrival less `issued_at` is the whole way of a decision.
"""

import math
import multiprocessing
import multiprocessing.connection
import threading
import time
from datetime import datetime
from typing import NamedTuple

import confluent_kafka
import msgspec

from bench.performance.traffic import Traffic

TICK_S = 0.005
LINGER_MS = 5
"""As a gateway's producer would gather records."""

FLUSH_S = 60


class Order(NamedTuple):
    """What to feed. rate : records a second, inf for as fast as possible."""

    bootstrap: str
    topic: str
    partitions: int
    records: int
    rate: float
    clients: int
    seed: int


class Fed(NamedTuple):
    """How it went. begun, ended : s since 1970. cpu_s : of the feeder."""

    records: int
    failed: int
    begun: float
    ended: float
    cpu_s: float

    @property
    def rate(self) -> float:
        return self.records / (self.ended - self.begun)


class Feeding:
    """A feeder at work; `result` waits for its end."""

    def __init__(self, order: Order) -> None:
        context = multiprocessing.get_context("spawn")
        self._theirs, self._ours = context.Pipe(duplex=False)
        self._process = context.Process(target=_feed, args=(order, self._ours), daemon=True)
        self._process.start()
        self._ours.close()

    @property
    def ended(self) -> bool:
        return self._theirs.poll()

    def result(self) -> Fed:
        """Raises EOFError if the feeder died, RuntimeError if the broker refused records."""
        fed: Fed = self._theirs.recv()
        self._process.join()
        if fed.failed:
            raise RuntimeError(f"the broker refused {fed.failed} of {fed.records} records")
        return fed


def _feed(order: Order, answer: multiprocessing.connection.Connection) -> None:
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": order.bootstrap, "acks": "all", "linger.ms": LINGER_MS,
            "queue.buffering.max.messages": 500_000, "queue.buffering.max.kbytes": 400_000,
        }
    )  # fmt: skip
    traffic = Traffic(order.clients, order.seed)
    failed = 0

    def delivered(error: object, _: object) -> None:
        nonlocal failed
        failed += error is not None

    begun, cpu_begun, sent = time.time(), time.process_time(), 0
    while sent < order.records:
        due = order.records if math.isinf(order.rate) else min(order.records, int((time.time() - begun) * order.rate))
        while sent < due:
            owner, value = traffic.next(time.time())
            try:
                producer.produce(order.topic, value, partition=owner % order.partitions, on_delivery=delivered)
            except BufferError:
                producer.poll(0.1)
                producer.produce(order.topic, value, partition=owner % order.partitions, on_delivery=delivered)
            sent += 1
            if sent % 1_000 == 0:
                producer.poll(0)
        if sent < order.records:
            producer.poll(TICK_S)
    ended = time.time()
    failed += producer.flush(FLUSH_S)
    answer.send(Fed(sent, failed, begun, ended, time.process_time() - cpu_begun))


class Decision(NamedTuple):
    """A throttle event. issued, arrived : s since 1970."""

    id: str
    issued: float
    arrived: float


class _Throttle(msgspec.Struct):
    decision_id: str
    issued_at: datetime


class Watcher(threading.Thread):
    """Reads the throttle topic as a door would, from its beginning; `decisions` grows."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        super().__init__(name="watcher", daemon=True)
        self.decisions: list[Decision] = []
        self._consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "unused",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 500,
            }
        )
        places = [confluent_kafka.TopicPartition(topic, number, 0) for number in range(partitions)]
        self._consumer.assign(places)
        self._ended = threading.Event()

    def run(self) -> None:
        decode = msgspec.json.Decoder(_Throttle).decode
        while not self._ended.is_set():
            message = self._consumer.poll(0.1)  # `consume` would wait for more of them
            arrived = time.time()
            if message is not None and message.error() is None:
                event = decode(message.value() or b"")
                self.decisions.append(Decision(event.decision_id, event.issued_at.timestamp(), arrived))
        self._consumer.close()

    def stop(self) -> None:
        self._ended.set()
        self.join()
