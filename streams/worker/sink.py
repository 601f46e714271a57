"""Writes events to their topics, acknowledged by the broker."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer

from detector.events.finding import Event
from detector.frame import BreakerFrame, JudgeFrame, LinkFrame
from streams.config.topics import Topics
from streams.metrics import Metrics
from streams.wire.frames import KIND_HEADER, encode_control

ID_HEADER = "probewatch-id"
"""After a crash an event may be written twice, with the same id and bytes: deduplicate by this before counting."""


class Sink:
    """Throttle records go to their log and to the compacted topic that doors read; alerts and drift to theirs; what
    takes effect at its offset to `requests`."""

    def __init__(self, producer: AIOKafkaProducer, topics: Topics, metrics: Metrics) -> None:
        self._producer = producer
        self._requests = topics.requests, topics.partitions
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

    async def write(self, frame: JudgeFrame | LinkFrame) -> None:
        """Into `requests`: a decision into partition 0, everything else into every partition, where every reader and
        every replay meets it. Returns when the broker has it."""
        value, headers = encode_control(frame), [(KIND_HEADER, b"control")]
        topic, count = self._requests
        places = range(count) if isinstance(frame, LinkFrame | BreakerFrame) else (0,)
        sent = [await self._producer.send(topic, value, partition=n, headers=headers) for n in places]
        await asyncio.gather(*sent)

    async def send_all(self, events: Sequence[Event], frames: Sequence[JudgeFrame]) -> None:
        """Returns when the broker has all of them; frames are written in their order."""
        await asyncio.gather(self.send(events), self._write_each(frames))

    async def _write_each(self, frames: Sequence[JudgeFrame]) -> None:
        for frame in frames:
            await self.write(frame)
