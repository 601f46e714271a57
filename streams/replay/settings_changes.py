"""Configuration changes: a replay switches settings at the offsets where the live service did."""

import asyncio
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from detector import engine
from streams.config.config import Config
from streams.history.base import Source, SourceError
from streams.history.sources import ArchiveFolder
from streams.wire import settings_log
from streams.wire.settings_log import JudgedWith


class Switch(NamedTuple):
    """number : index into SettingsHistory.settings of those in force from this offset of `requests` on."""

    offset: int
    number: int


class SettingsHistory(NamedTuple):
    """settings : oldest first. switches : by partition, offsets rising; without any the newest settings hold."""

    settings: Sequence[engine.EngineSettings]
    switches: Mapping[int, Sequence[Switch]] = {}

    @property
    def newest(self) -> engine.EngineSettings:
        return self.settings[-1]

    def at(self, partition: int, offset: int) -> int:
        """Number of the settings in force. Before the first switch, the settings of that switch."""
        switches = self.switches.get(partition, ())
        if not switches:
            return len(self.settings) - 1
        following = bisect_right(switches, offset, key=lambda switch: switch.offset)
        return switches[max(0, following - 1)].number


def settings_history(settings: Sequence[engine.EngineSettings], log: Iterable[JudgedWith]) -> SettingsHistory:
    """Combine settings with the log in which workers recorded when theirs changed.

    settings : oldest first. Raises SourceError if the log names settings that are not among them, or is empty.
    """
    numbers = {(each.provenance.config_hash, each.provenance.artefact_hash): n for n, each in enumerate(settings)}
    switches: dict[int, list[Switch]] = {}
    for entry in sorted(log):
        number = numbers.get((entry.config_hash, entry.artefact_hash))
        if number is None:
            raise SourceError(
                f"partition {entry.partition} was judged from offset {entry.offset} on with configuration"
                f" {entry.config_hash} and artefacts {entry.artefact_hash}: give that configuration too"
                " (--earlier-config)"
            )
        switches.setdefault(entry.partition, []).append(Switch(entry.offset, number))
    if not switches:
        raise SourceError(
            "--earlier-config: no record of when the configuration changed; workers write it into"
            " topics.judge_state, and `archive` keeps it if it may read that topic"
        )
    return SettingsHistory(settings, switches)


def read_settings_log(sources: Sequence[Source], config: Config) -> list[JudgedWith]:
    """From each archive, or from the state topic. Raises SourceError, KafkaError."""
    entries: list[JudgedWith] = []
    for source in sources:
        if isinstance(source, ArchiveFolder):
            try:
                entries += settings_log.read(source.archive.folder)
            except msgspec.MsgspecError as error:
                raise SourceError(f"{source.archive.folder / settings_log.FILE}: damaged: {error}") from error
        elif getattr(source, "holds_frames", False):
            entries += asyncio.run(_read_topic(config))
        else:
            raise SourceError(f"{source.name}: --earlier-config needs frames: an archive, or the topic of requests")
    return entries


async def _read_topic(config: Config) -> list[JudgedWith]:
    from aiokafka import TopicPartition

    from streams.kafka import clients, topics
    from streams.kafka.broker import probe
    from streams.worker.state_topic import read_log

    topic, bytes_max = config.topics.judge_state, topics.state_bytes(config) + clients.FRAMING_BYTES
    count = (await topics.partition_counts(config, [topic])).get(topic, 0)
    partitions = [TopicPartition(topic, number) for number in range(count)]
    async with clients.reader(config, max_partition_fetch_bytes=bytes_max, fetch_max_bytes=bytes_max) as consumer:
        records = read_log(consumer, partitions, await probe(config.kafka))
        entries = [settings_log.decode(record.key, record.value, record.partition) async for record in records]
    return [entry for entry in entries if entry is not None]
