"""What gateways are asked to do, kept in memory: a door's view of the `throttle-state` topic.

A view that is not known to be up to date asks for nothing (fail open): a door must not become an outage.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import msgspec
from aiokafka import AIOKafkaConsumer

from detector.events.encode import Throttle

logger = logging.getLogger(__name__)

STALE_AFTER_S = 30.0
RETRY_S = 1.0
POLL_MS = 500
PENDING_MAX = 8
PURGE_EVERY = 10_000
FORGET_AFTER = timedelta(days=1)
"""An expired decision is remembered for a while, so that an older one sent again late does not come back to life."""

AHEAD_MAX = timedelta(minutes=5)
"""Clocks of gateways and brokers differ by less."""

STRICTNESS = ("lift", "observe", "delay", "cap", "challenge", "block")


class Decisions:
    """Decisions by key of the topic; of one key, the highest revision that has taken effect counts.

    clock : seconds since 1970; expiry is wall-clock time. stale_after_s : how long after the last word from the
    topic decisions are still acted on. model "" in a record stands for every model.
    """

    def __init__(self, clock: Callable[[], float] = time.time, stale_after_s: float = STALE_AFTER_S) -> None:
        self.faults = 0
        self._clock = clock
        self._stale_after_s = stale_after_s
        self._heard_s = float("-inf")
        self._held: dict[bytes, list[Throttle]] = {}
        self._keys: dict[str, dict[bytes, None]] = {}
        self._applied = 0
        self._decoder = msgspec.json.Decoder(Throttle)

    @property
    def fresh(self) -> bool:
        """The topic has been read to its end, and its broker was heard of lately."""
        return self._clock() - self._heard_s <= self._stale_after_s

    def heard(self, at_s: float | None = None) -> None:
        """The view was complete at this time (default: now)."""
        self._heard_s = self._clock() if at_s is None else at_s

    def strictest(self, clients: Iterable[str], model: str | None) -> Throttle | None:
        """The strictest decision in force on any of the names of one client. model None : about any model.

        None if there is none, if all are in shadow, or if the view is stale.
        """
        if not self.fresh:
            return None
        now = self._now()
        keys = (key for client in clients for key in self._keys.get(client, ()))
        found = (_in_effect(self._held[key], now) for key in keys)
        asked = [record for record in found if record is not None and _asks(record, model, now)]
        return max(asked, key=_strictness, default=None)

    def apply(self, key: bytes | None, value: bytes | None, written_ms: int | None = None) -> None:
        """Take in one record of the topic, in any order and any number of times. A bad one is counted and left out.

        written_ms : when the topic got it. A client's own clock may be years ahead: what is decided then holds from
        when it was written, for as long as it says.
        """
        if value is None:
            self._forget(key or b"")
            return
        try:
            record = self._decoder.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.faults += 1
            logger.warning("a throttle record was left out: %s", type(error).__name__)  # its text may quote the record
            return
        if record.replay or record.scope != "client":
            return
        record = record if written_ms is None else _not_ahead(record, written_ms)
        self._hold(record.key.encode() if key is None else key, record)
        self._applied += 1
        if self._applied % PURGE_EVERY == 0:
            self._purge()

    def _hold(self, key: bytes, record: Throttle) -> None:
        held = self._held.get(key, [])
        if held and not _supersedes(record, held[-1]):
            return
        # The one in effect stays until its successor takes effect: a delayed decision must not open a gap.
        now = self._now()
        place = max((place for place, one in enumerate(held) if one.effective_at <= now), default=0)
        self._held[key] = [*held[place:][:PENDING_MAX], record]
        self._keys.setdefault(record.client, {})[key] = None

    def _purge(self) -> None:
        old = self._now() - FORGET_AFTER
        for key in [key for key, held in self._held.items() if held[-1].expires_at < old]:
            self._forget(key)

    def _forget(self, key: bytes) -> None:
        held = self._held.pop(key, None)
        if held:
            keys = self._keys[held[-1].client]
            del keys[key]
            if not keys:
                del self._keys[held[-1].client]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def _not_ahead(record: Throttle, written_ms: int) -> Throttle:
    ahead = record.issued_at - datetime.fromtimestamp(written_ms / 1000, UTC)
    if ahead <= AHEAD_MAX or written_ms <= 0:
        return record
    return msgspec.structs.replace(
        record, effective_at=record.effective_at - ahead, expires_at=record.expires_at - ahead
    )


def _in_effect(held: list[Throttle], now: datetime) -> Throttle | None:
    """The highest revision that has taken effect, expired or not: an expired one still replaces those before it."""
    return next((record for record in reversed(held) if record.effective_at <= now), None)


def _asks(record: Throttle, model: str | None, now: datetime) -> bool:
    about = model is None or record.model in ("", model)
    return about and record.mode == "enforce" and record.expires_at > now and record.action not in ("lift", "observe")


def _supersedes(record: Throttle, other: Throttle) -> bool:
    """Revisions count within one state of the judge. Other artefacts may mean a new state that counts from 1 again."""
    if record.artefact_hash != other.artefact_hash:
        return record.issued_at >= other.issued_at
    return record.revision > other.revision


def _strictness(record: Throttle) -> tuple[int, float, float, int]:
    limits = record.limits
    rate = float("inf") if limits.requests_per_minute is None else limits.requests_per_minute
    concurrency = float("inf") if limits.max_concurrency is None else limits.max_concurrency
    return STRICTNESS.index(record.action), -rate, -concurrency, limits.delay_ms or 0


class KafkaDecisions(Decisions):
    """Decisions that follow the topic: `async with KafkaDecisions("host:9092", topic) as decisions: …`.

    Belongs to no consumer group and commits nothing: every door reads the whole (compacted) topic. Starting does not
    wait for Kafka, and losing Kafka stops nothing but the decisions.
    security : further arguments of an aiokafka client, as `config.kafka.client()` gives them.
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
            except Exception as error:  # whatever it is, the gateway goes on and the view goes stale
                logger.warning("throttle decisions are not read, trying again: %s: %s", type(error).__name__, error)
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
    """All partitions are read up to the end that came with their last fetch."""
    partitions = consumer.assignment()
    for partition in partitions:
        end = consumer.highwater(partition)
        if end is None or await consumer.position(partition) < end:
            return False
    return bool(partitions)
