"""Writes replayed events to a separate topic, marked as a replay."""

import asyncio

from detector.events.encode import as_replay
from detector.events.finding import Event
from streams.config.config import Config
from streams.history.base import SourceError
from streams.progress import Advance
from streams.replay.outcome import Outcome
from streams.wire.frames import KIND_HEADER
from streams.worker.sink import ID_HEADER

REPLAY_HEADER = "probewatch-replay"
COLD_HEADER = "probewatch-cold-start"
BATCH_EVENTS = 1_000


def refuse_live(config: Config, topic: str) -> None:
    """Raises SourceError if the topic is for live events."""
    names = config.topics
    for name in sorted(type(names).model_fields):
        value = getattr(names, name)
        if topic == value or (isinstance(value, tuple) and topic in value):
            raise SourceError(f"--publish {topic}: that is topics.{name}, for live events only; choose another topic")


def publish(config: Config, topic: str, outcome: Outcome, advance: Advance) -> int:
    """Write every event; returns their number. Raises SourceError for a live or missing topic, KafkaError."""
    refuse_live(config, topic)
    return asyncio.run(_publish(config, topic, outcome, advance))


async def _publish(config: Config, topic: str, outcome: Outcome, advance: Advance) -> int:
    from streams.kafka import clients, topics
    from streams.kafka.broker import probe

    if not (await topics.partition_counts(config, [topic])).get(topic):
        raise SourceError(f"--publish {topic}: no such topic; create it first, with any number of partitions")
    producer = clients.producer(config, await probe(config.kafka), topics.state_bytes(config))
    await producer.start()
    try:
        for start in range(0, len(outcome.events), BATCH_EVENTS):
            chosen = outcome.events[start : start + BATCH_EVENTS]
            sent = [
                await producer.send(topic, as_replay(event), key=event.key, headers=_headers(event, outcome))
                for event in chosen
            ]
            await asyncio.gather(*sent)
            advance(len(chosen))
    finally:
        await producer.stop()
    return len(outcome.events)


def _headers(event: Event, outcome: Outcome) -> list[tuple[str, bytes]]:
    own = [(REPLAY_HEADER, b"1"), (KIND_HEADER, event.kind.encode()), (ID_HEADER, event.id.encode())]
    cold = [(COLD_HEADER, b"1")] if event.id in outcome.cold else []
    return [*event.headers, *own, *cold]
