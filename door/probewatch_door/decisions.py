"""A door's view of the `throttle-state` topic: the decisions in force, in memory.

A door fails open: while the view may be out of date, no decision is in force. A door must not become an outage.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import msgspec
from aiokafka import AIOKafkaConsumer

from probewatch_door.in_force import counts, extended, in_effect, in_force, is_enforced, strictness
from probewatch_door.record import Throttle

logger = logging.getLogger(__name__)

STALE_AFTER_S = 30.0
RETRY_S = 1.0
POLL_MS = 500
PENDING_MAX = 8
PURGE_EVERY = 10_000
FORGET_AFTER = timedelta(days=1)
"""Expired decisions are kept this long, so that an older record delivered late does not come into force again."""

AHEAD_MAX = timedelta(minutes=5)
"""Clocks of gateways and brokers are assumed to differ by less."""


class Decisions:
    """The decisions of one topic, whatever brings them; `KafkaDecisions` follows Kafka.

    clock : seconds since 1970. Decisions expire by the gateway's own clock.
    stale_after_s : seconds after the last `heard` until no decision is in force any more.
    faults : records that could not be decoded so far. They are logged and ignored; nothing is raised.

    Example:

        decisions = Decisions()
        decisions.apply(key, value, timestamp_ms)   # each message of the topic
        decisions.heard()                           # the topic has been read to its end
        decisions.strictest(["k1-…"], "loan")
    """

    def __init__(self, clock: Callable[[], float] = time.time, stale_after_s: float = STALE_AFTER_S) -> None:
        self.faults = 0
        self._clock = clock
        self._stale_after_s = stale_after_s
        self._heard_s = float("-inf")
        self._timelines: dict[bytes, Sequence[Throttle]] = {}
        self._keys: dict[str, dict[bytes, None]] = {}
        self._applied = 0
        self._decoder = msgspec.json.Decoder(Throttle)

    @property
    def fresh(self) -> bool:
        """Whether the topic has been read to its end and its broker has answered within `stale_after_s`."""
        return self._clock() - self._heard_s <= self._stale_after_s

    def now(self) -> datetime:
        """The time that decisions take effect and expire by."""
        return datetime.fromtimestamp(self._clock(), UTC)

    def heard(self, at_s: float | None = None) -> None:
        """The view was complete at this time (default: now)."""
        self._heard_s = self._clock() if at_s is None else at_s

    def strictest(self, clients: Iterable[str], model: str | None) -> Throttle | None:
        """The strictest enforced decision in force; None if there is none or the view is stale.

        clients : the names of one client: its pseudonym under each key in use.
        model : the model asked for; None for decisions about any model.
        """
        if not self.fresh:
            return None
        now = self.now()
        keys = (key for client in clients for key in self._keys.get(client, ()))
        records = (in_force(self._timelines[key], now) for key in keys)
        held = [record for record in records if record is not None and _concerns(record, model)]
        return max(held, key=strictness, default=None)

    def apply(self, key: bytes | None, value: bytes | None, written_ms: int | None = None) -> None:
        """Apply one message of the topic. A repeated or superseded record changes nothing.

        key : the message's key; only tombstones need it, records carry their own.
        value : the record's JSON; None (a tombstone) forgets the key.
        written_ms : the message's timestamp. Where `issued_at` is more than five minutes later, the client's clock is
            ahead: all times of the record are moved back by the difference.
        """
        if value is None:
            self._forget(key or b"")
            return
        try:
            record = self._decoder.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.faults += 1
            logger.warning("throttle record ignored: %s", type(error).__name__)  # its text may quote the record
            return
        if not counts(record):
            return
        record = record if written_ms is None else _not_ahead(record, written_ms)
        self._hold(record.key.encode(), record)
        self._applied += 1
        if self._applied % PURGE_EVERY == 0:
            self._purge()

    def _hold(self, key: bytes, record: Throttle) -> None:
        timeline = extended(self._timelines.get(key, ()), record)
        current = in_effect(timeline, self.now())
        pending = [each for each in timeline if current is None or each.effective_at >= current.effective_at]
        # The last record always stays: it decides whether later ones supersede it.
        self._timelines[key] = [*pending[:-1][:PENDING_MAX], pending[-1]]
        self._keys.setdefault(record.client, {})[key] = None

    def _purge(self) -> None:
        old = self.now() - FORGET_AFTER
        for key in [key for key, timeline in self._timelines.items() if timeline[-1].expires_at < old]:
            self._forget(key)

    def _forget(self, key: bytes) -> None:
        timeline = self._timelines.pop(key, None)
        if timeline:
            client = timeline[-1].client
            del self._keys[client][key]
            if not self._keys[client]:
                del self._keys[client]


def _not_ahead(record: Throttle, written_ms: int) -> Throttle:
    ahead = record.issued_at - datetime.fromtimestamp(written_ms / 1000, UTC)
    if ahead <= AHEAD_MAX or written_ms <= 0:
        return record
    return msgspec.structs.replace(
        record, effective_at=record.effective_at - ahead, expires_at=record.expires_at - ahead
    )


def _concerns(record: Throttle, model: str | None) -> bool:
    return is_enforced(record) and (model is None or record.model in ("", model))


class KafkaDecisions(Decisions):
    """Decisions read from Kafka. No consumer group, no commits: every door reads the whole compacted topic.

    bootstrap : brokers, "host:port" or several separated by commas.
    topic : `probewatch.throttle-state.v1`, or what `topics.throttle_state` of the service names.
    stale_after_s : seconds without an answer from the brokers until no decision is in force any more.
    security : further arguments of `aiokafka.AIOKafkaConsumer`: `security_protocol`, `ssl_context`, `sasl_…`.

    Starting does not wait for Kafka. Kafka errors are logged and retried for ever; nothing is raised.

    Example:

        async with KafkaDecisions("broker:9092", "probewatch.throttle-state.v1") as decisions:
            await decisions.wait_fresh(10)
    """

    def __init__(self, bootstrap: str, topic: str, *, stale_after_s: float = STALE_AFTER_S, **security: Any) -> None:
        super().__init__(stale_after_s=stale_after_s)
        self._topic = topic
        self._arguments = {"bootstrap_servers": bootstrap, **security}
        self._complete = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="probewatch-decisions")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def wait_fresh(self, timeout_s: float) -> bool:
        """Wait until the topic has been read to its end once; False if that takes longer."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._complete.wait(), timeout_s)
        return self.fresh

    async def _run(self) -> None:
        while True:
            consumer = AIOKafkaConsumer(
                self._topic, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest", **self._arguments
            )
            try:
                await consumer.start()
                await self._follow(consumer)
            except Exception as error:  # the gateway keeps serving, the view goes stale
                logger.warning("cannot read throttle decisions, retrying: %s: %s", type(error).__name__, error)
            finally:
                await consumer.stop()
            await asyncio.sleep(RETRY_S)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        complete = False
        while True:
            for records in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                for record in records:
                    self.apply(record.key, record.value, record.timestamp)
            partitions = consumer.assignment()
            complete = complete or await _at_end(consumer)
            answers_ms = [consumer.last_poll_timestamp(partition) for partition in partitions]
            if complete and answers_ms and None not in answers_ms:
                self.heard(min(answers_ms) / 1000)
                self._complete.set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


async def _at_end(consumer: AIOKafkaConsumer) -> bool:
    """Whether every partition has been read up to the end offset of its last fetch."""
    partitions = consumer.assignment()
    for partition in partitions:
        end = consumer.highwater(partition)
        if end is None or await consumer.position(partition) < end:
            return False
    return bool(partitions)
