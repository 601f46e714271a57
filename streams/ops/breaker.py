"""What the breakers are at, read from the state that the judge of partition 0 writes; and a person's reset."""

import time
from collections.abc import Iterator

import msgspec
from aiokafka import AIOKafkaProducer

from detector import engine
from detector.breaker.alert import times
from detector.breaker.fuse import Fuse
from detector.events.encode import moment
from detector.events.finding import LEVELS
from detector.frame import ResetFrame
from detector.policy import HOUR_MS
from probewatch_door.record import Time
from streams.config.config import Config
from streams.kafka.broker import probe
from streams.metrics import Metrics
from streams.wire.frames import KIND_HEADER, encode_control
from streams.worker.state_topic import read_state


class BreakerCount(msgspec.Struct, frozen=True):
    """One level of a model, for clients with a past (16 rows on earlier days) or without one.

    open : decisions fall back to shadow, but for those on the clients with the most evidence. since : of the first
    decision that opened it, null while closed. decided : clients decided on within the last hour of the log, at this
    level or above. enforced : how many of them are held back. limit : how many may be. promised : how many the
    certificate allows a day, among so many `clients`.
    """

    model: str
    rung: str
    past: bool
    open: bool
    since: Time | None
    decided: int
    enforced: int
    limit: int
    promised: float
    clients: int
    space: str


async def counts(config: Config) -> list[BreakerCount]:
    """Every count that has begun. As old as the last block written: a minute at most, see state.round_s.

    Raises engine.BlockError, worker.stage.StageError, KafkaError.
    """
    stored = await read_state(config, await probe(config.kafka), Metrics(), [0])
    value = stored[0].blocks.get(0)
    fuses = {} if value is None else engine.body_of(value).breaker.fuses
    return [count for space, fuse in sorted(fuses.items()) for count in _counts(space, fuse)]


def _counts(space: str, fuse: Fuse) -> Iterator[BreakerCount]:
    floors, last_ms = fuse.floors, fuse.clock_ms
    recent = [one for one in fuse.decided.values() if one.decided_ms > last_ms - HOUR_MS]
    for level, known, limit, promised, clients in fuse.limits:
        ranks = [one.rank for one in recent if one.level >= level and one.known == known]
        floor = floors.get((level, known))
        yield BreakerCount(
            model=space.rpartition("@")[0],
            rung=LEVELS[level],
            past=known,
            open=floor is not None,
            since=None if fuse.opened is None or floor is None else moment(fuse.opened.since_ms),
            decided=len(ranks),
            enforced=len(ranks) if floor is None else sum(rank >= floor for rank in ranks),
            limit=limit,
            promised=promised,
            clients=clients,
            space=space,
        )


def explained(model: str, found: list[BreakerCount]) -> Iterator[str]:
    """Sentences for people."""
    mine = [one for one in found if one.model == model]
    opened = [one for one in mine if one.open]
    if not opened:
        yield f"closed: all decisions about model {model} are enforced"
    for one in opened:
        who = "clients with a past" if one.past else "clients without a past"
        yield (
            f"open at {one.rung} for {who} since {one.since:%Y-%m-%d %H:%M} UTC: {one.decided} were decided on within"
            f" an hour, {times(one.decided, one.promised)} the {one.promised:.2g} promised for a day among about"
            f" {one.clients:,}; at most {one.limit} are held back, those with the most evidence"
        )
    for one in (one for one in mine if not one.open):
        who = "with a past" if one.past else "without a past"
        yield f"{one.rung}, clients {who}: {one.decided} of {one.limit} decided on within an hour"
    if opened:
        yield (
            "the clients changed: recalibrate on them, or roll the release back; many accounts attack:"
            f" `probewatch breaker reset {model}` enforces again (docs/operations.md, The breaker opened)"
        )


async def reset(config: Config, model: str, reason: str) -> None:
    """Write the order into partition 0 of `requests`. model : "" for every one. Raises KafkaError."""
    value = encode_control(ResetFrame(-1, -1, model, reason, time.time_ns() // 1_000_000))
    producer = AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap, acks="all", **config.kafka.client())
    await producer.start()
    try:
        headers = [(KIND_HEADER, b"control")]
        await producer.send_and_wait(config.topics.requests, value, partition=0, headers=headers)
    finally:
        await producer.stop()
