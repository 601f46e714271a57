"""What `probewatch archive` does: messages of a topic into the folder, then a snapshot of the state.

Partitions come one after the other, so that one partition's rows are in memory, however many there are.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupAuthorizationFailedError

from detector import engine
from streams import files
from streams.config.config import Config
from streams.history.archive import layout
from streams.history.archive.writer import Writer
from streams.history.base import SourceError
from streams.history.kafka_source import KafkaSource, message_of
from streams.kafka import clients
from streams.kafka.broker import log_ends, probe
from streams.kafka.topic_ids import topic_ids
from streams.kafka.topics import TopicsError, partition_counts
from streams.metrics import Metrics
from streams.progress import Reporter
from streams.wire import settings_log
from streams.worker.state_topic import Stored, read_state


class Taken(msgspec.Struct, frozen=True):
    """What a run added to the archive. snapshots : partitions whose state was stored. gaps : ranges of missing
    messages, as partition, first offset and the offset after the last one."""

    messages: int
    rows: int
    snapshots: int
    gaps: list[tuple[int, int, int]]


class _Log(NamedTuple):
    """A topic as it is: partition -> first offset, partition -> end, and the id of its incarnation."""

    starts: Mapping[int, int]
    ends: Mapping[int, int]
    log_id: str


def take_topic(spec: str, config: Config, folder: Path, reporter: Reporter) -> Taken:
    """Archive a range of `requests`, or go on where the folder ends. Raises SourceError, ArchiveError, KafkaError."""
    source = KafkaSource(spec, config)
    if not source.holds_frames:
        raise SourceError(f"{spec}: only the topic of frames is archived ({config.topics.requests}, topics.requests)")
    log = asyncio.run(_log(source.config, source.topic))
    if source.partition is not None and source.partition not in log.starts:
        raise SourceError(f"{spec}: partition: expected 0 to {len(log.starts) - 1}; got {source.partition}")
    numbers = sorted(log.starts) if source.partition is None else [source.partition]
    with Writer(folder, source.topic, log.log_id) as writer:
        known = len(writer.manifest.gaps)
        for number in numbers:
            first = writer.begin(number, log.starts[number] if source.first is None else source.first)
            end = log.ends[number] if source.end is None else min(source.end, log.ends[number])
            _take_partition(source.part(number, first, end), writer, reporter)
        snapshots = asyncio.run(_snapshots(source.config, folder, numbers, log.log_id))
        return Taken(writer.messages, writer.rows, snapshots, writer.manifest.gaps[known:])


def _take_partition(source: KafkaSource, writer: Writer, reporter: Reporter) -> None:
    assert source.first is not None and source.end is not None
    if source.first < source.end:
        advance = reporter.task(f"partition {source.partition}", source.end - source.first)
        for messages in source.messages():
            for record in messages:
                writer.add(message_of(record))
            advance(len(messages))
        writer.finish(source.end)


async def _log(config: Config, topic: str) -> _Log:
    features = await probe(config.kafka)
    count = (await partition_counts(config, [topic])).get(topic, 0)
    if not count:
        raise SourceError(f"there is no topic {topic}")
    places = [TopicPartition(topic, number) for number in range(count)]
    async with clients.reader(config) as consumer:
        ids = await topic_ids(consumer._client, {topic})
        starts = await consumer.beginning_offsets(places)
        ends = await log_ends(consumer, places, features)
    return _Log(
        {place.partition: offset for place, offset in starts.items()},
        {place.partition: offset for place, offset in ends.items()},
        ids.get(topic, ""),
    )


async def _snapshots(config: Config, folder: Path, partitions: list[int], log_id: str) -> int:
    """Keep what the state topic holds of these partitions; of how many it could be kept.

    The group's offsets are read first: whatever a block without a record has met lies behind them.
    """
    topic = config.topics.judge_state
    try:
        known = await partition_counts(config, [topic])
        committed = await _committed(config, partitions) if known else {}
    except (TopicsError, GroupAuthorizationFailedError):  # an analyst need not see them
        return 0
    if not committed:
        return 0
    stored = await read_state(config, await probe(config.kafka), Metrics(), sorted(committed))
    day = datetime.now(UTC).date().isoformat()
    ours = {number: found for number, found in stored.items() if not found.logs - {"", log_id}}
    for number, found in ours.items():
        _write_snapshot(layout.snapshot_path(folder, day, number), number, found, committed[number])
    settings_log.keep(folder, [one for found in ours.values() for one in found.settings])
    return len(ours)


async def _committed(config: Config, partitions: list[int]) -> dict[int, int]:
    """Where the group of `judge` stands, as far as it has committed anything."""
    admin = AIOKafkaAdminClient(bootstrap_servers=config.kafka.bootstrap, **config.kafka.client())
    await admin.start()
    try:
        places = [TopicPartition(config.topics.requests, number) for number in partitions]
        found: dict[TopicPartition, Any] = await admin.list_consumer_group_offsets(
            f"{config.kafka.group}-judge", partitions=places
        )
    finally:
        await admin.close()
    return {place.partition: known.offset for place, known in found.items() if known.offset >= 0}


def _write_snapshot(path: Path, partition: int, stored: Stored, committed: int) -> None:
    blocks = sorted(stored.blocks.items())
    columns = [
        pa.array([partition] * len(blocks), pa.int32()),
        pa.array([block for block, _ in blocks], pa.int32()),
        pa.array([engine.block_mark(value).offset for _, value in blocks], pa.int64()),
        pa.array([value for _, value in blocks], pa.binary()),
    ]
    schema = layout.STATE.with_metadata({**layout.STATE.metadata, layout.BEGIN: str(stored.begin(committed)).encode()})
    pq.write_table(pa.table(columns, schema=schema), files.unfinished(path), compression="zstd")
    files.finish(path)
