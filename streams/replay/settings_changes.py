"""Under which settings each frame was judged: a configuration or artefacts that changed are changed in a replay too."""

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
    """From this offset of `requests` on a partition was judged with other settings. era : number of them in Eras."""

    offset: int
    era: int


class Eras(NamedTuple):
    """settings : oldest first. switches : by partition, offsets rising; where there is none the newest hold."""

    settings: Sequence[engine.EngineSettings]
    switches: Mapping[int, Sequence[Switch]] = {}

    @property
    def newest(self) -> engine.EngineSettings:
        return self.settings[-1]

    def at(self, partition: int, offset: int) -> int:
        """Number of the settings in force; before the first switch it is what that switch began with."""
        switches = self.switches.get(partition, ())
        if not switches:
            return len(self.settings) - 1
        place = bisect_right(switches, offset, key=lambda switch: switch.offset)
        return switches[max(0, place - 1)].era


def eras_of(settings: Sequence[engine.EngineSettings], known: Iterable[JudgedWith]) -> Eras:
    """settings : oldest first. known : what workers wrote about theirs; it must speak of these only.

    Raises SourceError.
    """
    numbers = {(one.provenance.config_hash, one.provenance.artefact_hash): n for n, one in enumerate(settings)}
    switches: dict[int, list[Switch]] = {}
    for one in sorted(known):
        era = numbers.get((one.config_hash, one.artefact_hash))
        if era is None:
            raise SourceError(
                f"partition {one.partition} was judged from offset {one.offset} on with configuration {one.config_hash}"
                f" and artefacts {one.artefact_hash}: give that configuration too (--earlier-config)"
            )
        switches.setdefault(one.partition, []).append(Switch(one.offset, era))
    if not switches:
        raise SourceError(
            "--earlier-config: nothing says when the configuration changed; workers write it into topics.judge_state,"
            " and `archive` keeps it if it may read that topic"
        )
    return Eras(settings, switches)


def known_of(sources: Sequence[Source], config: Config) -> list[JudgedWith]:
    """What stands beside the sources: in an archive, or in the topic of state. Raises SourceError, KafkaError."""
    found: list[JudgedWith] = []
    for source in sources:
        if isinstance(source, ArchiveFolder):
            try:
                found += settings_log.read(source.archive.folder)
            except msgspec.MsgspecError as error:
                raise SourceError(f"{source.archive.folder / settings_log.FILE}: damaged: {error}") from error
        elif getattr(source, "holds_frames", False):
            found += asyncio.run(_in_topic(config))
        else:
            raise SourceError(f"{source.name}: --earlier-config needs frames: an archive, or the topic of requests")
    return found


async def _in_topic(config: Config) -> list[JudgedWith]:
    from aiokafka import TopicPartition

    from streams.kafka import clients, topics
    from streams.kafka.broker import probe
    from streams.worker.state_topic import read_log

    topic, most = config.topics.judge_state, topics.state_bytes(config) + clients.FRAMING_BYTES
    count = (await topics.partition_counts(config, [topic])).get(topic, 0)
    places = [TopicPartition(topic, number) for number in range(count)]
    async with clients.reader(config, max_partition_fetch_bytes=most, fetch_max_bytes=most) as consumer:
        records = read_log(consumer, places, await probe(config.kafka))
        found = [settings_log.decode(record.key, record.value, record.partition) async for record in records]
    return [one for one in found if one is not None]
