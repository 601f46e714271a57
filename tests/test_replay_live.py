"""A replay says what was said live: after rebalances, orders in the middle of it, and another configuration.

On the embedded broker, and on Apache Kafka where tests marked `kafka` run.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from detector.config import Config
from detector.engine import EngineSettings
from streams import judged_with, replay, topics
from streams.app import Worker
from streams.archive import taking
from streams.control import send
from streams.embedded import probe
from streams.progress import Silent
from streams.replay.eras import eras_of, known_of
from streams.sources import Source, SourceError, open_sources
from tests.history import Row, benign, sweeps
from tests.kafka_config import kafka_config
from tests.pipeline import RAW_PARTITIONS, Calibrated, all_handled, read_events, until, write_raw

pytestmark = pytest.mark.timeout(180)

STRICTER = {
    "policy": {"mode": "enforce", "hard": {"duration_s": 600}, "soft": {"action": "delay", "delay_ms": 250}},
    "models": {"loan": {"decision_threshold": 0.62}},
}


class Running(NamedTuple):
    """A worker of all stages."""

    asked: asyncio.Event
    task: "asyncio.Task[None]"

    async def leave(self) -> None:
        """In order; what is not written is written. Raises what the worker failed of."""
        self.asked.set()
        await self.task


@contextlib.asynccontextmanager
async def installation(fitted: Calibrated) -> AsyncIterator[Callable[[Config], Awaitable[Running]]]:
    """Starts workers; those that have not left at the end are asked to."""
    started: list[Running] = []

    async def start(config: Config) -> Running:
        """Returns when it is ready: the others have given partitions up to it."""
        worker = Worker(config, await probe(config.kafka), fitted.artefacts, fitted.secrets)
        asked = asyncio.Event()
        started.append(Running(asked, asyncio.create_task(worker.run(asked))))
        while not worker.ready and not started[-1].task.done():  # noqa: ASYNC110 readiness sets no event
            await asyncio.sleep(0.05)
        return started[-1]

    try:
        yield start
    finally:
        for running in started:
            running.asked.set()
        await asyncio.gather(*(running.task for running in started))


@contextlib.asynccontextmanager
async def feeding(config: Config, rows: list[Row]) -> AsyncIterator[None]:
    """The rows flow while something else goes on, and all of them are handled at the end."""
    flowing = asyncio.create_task(write_raw(config, rows, pause_s=0.2))
    yield
    await flowing
    await until(lambda: all_handled(config), 60, "all committed")


async def order(config: Config, fitted: Calibrated, action: str, client: str, until_ms: int = 0) -> None:
    await asyncio.to_thread(send, config, fitted.secrets, action, client, "", until_ms, "a test")


def day(number: int) -> list[Row]:
    """Ordinary people, and the same four sweepers every day."""
    return sorted([*benign(120, seed=20 + number, day=number), *sweeps(4, 60, seed=7, day=number)], key=_time)


def _time(row: Row) -> float:
    return float(row["ts"])


async def lived(before: Config, after: Config, fitted: Calibrated) -> None:
    """Two days under one configuration, with rebalances and orders in the middle; a third under another."""
    async with installation(fitted) as start:
        first = await start(before)
        async with feeding(before, day(1)):
            await order(before, fitted, "allow", "evil-0", until_ms=int(day(3)[-1]["ts"] * 1000))
            second = await start(before)
        async with feeding(before, day(2)):
            await order(before, fitted, "lift", "evil-1")
            await first.leave()
        await order(before, fitted, "lift", "evil-2")
        await until(lambda: all_handled(before), 60, "the order committed")
        await second.leave()
        await start(after)
        async with feeding(after, day(3)):
            await start(after)


def replayed(source: str, before: Config, after: Config, fitted: Calibrated) -> dict[str, bytes]:
    """Also in processes of their own: the same."""
    sources = open_sources([source], after)
    settings = [EngineSettings(config, fitted.artefacts) for config in (before, after)]
    eras = eras_of(settings, known_of(sources, after))
    assert {switch.era for switches in eras.switches.values() for switch in switches} == {0, 1}
    options = replay.Options(eras=eras, folders=[fitted.folder] * 2)
    alone = _events(sources, after, fitted, options)
    assert _events(sources, after, fitted, options._replace(jobs=2)) == alone
    return alone


def _events(sources: list[Source], config: Config, fitted: Calibrated, options: replay.Options) -> dict[str, bytes]:
    found = replay.replay(sources, config, fitted.artefacts, fitted.secrets, Silent(), options)
    assert not found.cold
    return {event.id: event.value for event in found.events}


async def test_a_replay_is_live_byte_for_byte_after_rebalances_orders_and_another_configuration(
    broker: str, namespace: str, fitted: Calibrated, tmp_path: Path
) -> None:
    before, after = kafka_config(broker, namespace), kafka_config(broker, namespace, **STRICTER)
    await topics.create(before, RAW_PARTITIONS)
    await lived(before, after, fitted)
    written = await read_events(before)
    live = {name: values.pop() for name, values in written.values.items() if len(values) == 1}
    assert len(live) == len(written.values)
    assert {b'"mode":"shadow"' in value for value in live.values()} == {True, False}
    assert sum(b'"reason":"person"' in value for value in live.values()) >= 2

    requests = f"kafka://{broker}/{before.topics.requests}"
    assert await asyncio.to_thread(replayed, requests, before, after, fitted) == live

    await asyncio.to_thread(taking.take_topic, requests, after, tmp_path, Silent())
    assert await asyncio.to_thread(replayed, str(tmp_path), before, after, fitted) == live


async def test_what_was_judged_with_something_else_is_not_replayed_as_if_it_were_the_same(
    embedded_broker: str, namespace: str, fitted: Calibrated
) -> None:
    before, after = kafka_config(embedded_broker, namespace), kafka_config(embedded_broker, namespace, **STRICTER)
    await topics.create(before, RAW_PARTITIONS)
    async with installation(fitted) as start:
        await start(before)
        async with feeding(before, day(1)[:50]):
            pass
    sources = open_sources([f"kafka://{embedded_broker}/{before.topics.requests}"], after)
    known = await asyncio.to_thread(known_of, sources, after)
    assert {(one.partition, one.offset, one.config_hash) for one in known} == {
        (number, 0, before.hash) for number in range(before.topics.partitions)
    }
    with pytest.raises(SourceError, match=rf"configuration {before.hash}.*--earlier-config"):
        eras_of([EngineSettings(after, fitted.artefacts)], known)


def test_nothing_is_written_down_again_unless_it_changed() -> None:
    made_with = judged_with.Provenance("c", "a", "0")
    first = judged_with.due([], 3, 17, made_with)
    assert first is not None and judged_with.decode(first.key, judged_with.encode(first), 3) == first
    assert judged_with.due([first], 3, 40, made_with) is None
    second = judged_with.due([first], 3, 40, made_with._replace(config_hash="d"))
    assert second is not None and (second.offset, second.config_hash) == (40, "d")
    assert judged_with.due([second, first], 3, 50, made_with) == first.__class__(3, 50, *made_with)
    assert judged_with.decode(first.key, judged_with.encode(first), 4) is None
