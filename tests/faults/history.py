"""What happened to the raw topic, and what one uninterrupted fold says to it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace as with_fields
from typing import Any, NamedTuple

from detector import engine
from detector.events.finding import Event
from streams import replay
from streams.config.config import Config
from streams.history.sources import open_sources
from streams.sketch.identity import Identity, source_id
from streams.sketch.sketcher import RawRecord, Sketcher
from tests.pipeline import Calibrated

BATCH_RECORDS = 4_096
Position = tuple[int, int, int]
"""source, offset, index."""


class Life(NamedTuple):
    """A raw topic from its creation to its deletion, or to now. records : consumer records by partition and offset."""

    incarnation: str
    records: Sequence[Any]


def positions(config: Config, lives: Sequence[Life]) -> dict[Position, int]:
    """Where every row must stand, and the broker's time of its record, ms."""
    topic = config.topics.raw[0]
    return {
        (source_id(topic, record.partition, life.incarnation), record.offset, 0): record.timestamp
        for life in lives
        for record in life.records
    }


def fold(config: Config, fitted: Calibrated, lives: Sequence[Life]) -> dict[str, Event]:
    """What is said of clients, by id: the functions that workers call, in one process, without a broker."""
    identity = Identity(fitted.secrets.pseudonym_key, fitted.secrets.key_id, fitted.secrets.projection_seed)
    sketcher = Sketcher(fitted.artefacts, identity, config)
    settings = engine.EngineSettings(config, fitted.artefacts)
    count = config.topics.partitions
    states = [engine.open_partition(settings, number) for number in range(count)]
    written = [0] * count
    events = []
    for life in lives:
        for partition, records in _batches(life):
            for frame in sketcher.frames(config.topics.raw[0], partition, life.incarnation, records, count).frames:
                events += engine.step(states[frame.partition], with_fields(frame, offset=written[frame.partition]))
                written[frame.partition] += 1
    return {event.id: event for event in events}


def fold_models(config: Config, fitted: Calibrated) -> dict[str, Event]:
    """What `link` should have said to `requests` as it stands there."""
    sources = open_sources([f"kafka://{config.kafka.bootstrap}/{config.topics.requests}"], config)
    events = replay.replay(replay.Plan(sources, config, fitted.artefacts, fitted.secrets)).events
    return {event.id: event for event in events if not event.client_key}


def _batches(life: Life) -> Iterator[tuple[int, list[RawRecord]]]:
    for partition in sorted({record.partition for record in life.records}):
        own = [record for record in life.records if record.partition == partition]
        for start in range(0, len(own), BATCH_RECORDS):
            chosen = own[start : start + BATCH_RECORDS]
            yield (
                partition,
                [RawRecord(r.offset, r.value, r.key, r.headers, r.timestamp, r.timestamp_type) for r in chosen],
            )
