"""Writer of the dead-letter topic: original key and value, headers after KIP-1034."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer

from streams.config.config import Config
from streams.kafka.topics import dead_letter_bytes
from streams.metrics import Metrics
from streams.wire.rejects import DeadLetter

OMITTED_HEADER = "probewatch-omitted-bytes"
"""Length of a value that is too long for the dead-letter topic; the raw topic still has it at its offset."""


class DeadLetterTopic:
    def __init__(self, producer: AIOKafkaProducer, config: Config, metrics: Metrics) -> None:
        self._producer = producer
        self._topic = config.topics.dlq
        self._most = dead_letter_bytes(config)
        self._metrics = metrics

    async def send(self, letters: Sequence[DeadLetter]) -> None:
        """Returns when the broker has acknowledged all letters. Raises aiokafka's KafkaError.

        After a crash records are read again and their letters written again, with the same `__streams.errors.offset`.
        """
        await asyncio.gather(*[await self._send(letter) for letter in letters])
        for letter in letters:
            for reject in letter.rejects:
                self._metrics.rejects.labels(reject.reason).inc(reject.count)

    async def _send(self, letter: DeadLetter) -> Awaitable[Any]:
        headers = sum(len(name) + len(value or b"") for name, value in letter.headers)
        size = len(letter.value or b"") + len(letter.key or b"") + headers
        key, value, kept = letter.key, letter.value, letter.headers
        if size > self._most - 1024:
            # Too long even for this topic, and a letter that cannot be written would stop the worker for ever.
            key, value = None, b""
            kept = [(name, text) for name, text in kept if name.startswith(("__streams.", "probewatch-"))]
            kept.append((OMITTED_HEADER, str(len(letter.value or b"")).encode()))
        acknowledged: Awaitable[Any] = await self._producer.send(self._topic, value, key=key, headers=kept)
        return acknowledged
