"""Orders from people: control frames into every partition of `requests`, where a replay meets them again."""

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer

from detector.config import PSEUDONYM, Config
from detector.frame import ControlFrame
from streams.frames import encode_control
from streams.identity import client_of, identities, pseudonym
from streams.secrets import Secrets


class ControlError(ValueError):
    """An order cannot be given. Says why."""


def pseudonym_of(client: str, secrets: Secrets) -> str:
    """What is published of a client id; a pseudonym stays what it is."""
    return pseudonyms_of(client, secrets)[0]


def pseudonyms_of(client: str, secrets: Secrets) -> tuple[str, ...]:
    """Every name of a client id: under today's key and, while keys rotate, under the one before."""
    if PSEUDONYM.fullmatch(client):
        return (client,)
    return tuple(pseudonym(identity.key_id, *identity.client(client)) for identity in identities(secrets))


def send(config: Config, secrets: Secrets, action: str, client: str, model: str, until_ms: int, reason: str) -> int:
    """Write one order, about every name of the client, into every partition; the number of partitions.

    An order that failed half-way may be given again: it says what is to hold, not what is to change. Raises
    ControlError, KafkaError.
    """
    names = pseudonyms_of(client, secrets)
    orders = [ControlFrame(-1, -1, action, client_of(name), name, model, until_ms, reason) for name in names]
    return asyncio.run(give(config, orders))


async def give(config: Config, orders: Sequence[ControlFrame]) -> int:
    """Write orders into every partition; the number of partitions. Raises ControlError, KafkaError."""
    topic = config.topics.requests
    producer = AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap, acks="all", **config.kafka.client())
    await producer.start()
    try:
        partitions = await producer.partitions_for(topic)
        if not partitions:
            raise ControlError(f"there is no topic {topic}; `probewatch topics create` makes it")
        headers = [("probewatch-kind", b"control")]
        for order in orders:
            value = encode_control(order)
            for partition in sorted(partitions):
                await producer.send_and_wait(topic, value, partition=partition, headers=headers)
        return len(partitions)
    finally:
        await producer.stop()
