"""Dead letters: what is listed, what is found again, and that only what can be read now is sent, once."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from typer.testing import CliRunner, Result

from streams.cli import app
from streams.config.config import Config
from streams.history.base import SourceError
from streams.kafka import topics
from streams.kafka.faust_batches import Batch
from streams.ops import dead_letters
from streams.ops.dead_letters import Retried, grouped, read_letters
from streams.sketch.identity import Identity
from streams.sketch.sketcher import Sketcher
from tests.history import benign, lines
from tests.kafka_config import kafka_config
from tests.pipeline import RAW_PARTITIONS, Calibrated, read_topic
from tests.test_stages import batches, sketching

GOOD = [row | {"request_id": f"r{number}"} for number, row in enumerate(benign(9, seed=5)[:4])]
LATE = 4_200_000_000.0  # 2103
BAD = [GOOD[0] | {"ts": LATE}, GOOD[1] | {"ts": "secret-time"}, GOOD[2] | {"ts": LATE, "request_id": "in-an-array"}]


def sketcher(config: Config, fitted: Calibrated) -> Sketcher:
    secrets = fitted.secrets
    return Sketcher(fitted.artefacts, Identity(secrets.pseudonym_key, secrets.key_id, secrets.projection_seed), config)


def mended(config: Config) -> Config:
    later = Config.model_validate({"input": {"latest": "2150-01-01T00:00:00Z"}})
    return config.model_copy(update={"input": later.input})


async def refused(config: Config, fitted: Calibrated) -> None:
    """Raw records, three of them bad, one of these in an array; judged twice, as after a crash."""
    await topics.create(config, RAW_PARTITIONS)
    producer = AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap)
    await producer.start()
    values = [*lines(GOOD), *lines(BAD[:2]), b"[" + b",".join([*lines(GOOD[:1]), *lines(BAD[2:])]) + b"]"]
    for value in values:
        await producer.send_and_wait(config.topics.raw[0], value, partition=1, key=b"k", headers=[("h", b"x")])
    await producer.stop()
    for _ in range(2):
        async with sketching(config, fitted) as stage:
            for batch in batches(await read_topic(config, config.topics.raw[0])):
                await stage.process(Batch(batch.partition, batch.records, 0))
            await stage.release()


async def test_what_can_be_read_now_is_sent_once(
    embedded_broker: str, namespace: str, fitted: Calibrated, tmp_path: Path
) -> None:
    config = kafka_config(embedded_broker, namespace)
    await refused(config, fitted)
    raw = config.topics.raw[0]
    places = [f"{raw}[1]@4#0", f"{raw}[1]@5#0", f"{raw}[1]@6#1"]
    found = await asyncio.to_thread(read_letters, None, config)
    assert [letter.place for letter in found] == places
    assert [(group.reason, group.count) for group in grouped(found)] == [("time", 2), ("type", 1)]
    assert "secret-time" not in grouped(found)[1].example
    assert found[2].record is not None and json.loads(found[2].record.value or b"") == BAD[2]

    same = await asyncio.to_thread(dead_letters.retry, found, config, sketcher(config, fitted))
    assert [one.did for one in same] == 3 * ["refused"]
    config = mended(config)
    dry = await asyncio.to_thread(dead_letters.retry, found, config, sketcher(config, fitted), dry=True)
    assert [one.did for one in dry] == ["would be sent", "refused", "would be sent"]
    done = await asyncio.to_thread(dead_letters.retry, found, config, sketcher(config, fitted))
    assert done[0] == Retried(places[0], "sent", f"{raw}[1]")
    assert done[1].detail.startswith(f"{places[1].removesuffix('#0')}: ts: expected an RFC 3339 time")
    again = (await read_topic(config, raw))[7:]
    assert [(record.partition, json.loads(record.value)) for record in again] == [(1, BAD[0]), (1, BAD[2])]
    assert [(record.key, list(record.headers)) for record in again] == 2 * [(b"k", [("h", b"x")])]
    left = await asyncio.to_thread(read_letters, None, config)
    assert [letter.place for letter in left] == [places[1]]


async def test_records_that_a_letter_left_out_are_looked_up(
    embedded_broker: str, namespace: str, fitted: Calibrated
) -> None:
    config = kafka_config(embedded_broker, namespace)
    await refused(config, fitted)
    whole = await asyncio.to_thread(read_letters, None, config)
    bare = [letter._replace(record=None) for letter in whole]
    found = await asyncio.to_thread(dead_letters.looked_up, bare, [], config)
    assert [json.loads(one.record.value or b"") for one in found if one.record] == BAD
    nowhere = [letter._replace(reject=letter.reject) for letter in bare]
    missing = await asyncio.to_thread(dead_letters.retry, nowhere, config, sketcher(config, fitted), dry=True)
    assert {one.did for one in missing} == {"missing"}


async def test_of_a_message_with_many_faults_each_row_is_listed_and_sent_by_itself(
    embedded_broker: str, namespace: str, fitted: Calibrated
) -> None:
    config = kafka_config(embedded_broker, namespace)
    await topics.create(config, RAW_PARTITIONS)
    rows = [GOOD[number % 4] | {"ts": LATE, "request_id": f"late{number}"} for number in range(50)]
    rows[5] |= {"ts": "secret-time"}
    values = [*lines(GOOD), *lines(rows)]
    message = b"[" + b",".join(value.strip() for value in values) + b"]"
    producer = AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap)
    await producer.start()
    await producer.send_and_wait(config.topics.raw[0], message, partition=1, headers=[("h", b"x")])
    await producer.stop()
    async with sketching(config, fitted) as stage:
        for batch in batches(await read_topic(config, config.topics.raw[0])):
            await stage.process(Batch(batch.partition, batch.records, 0))
        await stage.release()
    (letter,) = await read_topic(config, config.topics.dlq)
    assert letter.value == b"\n".join(value.strip() for value in values[4:])

    found = await asyncio.to_thread(read_letters, None, config)
    assert [one.place for one in found] == [f"{config.topics.raw[0]}[1]@0#{row}" for row in range(4, 54)]
    assert [json.loads(one.record.value or b"") for one in found if one.record] == rows
    assert {group.reason: group.count for group in grouped(found)} == {"time": 19, "type": 1, "many": 30}
    bare = [one._replace(record=None) for one in found]
    looked_up = await asyncio.to_thread(dead_letters.looked_up, bare, [], config)
    assert [one.record and one.record.value for one in looked_up] == [one.record and one.record.value for one in found]

    config = mended(config)
    done = await asyncio.to_thread(dead_letters.retry, found, config, sketcher(config, fitted))
    assert [one.did for one in done] == ["sent"] * 5 + ["refused"] + ["sent"] * 44
    again = (await read_topic(config, config.topics.raw[0]))[1:]
    assert [json.loads(record.value) for record in again] == [*rows[:5], *rows[6:]]
    (left,) = await asyncio.to_thread(read_letters, None, config)
    assert left.place.endswith("#9")


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def rows(*words: object) -> Any:
    result = call(*words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def replayed(fitted: Calibrated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    log = [*lines(GOOD), b"{\n", *lines([GOOD[0] | {"ts": LATE, "client_id": "\x1b[31mred"}])]
    (tmp_path / "log.jsonl").write_bytes(b"".join(log))
    done = call("replay", "log.jsonl", "--out", "out", "--artefacts", fitted.folder)
    assert done.exit_code == 0, done.stderr
    return fitted.folder


def test_a_replays_rejects(replayed: Path) -> None:
    listed = rows("dlq", "list", "--from", "out")
    assert [(row["reason"], row["topic"], row["count"]) for row in listed] == [
        ("malformed", "log.jsonl", 1), ("time", "log.jsonl", 1)
    ]  # fmt: skip
    (shown,) = rows("dlq", "show", "--from", "out", "--reason", "time")
    assert shown["place"] == "log.jsonl[0]@5#0" and "record" not in shown
    (shown,) = rows("dlq", "show", shown["place"], "--from", "out", "--record", "--raw", "log.jsonl")
    assert json.loads(shown["record"])["ts"] == LATE
    printed = call("dlq", "show", "--from", "out", "--record", "--raw", "log.jsonl").stdout
    assert "\x1b" not in printed and "red" in printed
    tried = rows("dlq", "retry", "--from", "out", "--dry-run", "--raw", "log.jsonl", "--artefacts", replayed)
    assert [one["did"] for one in tried] == ["refused", "refused"]
    assert [one["did"] for one in rows("dlq", "retry", "--from", "out", "--dry-run", "--artefacts", replayed)] == [
        "missing", "missing"
    ]  # fmt: skip


def test_what_holds_no_rejects_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"`probewatch replay` writes rejects\.jsonl"):
        read_letters(tmp_path, Config())
    (tmp_path / "rejects.jsonl").write_text("{}\n")
    with pytest.raises(SourceError, match=r"rejects\.jsonl, line 1: not a reject"):
        read_letters(tmp_path, Config())
