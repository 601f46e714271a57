"""Kafka clients with our settings: what is written is acknowledged by all replicas, and once where the broker can."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from detector.config import Config
from streams import codecs
from streams.embedded import Features

FRAMING_BYTES = 64 * 2**10
"""Allowed for keys, headers and envelopes on top of the largest value."""


def producer(config: Config, features: Features, value_bytes_max: int) -> AIOKafkaProducer:
    """Not started. Callers await every send: a failure must stop them before the next record of that partition."""
    return AIOKafkaProducer(
        bootstrap_servers=config.kafka.bootstrap,
        acks="all",
        enable_idempotence=features.idempotence,
        max_request_size=value_bytes_max + FRAMING_BYTES,
        **config.kafka.client(),
    )


@contextlib.asynccontextmanager
async def reader(config: Config, **arguments: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of no group, started; it reads what it is assigned and commits nothing."""
    codecs.install()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=config.kafka.bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        **arguments,
        **config.kafka.client(),
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


def group_reading(config: Config, features: Features, **fetch: Any) -> dict[str, Any]:
    """Arguments of a group member's consumer. A group that has committed nothing begins at the oldest record."""
    codecs.install()
    session_ms = int(1000 * min(config.kafka.session_timeout_s, features.session_s_max))
    return {
        "bootstrap_servers": config.kafka.bootstrap,
        "auto_offset_reset": "earliest",
        "session_timeout_ms": session_ms,
        "heartbeat_interval_ms": session_ms // 5,
        "rebalance_timeout_ms": max(60_000, session_ms),
        **fetch,
        **config.kafka.client(),
    }
