"""The breaker on a broker, and in replays of frames and of raw records."""

import asyncio
from pathlib import Path

import pytest

from streams import replay
from streams.config.config import Config
from streams.history import sources
from streams.history.sources import open_sources
from streams.kafka import topics
from streams.ops import breaker
from tests.history import Row, benign, sweeps, write_jsonl
from tests.kafka_config import kafka_config
from tests.pipeline import RAW_PARTITIONS, Calibrated, all_handled, offline, read_events, until, write_raw
from tests.test_worker import working

POLICY = {"mode": "enforce", "breaker": {"clients": 3, "factor": 1.0}}
CLIENTS = 24


def day() -> list[Row]:
    """Two dozen clients reach `block`, one after the other within a quarter of an hour."""
    rows = sweeps(CLIENTS, 40, seed=6)
    late = {f"evil-{number}": 30.0 * number for number in range(CLIENTS)}
    moved = [row | {"ts": row["ts"] + late[row["client_id"]]} for row in rows]
    return sorted([*benign(100, seed=5), *moved], key=lambda row: row["ts"])


async def test_live_is_a_replay_of_the_log_and_a_person_resets_it(
    embedded_broker: str, namespace: str, fitted: Calibrated
) -> None:
    config = kafka_config(embedded_broker, namespace, policy=POLICY)
    await topics.create(config, RAW_PARTITIONS)
    rows = day()
    async with working(config, fitted) as worker:
        await write_raw(config, rows[:-200], pause_s=0.1)
        await until(lambda: all_handled(config), "all committed")
        opened = [one for one in await breaker.counts(config) if one.open]
        assert opened and all(one.limit == 3 and one.enforced <= 3 < one.decided for one in opened)
        assert any("open at block" in line for line in breaker.explained("loan", opened))
        await until(lambda: b'breaker_open{model="loan",rung="block"} 1' in worker.metrics.render(), "the metric")
        await breaker.reset(config, "loan", "looked at")
        await write_raw(config, rows[-200:])
        await until(lambda: all_handled(config), "all committed")
    live = await read_events(config)
    expected = await offline(config, fitted, config.topics.requests)
    assert {name: values.pop() for name, values in live.values.items() if len(values) == 1} == expected
    told = [value for value in expected.values() if b"The certificate no longer holds" in value]
    assert told and any(b'"mode":"shadow"' in value for value in expected.values())


@pytest.mark.parametrize("batch", [7, 10_000])
async def test_raw_records_in_any_batches_give_the_same_bytes(
    batch: int, fitted: Calibrated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config.model_validate({"policy": POLICY, "topics": {"partitions": 3}, "state": {"blocks": 4}})
    write_jsonl(tmp_path / "day.jsonl", day())
    plan = replay.Plan(open_sources([str(tmp_path / "day.jsonl")], config), config, fitted.artefacts, fitted.secrets)
    whole = await asyncio.to_thread(replay.replay, plan)
    monkeypatch.setattr(sources, "BATCH_RECORDS", batch)
    again = await asyncio.to_thread(replay.replay, plan)
    assert whole.events == again.events
    assert sum(event.detector == "breaker" for event in whole.events) == 1
    one = next(event.client_key for event in whole.events if event.kind == "throttle" and event.level == 4)
    chosen = plan._replace(selection=replay.Selection(clients=frozenset((one,))))
    part = await asyncio.to_thread(replay.replay, chosen)
    assert part.events == [event for event in whole.events if event.client_key == one], "others open the breaker too"
    assert part.summary["rows"] < whole.summary["rows"] / 10
