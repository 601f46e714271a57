"""`link` on a broker: what it writes, what it recovers, who owns what; and that a replay says the same."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

from detector.engine import EngineSettings
from detector.events.finding import Event
from detector.frame import ShiftFrame
from examples.alert_schema import validate_alert
from streams import replay
from streams.config.config import Config
from streams.history.archive import Message
from streams.history.sources import open_sources
from streams.kafka import topics
from streams.kafka.broker import probe
from streams.kafka.faust_batches import Batch
from streams.metrics import Metrics
from streams.sketch.identity import Identity
from streams.sketch.sketcher import Sketcher
from streams.wire import frames
from streams.worker.app import Worker
from streams.worker.judge import JudgeStage
from streams.worker.link import LinkStage
from streams.worker.sketch import SketchStage
from streams.worker.stage import StageError
from tests.archives import archived
from tests.history import BEGIN_S, Row, _person, _row, write_jsonl
from tests.kafka_config import kafka_config
from tests.pipeline import RAW_PARTITIONS, Calibrated, read_topic, until, write_raw

DRIFT = {"baseline_windows": 8, "min_rows": 50, "alert_windows": 3}
HOURS, AT = 30, 16


def history(at: int = AT, seed: int = 21) -> list[Row]:
    """Eighty applicants an hour; from one hour on incomes are half as high again."""
    rng = random.Random(seed)
    rows = []
    for hour in range(HOURS):
        for _ in range(80):
            person = _person(rng)
            if hour >= at:
                person |= {"income": 10 * (person["income"] * 15 // 100)}
            rows.append(_row(f"acct-{rng.randrange(150)}", person, BEGIN_S + 3_600 * (hour + rng.random())))
    return sorted(rows, key=lambda row: row["ts"])


ROWS = history()


def configured(bootstrap: str, namespace: str, **sections: dict[str, object]) -> Config:
    return kafka_config(bootstrap, namespace, drift=DRIFT, **sections)


def requests(config: Config) -> list[TP]:
    return [TP(config.topics.requests, number) for number in range(config.topics.partitions)]


async def sketched(config: Config, fitted: Calibrated, rows: Sequence[Row]) -> None:
    """Topics, raw records, and their frames in `requests`: both raw partitions by quarters of an hour, as live.

    Of further rows too, behind those that are there.
    """
    await topics.create(config, RAW_PARTITIONS)
    known = {(record.partition, record.offset) for record in await read_topic(config, config.topics.raw[0])}
    await write_raw(config, rows)
    identity = Identity(fitted.secrets.pseudonym_key, fitted.secrets.key_id, fitted.secrets.projection_seed)
    stage = SketchStage(config, await probe(config.kafka), Sketcher(fitted.artefacts, identity, config), Metrics())
    await stage.start()
    raw = [r for r in await read_topic(config, config.topics.raw[0]) if (r.partition, r.offset) not in known]
    parts: dict[tuple[int, int], list[Any]] = {}
    for record in raw:
        quarter = int(json.loads(record.value)["ts"] // 900)
        parts.setdefault((quarter, record.partition), []).append(record)
    for (_, number), records in sorted(parts.items()):
        await stage.process(Batch(TP(config.topics.raw[0], number), records, 0))
    await stage.release()
    await stage.stop()


@asynccontextmanager
async def linking(config: Config, fitted: Calibrated) -> AsyncIterator[LinkStage]:
    stage = LinkStage(config, await probe(config.kafka), fitted.artefacts, Metrics())
    await stage.start()
    yield stage
    await stage.stop()


async def drain(config: Config, link: LinkStage, size: int = 20) -> None:
    """Let it read all there is, and what it writes there meanwhile."""
    reached = dict.fromkeys(requests(config), 0)
    while True:
        fresh = [batch for batch in await pieces(config, size) if batch.end > reached[batch.partition]]
        if not fresh:
            return
        for batch in fresh:
            await link.process(batch)
            reached[batch.partition] = batch.end


async def pieces(config: Config, size: int) -> Iterator[Batch]:
    """The log of `requests`, partitions in turn."""
    records = await read_topic(config, config.topics.requests)
    logs = [[record for record in records if record.partition == tp.partition] for tp in requests(config)]
    found = [
        Batch(tp, log[start : start + size], 0)
        for start in range(0, max(map(len, logs)), size)
        for tp, log in zip(requests(config), logs, strict=True)
        if log[start : start + size]
    ]
    return iter(found)


async def said(config: Config) -> dict[str, bytes]:
    """Id -> value of drift records and of alerts about models; each value once."""
    found: dict[str, bytes] = {}
    for topic in (config.topics.drift, config.topics.alerts):
        for record in await read_topic(config, topic):
            name = dict(record.headers)["probewatch-id"].decode()
            assert found.setdefault(name, record.value) == record.value
    return {name: value for name, value in found.items() if b"probewatch.drift/1" in value}


def replayed(config: Config, fitted: Calibrated, source: str) -> list[Event]:
    events = replay.replay(replay.Plan(open_sources([source], config), config, fitted.artefacts, fitted.secrets)).events
    return [event for event in events if b"probewatch.drift/1" in event.value]


async def test_records_alerts_and_shifts_are_written_and_a_replay_says_the_same(
    broker: str, namespace: str, fitted: Calibrated, tmp_path: Path
) -> None:
    config = configured(broker, namespace)
    await topics.create(config, RAW_PARTITIONS)
    owned = requests(config)
    async with linking(config, fitted) as link:
        await link.acquire(owned, dict.fromkeys(owned))
        for start in range(0, len(ROWS), 400):
            await sketched(config, fitted, ROWS[start : start + 400])
            await drain(config, link)
        await link.release()
    found = await said(config)
    records = [json.loads(value) for value in found.values() if b"class_uid" not in value]
    assert {(record["statistic"], record["direction"]) for record in records} >= {("score", "up")}
    assert {record["state"] for record in records} == {"begins", "lasts"}
    alerts = [value for value in found.values() if b"class_uid" in value]
    assert alerts and all(validate_alert(value) == [] for value in alerts)

    messages = await read_topic(config, config.topics.requests)
    decoded = [frames.decode(message.value, message.partition, message.offset) for message in messages]
    shifts = [frame for frame in decoded if isinstance(frame, ShiftFrame)]
    assert len(shifts) > 10 and {shift.partition for shift in shifts} == {tp.partition for tp in owned}
    newest = {}
    judge = JudgeStage(config, await probe(config.kafka), EngineSettings(config, fitted.artefacts), Metrics())
    await judge.start()
    await judge.acquire(owned, dict.fromkeys(owned))
    for batch in await pieces(config, 1_000):
        await judge.process(batch)
    for shift in shifts:
        newest[shift.space] = (shift.until_ms, shift.vector)
    for tp in owned:
        held = judge._partitions[tp].state.shift
        assert set(held.values()) == set(newest.values()) and len(held) == config.state.blocks
    await judge.release()
    await judge.stop()

    archived(tmp_path / "archive", [Message(m.partition, m.offset, None, m.value) for m in messages])
    write_jsonl(tmp_path / "day.jsonl", ROWS)
    for source in (tmp_path / "archive", tmp_path / "day.jsonl"):
        assert {e.id: e.value for e in replayed(config, fitted, str(source))} == found, source


async def handed_over(config: Config, fitted: Calibrated, rows: Sequence[Row]) -> None:
    """One member stalls with state that it has not written, another takes over, the first wakes, a third takes over."""
    third_part = len(rows) // 3
    await sketched(config, fitted, rows[:third_part])
    owned = requests(config)
    async with linking(config, fitted) as zombie, linking(config, fitted) as heir, linking(config, fitted) as third:
        await zombie.acquire(owned, dict.fromkeys(owned))
        await drain(config, zombie)
        await zombie.tick()
        committed = dict(zombie.committable())
        assert sum(committed.values()) > 0
        await sketched(config, fitted, rows[third_part : 2 * third_part])
        batches = [batch for batch in await pieces(config, 16) if batch.end > committed[batch.partition]]
        for batch in batches[: len(batches) // 2]:
            await zombie.process(batch)  # not written before it stalls
        await heir.acquire(owned, committed)
        await drain(config, heir, 7)
        await heir.release()
        assert sum(heir.committable().values()) > sum(committed.values())
        await sketched(config, fitted, rows[2 * third_part :])
        for batch in batches[len(batches) // 2 :]:
            await zombie.process(batch)  # wakes, goes on where it was, and closes windows in its turn
        await zombie.release()  # an old state behind the newer one
        await third.acquire(owned, dict(heir.committable()))
        await drain(config, third, 5)  # all of it again
        await third.release()


async def test_a_state_left_anywhere_goes_on_and_zombies_change_nothing(
    embedded_broker: str, namespace: str, fitted: Calibrated
) -> None:
    config = configured(embedded_broker, namespace)
    await handed_over(config, fitted, ROWS)
    again = configured(embedded_broker, f"{namespace}-again", topics={"requests": config.topics.requests})
    await topics.create(again)
    async with linking(again, fitted) as whole:
        await whole.acquire(requests(config), dict.fromkeys(requests(config)))
        await drain(again, whole)
    assert await said(config) == await said(again) != {}


async def test_a_state_behind_the_offsets_and_a_topic_made_anew_stop_it(
    embedded_broker: str, namespace: str, fitted: Calibrated
) -> None:
    config = configured(embedded_broker, namespace)
    await sketched(config, fitted, ROWS[:60])
    owned = requests(config)
    async with linking(config, fitted) as link:
        await link.acquire(owned, dict.fromkeys(owned))
        await drain(config, link, 100)
        assert set(link.committable().values()) == {0}, "nothing is safe before the state is written"
        await link.tick()
        assert min(link.committable().values()) > 0
        with pytest.raises(StageError, match=r"is behind the offsets of group .*-link"):
            await link.acquire(owned, dict.fromkeys(owned, 10_000))
        with pytest.raises(StageError, match="link needs all of them"):
            await link.acquire(owned[:1], dict.fromkeys(owned))
    other = configured(embedded_broker, namespace, topics={"requests": f"{namespace}.again"})
    await topics.create(other)
    async with linking(other, fitted) as link:
        with pytest.raises(StageError, match="the topic was re-created"):
            await link.acquire(requests(other), dict.fromkeys(requests(other)))
    without = configured(embedded_broker, namespace, topics={"drift": f"{namespace}.nowhere"})
    with pytest.raises(StageError, match=r"no such topic: .*nowhere"):
        async with linking(without, fitted):
            pass


async def stood_by(worker: Worker, seconds: float) -> None:
    """As if it had owned nothing for so long; and a few heartbeats."""
    consumer = worker.runners[0].app.batch_consumer._thread._ensure_consumer()
    consumer._subscription._last_fetch_ended -= seconds
    assert consumer._subscription.fetcher_idle_time >= seconds
    await asyncio.sleep(3 * consumer._coordinator._heartbeat_interval_ms / 1000)


async def test_one_worker_links_another_stands_by_and_takes_over(
    embedded_broker: str, namespace: str, fitted: Calibrated
) -> None:
    config = configured(embedded_broker, namespace)
    await sketched(config, fitted, ROWS)
    features = await probe(config.kafka)
    workers = [Worker(config, features, fitted.artefacts, fitted.secrets, ("link",)) for _ in range(2)]
    asked = [asyncio.Event() for _ in workers]
    running = [asyncio.create_task(worker.run(ask)) for worker, ask in zip(workers, asked, strict=True)]

    def owners() -> list[int]:
        return sorted(len(worker.runners[0]._owned) for worker in workers)

    async def shared() -> bool:
        return all(worker.ready for worker in workers) and owners() == [0, config.topics.partitions]

    async def handled(rows: int) -> bool:
        return (
            bool(await said(config))
            and max(sum(worker.metrics.rows.labels("link")._value.get() for worker in workers), 0) >= rows
        )

    await until(shared, "one owns all")
    await until(lambda: handled(1_000), "records")
    first = next(place for place, worker in enumerate(workers) if worker.runners[0]._owned)
    heir = workers[1 - first]
    await stood_by(heir, 3_600.0)
    asked[first].set()
    await running[first]

    async def taken() -> bool:
        return heir.ready and len(heir.runners[0]._owned) == config.topics.partitions

    await until(taken, "the other takes over")
    asked[1 - first].set()
    await running[1 - first]
    assert await said(config)
