"""Orders by people, written as control frames into the partitions of `requests`, so that replays apply them too."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from aiokafka import AIOKafkaProducer

from detector.frame import ControlFrame
from models.errors import UserError
from models.pseudonym import client_of
from streams.config.config import Config
from streams.secrets.load import Secrets
from streams.sketch.identity import pseudonyms_of
from streams.wire.frames import KIND_HEADER, encode_control, partition_of

BLOCK_MAX = timedelta(days=90)
"""`throttle-state` keeps a record this long unless it is written again."""


class ControlError(UserError, ValueError):
    """An order cannot be sent. Says why."""


def send(
    config: Config, secrets: Secrets | None, action: str, client: str, model: str, until_ms: int, reason: str
) -> int:
    """Write one order, about every name of the client, into the partitions it belongs to; their number.

    An order that failed half-way may be given again: it says what is to hold, not what is to change. Raises
    ControlError, KafkaError.
    """
    names = pseudonyms_of(client, secrets)
    given_ms = time.time_ns() // 1_000_000
    about = [(client_of(name), name, model, until_ms, reason, given_ms) for name in names]
    orders = [ControlFrame(-1, -1, action, *one) for one in about]
    return asyncio.run(give(config, orders))


async def give(config: Config, orders: Sequence[ControlFrame]) -> int:
    """Write orders. Returns the number of partitions each was written to. Raises ControlError, KafkaError.

    A block is written into the client's own partition only: it makes a record wherever it is met.
    """
    topic = config.topics.requests
    producer = AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap, acks="all", **config.kafka.client())
    await producer.start()
    try:
        partitions = await producer.partitions_for(topic)
        if not partitions:
            raise ControlError(f"there is no topic {topic}; `probewatch topics create` makes it")
        headers = [(KIND_HEADER, b"control")]
        for order in orders:
            value = encode_control(order)
            for partition in _places(order, sorted(partitions)):
                await producer.send_and_wait(topic, value, partition=partition, headers=headers)
        return max(len(_places(order, sorted(partitions))) for order in orders)
    finally:
        await producer.stop()


def _places(order: ControlFrame, partitions: Sequence[int]) -> Sequence[int]:
    if order.action != "block":
        return partitions
    return [partitions[partition_of(order.client, len(partitions))]]


def check_block(until: datetime) -> None:
    """Raises ControlError for an end that has passed, or that doors would forget before it has come."""
    ahead = until - datetime.now(UTC)
    if not timedelta(0) < ahead <= BLOCK_MAX:
        raise ControlError(f"--until: expected a time within {BLOCK_MAX.days} days from now; got {until.isoformat()}")
