"""A replay says what was said live: after rebalances, orders in the middle of it, and another configuration."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from detector.engine import EngineSettings
from streams import replay
from streams.analyst.events import KAFKA, read_events
from streams.config.config import Config
from streams.history.base import SourceError
from streams.history.sources import open_sources
from streams.kafka import topics
from streams.kafka.broker import probe
from streams.ops import archive_topic
from streams.ops.orders import send
from streams.progress import Silent
from streams.replay import jobs as processes
from streams.replay.settings_changes import read_settings_log, settings_history
from streams.replay.verify import verify
from streams.wire import settings_log
from streams.worker.app import Worker
from tests import pipeline
from tests.history import BEGIN_S, Row, _person, _row, benign, sweeps
from tests.kafka_config import kafka_config
from tests.pipeline import RAW_PARTITIONS, Calibrated, all_handled, until, write_raw

DRIFT = {"baseline_windows": 8, "min_rows": 50, "alert_windows": 3}
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
    flowing = asyncio.create_task(write_raw(config, rows, pause_s=0.05))
    yield
    await flowing
    await until(lambda: all_handled(config), "all committed")


async def order(config: Config, fitted: Calibrated, action: str, client: str, until_ms: int = 0) -> None:
    await asyncio.to_thread(send, config, fitted.secrets, action, client, "", until_ms, "a test")


def phase(number: int) -> list[Row]:
    """Eleven hours of people who ask for more from phase to phase, and the same four sweepers in the middle."""
    rng = random.Random(number)
    rows = []
    for hour in range(11 * number, 11 * number + 11):
        for _ in range(80):
            person = _person(rng)
            person |= {"income": 10 * (person["income"] * (2 + number) // 20)}
            rows.append(_row(f"acct-{rng.randrange(150)}", person, BEGIN_S + 3_600 * (hour + rng.random())))
    swept = [row | {"ts": row["ts"] + 3_600 * (11 * number + 5 - 12)} for row in sweeps(4, 60, seed=7)]
    return sorted([*rows, *swept], key=lambda row: float(row["ts"]))


async def lived(before: Config, after: Config, fitted: Calibrated) -> None:
    """Two phases under one configuration, with rebalances and orders in the middle; a third under another."""
    async with installation(fitted) as start:
        first = await start(before)
        async with feeding(before, phase(0)):
            await order(before, fitted, "allow", "evil-0", until_ms=int(phase(2)[-1]["ts"] * 1000))
            second = await start(before)
        async with feeding(before, phase(1)):
            await order(before, fitted, "lift", "evil-1")
            await order(before, fitted, "block", "evil-3", until_ms=int(phase(2)[-1]["ts"] * 1000))
            await first.leave()
        await order(before, fitted, "lift", "evil-2")
        await until(lambda: all_handled(before), "the order committed")
        await second.leave()
        await start(after)
        async with feeding(after, phase(2)):
            await start(after)


def replayed(
    source: str, before: Config, after: Config, fitted: Calibrated, jobs_in: Path | None = None
) -> replay.Outcome:
    """jobs_in : folder for a replay in two processes."""
    sources = open_sources([source], after)
    settings = [EngineSettings(config, fitted.artefacts) for config in (before, after)]
    changes = settings_history(settings, read_settings_log(sources, after))
    assert {switch.number for switches in changes.switches.values() for switch in switches} == {0, 1}
    plan = replay.Plan(sources, after, fitted.artefacts, fitted.secrets, changes=changes)
    found = replay.replay(plan) if jobs_in is None else processes.replay(plan, [fitted.folder] * 2, 2, jobs_in)
    assert not found.cold
    return found


def values(found: replay.Outcome) -> dict[str, bytes]:
    return {event.id: event.value for event in found.events}


@pytest.mark.kafka
async def test_a_replay_is_live_byte_for_byte_after_rebalances_orders_and_another_configuration(
    apache_broker: str, namespace: str, fitted: Calibrated, tmp_path: Path
) -> None:
    before = kafka_config(apache_broker, namespace, drift=DRIFT)
    after = kafka_config(apache_broker, namespace, drift=DRIFT, **STRICTER)
    await topics.create(before, RAW_PARTITIONS)
    await lived(before, after, fitted)
    live = await said(before)
    assert {b'"mode":"shadow"' in value for value in live.values()} == {True, False}
    assert sum(b'"reason":"person"' in value for value in live.values()) >= 3
    drifted = [value for value in live.values() if value.startswith(b'{"schema":"probewatch.drift/1"')]
    assert all(any(config.hash.encode() in value for value in drifted) for config in (before, after))

    requests = f"kafka://{apache_broker}/{before.topics.requests}"
    assert values(await asyncio.to_thread(replayed, requests, before, after, fitted)) == live
    await asyncio.to_thread(archive_topic.take_topic, requests, after, tmp_path / "archive", Silent())
    archive, out = str(tmp_path / "archive"), tmp_path / "out"
    assert values(await asyncio.to_thread(replayed, archive, before, after, fitted, out)) == live


async def said(config: Config) -> dict[str, bytes]:
    """Id -> the one value that was ever written under it."""
    written = await pipeline.read_events(config)
    return {name: value for name, (value,) in written.values.items()}


async def test_a_configuration_that_changed_is_changed_where_it_did_or_the_replay_refuses(
    embedded_broker: str, namespace: str, fitted: Calibrated
) -> None:
    before, after = kafka_config(embedded_broker, namespace), kafka_config(embedded_broker, namespace, **STRICTER)
    await topics.create(before, RAW_PARTITIONS)
    rows = [*benign(60, seed=5), *sweeps(2, 60, seed=6)]
    async with installation(fitted) as start:
        first = await start(before)
        async with feeding(before, rows[:130]):
            pass
        await first.leave()
        await start(after)
        async with feeding(after, rows[130:]):
            pass
    requests = f"kafka://{embedded_broker}/{before.topics.requests}"
    known = await asyncio.to_thread(read_settings_log, open_sources([requests], after), after)
    assert {(one.partition, one.config_hash) for one in known} == {
        (number, config.hash) for number in range(before.topics.partitions) for config in (before, after)
    }
    found = await asyncio.to_thread(replayed, requests, before, after, fitted)
    assert values(found) == await said(before)
    verdict = verify(found, await asyncio.to_thread(lambda: list(read_events(KAFKA, after))))
    assert verdict.equal and verdict.recorded == len(found.events) > 4
    with pytest.raises(SourceError, match=rf"configuration {before.hash}.*--earlier-config"):
        settings_history([EngineSettings(after, fitted.artefacts)], known)


def test_nothing_is_written_down_again_unless_it_changed() -> None:
    made_with = settings_log.Provenance("c", "a", "0")
    first = settings_log.due([], 3, 17, made_with)
    assert first is not None and settings_log.decode(first.key, settings_log.encode(first), 3) == first
    assert settings_log.due([first], 3, 40, made_with) is None
    second = settings_log.due([first], 3, 40, made_with._replace(config_hash="d"))
    assert second is not None and (second.offset, second.config_hash) == (40, "d")
    assert settings_log.due([second, first], 3, 50, made_with) == first.__class__(3, 50, *made_with)
    assert settings_log.decode(first.key, settings_log.encode(first), 4) is None
