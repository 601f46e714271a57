"""Writes events to their topics, acknowledged by the broker."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer

from detector.events.finding import Event
from streams.config.topics import Topics
from streams.metrics import Metrics

ID_HEADER = "probewatch-id"
"""After a crash an event may be written twice, with the same id and bytes: deduplicate by this before counting."""


class Sink:
    """Throttle records go to their log and to the compacted topic that doors read; alerts and drift to theirs."""

    def __init__(self, producer: AIOKafkaProducer, topics: Topics, metrics: Metrics) -> None:
        self._producer = producer
        self._topics = {
            "throttle": (topics.throttle, topics.throttle_state),
            "alert": (topics.alerts,),
            "drift": (topics.drift,),
        }
        self._metrics = metrics

    async def send(self, events: Sequence[Event]) -> None:
        """Returns when the broker has all of them. Raises clients.SendError if one fails; others may be written."""
        sent = []
        for event in events:
            headers = [*event.headers, (ID_HEADER, event.id.encode())]
            for topic in self._topics[event.kind]:
                sent.append(await self._producer.send(topic, event.value, key=event.key, headers=headers))
        await asyncio.gather(*sent)
        for kind, count in Counter(event.kind for event in events).items():
            self._metrics.events.labels(kind).inc(count)
