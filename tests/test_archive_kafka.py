"""`probewatch archive` from a topic: what was live comes out of the archive, from its beginning and from a snapshot."""

import asyncio
from pathlib import Path

import pytest

from detector import engine
from detector.events.finding import Event
from detector.frame import Frame
from models.pseudonym import client_of
from streams import replay
from streams.config.config import Config
from streams.history.archive import open_archive
from streams.history.archive.erase import erase
from streams.history.base import SourceError
from streams.history.sources import open_sources
from streams.kafka import topics
from streams.ops import archive_topic
from streams.ops.archive_topic import Taken
from streams.ops.orders import send
from streams.progress import Silent
from streams.sketch.identity import pseudonym_of
from tests.history import benign, sweeps
from tests.kafka_config import kafka_config
from tests.pipeline import RAW_PARTITIONS, Calibrated, all_handled, ends, read_events, until, write_raw
from tests.test_worker import working


async def live(config: Config, fitted: Calibrated, day: int) -> None:
    """A worker that judges a stretch of traffic, with an order behind it."""
    async with working(config, fitted):
        await write_raw(config, [*benign(60, seed=day, day=day), *sweeps(2, 60, seed=day, day=day)])
        await until(lambda: all_handled(config), "all committed")
        await asyncio.to_thread(send, config, fitted.secrets, "lift", "evil-0", "", 0, "false alarm")
        await until(lambda: all_handled(config), "the order committed")


async def taken(config: Config, folder: Path, options: str = "") -> Taken:
    spec = f"kafka://{config.kafka.bootstrap}/{config.topics.requests}{options}"
    return await asyncio.to_thread(archive_topic.take_topic, spec, config, folder, Silent())


def replayed(config: Config, fitted: Calibrated, folder: Path) -> dict[str, Event]:
    found = replay.replay(replay.Plan(open_sources([str(folder)], config), config, fitted.artefacts, fitted.secrets))
    return {event.id: event for event in found.events}


def folded(config: Config, fitted: Calibrated, frames: list[Frame], blocks: list[bytes], reached: int) -> list[Event]:
    """Events from offset `reached` on, of a fold that begins with these blocks."""
    state = engine.open_partition(engine.EngineSettings(config, fitted.artefacts), frames[0].partition)
    for block in blocks:
        engine.load_block(state, block)
    return [event for frame in frames for event in engine.step(state, frame) if frame.offset >= reached]


async def test_the_archive_of_a_topic(embedded_broker: str, namespace: str, fitted: Calibrated, tmp_path: Path) -> None:
    config, folder = kafka_config(embedded_broker, namespace), tmp_path / "archive"
    await topics.create(config, RAW_PARTITIONS)
    await live(config, fitted, day=1)
    first = await taken(config, folder)
    middle = {number: open_archive(folder).snapshot(number) for number in range(config.topics.partitions)}
    await live(config, fitted, day=2)
    second = await taken(config, folder)
    held = sum((await ends(config, config.topics.requests, config.topics.partitions)).values())
    assert (first.messages + second.messages, first.snapshots, second.gaps) == (held, config.topics.partitions, [])
    assert first.messages > 0 < second.messages
    assert (await taken(config, folder)).messages == 0

    written = await read_events(config)
    found = replayed(config, fitted, folder)
    assert {name: {event.value} for name, event in found.items()} == written.values and len(found) > 8

    kept = open_archive(folder)
    for number, snapshot in middle.items():
        frames = list(kept.frames(number))
        assert snapshot is not None and 0 < snapshot.begin <= snapshot.reached < frames[-1].offset
        whole = folded(config, fitted, frames, [], snapshot.reached)
        behind = [frame for frame in frames if frame.offset >= snapshot.begin]
        assert folded(config, fitted, behind, snapshot.blocks, snapshot.reached) == whole
        assert kept.snapshot(number, before_offset=snapshot.begin) is None  # the day's later one took its place

    name = pseudonym_of("evil-0", fitted.secrets)
    await _erasure(config, fitted, folder, client_of(name), found)


async def _erasure(config: Config, fitted: Calibrated, folder: Path, client: int, before: dict[str, Event]) -> None:
    assert {event.client_key for event in before.values()} > {client}
    gone = erase(folder, [client], Silent())
    assert gone.rows == 120 and gone.blocks == 1 and gone.orders == 2 * config.topics.partitions
    after = replayed(config, fitted, folder)
    others = {name: event for name, event in before.items() if event.client_key not in (client, 0)}
    assert {name: event for name, event in after.items() if event.client_key} == others
    kept = open_archive(folder)
    for number in kept.partitions:
        snapshot = kept.snapshot(number)
        assert snapshot is not None
        state = engine.open_partition(engine.EngineSettings(config, fitted.artefacts), number)
        for block in snapshot.blocks:
            engine.load_block(state, block)
        assert state.clients > 0 and all(table.find(client) < 0 for table in state.tables.values())


async def test_what_is_not_the_topic_of_frames_is_refused(
    embedded_broker: str, namespace: str, fitted: Calibrated, tmp_path: Path
) -> None:
    config = kafka_config(embedded_broker, namespace)
    await topics.create(config, RAW_PARTITIONS)
    raw = f"kafka://{config.kafka.bootstrap}/{config.topics.raw[0]}"
    with pytest.raises(SourceError, match="only the topic of frames is archived"):
        archive_topic.take_topic(raw, config, tmp_path / "raw", Silent())
    with pytest.raises(SourceError, match="partition: expected 0 to 2; got 7"):
        await taken(config, tmp_path / "seven", "?partition=7")
    assert (await taken(config, tmp_path / "empty")) == Taken(0, 0, 0, [])
