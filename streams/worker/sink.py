"""Events to their topics; returns when the broker has all of them."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer

from detector.events.finding import Event
from streams.config.topics import Topics
from streams.metrics import Metrics

ID_HEADER = "probewatch-id"
"""The same event may be written twice after a crash: same id, same bytes. Readers that count must look at this."""


class Sink:
    """Throttle records go to the log and to the state that doors read; alerts and drift to theirs."""

    def __init__(self, producer: AIOKafkaProducer, topics: Topics, metrics: Metrics) -> None:
        self._producer = producer
        self._topics = {
            "throttle": (topics.throttle, topics.throttle_state),
            "alert": (topics.alerts,),
            "drift": (topics.drift,),
        }
        self._metrics = metrics

    async def send(self, events: Sequence[Event]) -> None:
        """Raises aiokafka's KafkaError on the first that fails; some of the others may then be written."""
        sent = []
        for event in events:
            headers = [*event.headers, (ID_HEADER, event.id.encode())]
            for topic in self._topics[event.kind]:
                sent.append(await self._producer.send(topic, event.value, key=event.key, headers=headers))
        await asyncio.gather(*sent)
        for kind, count in Counter(event.kind for event in events).items():
            self._metrics.events.labels(kind).inc(count)
