"""Orders from people: control frames into every partition of `requests`, where a replay meets them again."""

import asyncio

from aiokafka import AIOKafkaProducer

from detector.config import PSEUDONYM, Config
from detector.frame import ControlFrame
from streams.frames import encode_control
from streams.identity import Identity, client_of, pseudonym
from streams.secrets import Secrets


class ControlError(ValueError):
    """An order cannot be given. Says why."""


def pseudonym_of(client: str, secrets: Secrets) -> str:
    """What is published of a client id; a pseudonym stays what it is."""
    if PSEUDONYM.fullmatch(client):
        return client
    identity = Identity(secrets.pseudonym_key, secrets.key_id, secrets.projection_seed)
    return pseudonym(secrets.key_id, *identity.client(client))


def send(config: Config, secrets: Secrets, action: str, client: str, model: str, until_ms: int, reason: str) -> int:
    """Write one order into every partition; the number of partitions. Raises ControlError, KafkaError.

    An order that failed half-way may be given again: it says what is to hold, not what is to change.
    """
    name = pseudonym_of(client, secrets)
    return asyncio.run(_send(config, ControlFrame(-1, -1, action, client_of(name), name, model, until_ms, reason)))


async def _send(config: Config, order: ControlFrame) -> int:
    topic = config.topics.requests
    producer = AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap, acks="all", **config.kafka.client())
    await producer.start()
    try:
        partitions = await producer.partitions_for(topic)
        if not partitions:
            raise ControlError(f"there is no topic {topic}; `probewatch topics create` makes it")
        value, headers = encode_control(order), [("probewatch-kind", b"control")]
        for partition in sorted(partitions):
            await producer.send_and_wait(topic, value, partition=partition, headers=headers)
        return len(partitions)
    finally:
        await producer.stop()
