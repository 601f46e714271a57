"""Clients that pose as others, invent others by the million, or have a clock that is years off."""

import json
import random
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta

import msgspec
import numpy as np
import pytest
import structlog

from detector import engine
from detector.events.encode import moment, throttle
from detector.events.finding import Event
from detector.frame import RowFrame
from probewatch_door.decisions import Decisions
from streams.config.config import Config
from streams.kafka.broker import probe
from streams.metrics import Metrics
from streams.sketch import columns
from streams.sketch.sketcher import Sketcher
from streams.worker.judge import JudgeStage, Partition
from tests import sketching
from tests.findings import FINDING
from tests.fuzz import world
from tests.history import Row, benign, lines, sweeps
from tests.kafka_config import kafka_config
from tests.pipeline import Calibrated

SMALL = Config.model_validate({"state": {"blocks": 1, "block_bytes": 262_144}})
FLOOD, FLOOD_FRAME = 1_000_000, 4_096
YEAR_S = 365 * 86_400

ALIKE = [
    ("Zoë", unicodedata.normalize("NFD", "Zoë")),
    ("acct-1", "асct-1"),  # noqa: RUF001 two Cyrillic letters
    ("acct-1", "Acct-1"),
    ("acct-1", " acct-1"),
    ("acct-1", "acct-1\n"),
    ("acct-1", "acct\u200b-1"),
    ("acct-1", "acct-1\0"),
    ("fi", "ﬁ"),
    ("1", "１"),  # noqa: RUF001 a wide digit
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_client_ids_are_compared_byte_for_byte(one: str, other: str) -> None:
    """Nothing is normalised: who is who was the gateway's to say; folding letters would join accounts."""
    made = [sketching.record(random.Random(1), 1) | {"client_id": name} for name in (one, other, one)]
    texts = [json.dumps(line, ensure_ascii=place < 2).encode() for place, line in enumerate(made)]  # escaped or not
    records = [sketching.raw(offset, text) for offset, text in enumerate(texts)]
    (frame,) = sketching.build_sketcher().frames("t", 0, "0", records, 1).frames
    first, second, again = frame.rows.client.tolist()
    assert first == again != second


def settings(fitted: Calibrated) -> engine.EngineSettings:
    return engine.EngineSettings(SMALL, fitted.artefacts)


def frame_of(fitted: Calibrated, rows: list[Row], partition: int = 0) -> RowFrame:
    sketcher = Sketcher(fitted.artefacts, world.identity(fitted.secrets), Config())
    texts = lines([row | {"request_id": f"r{number}"} for number, row in enumerate(rows)])
    records = [sketching.raw(offset, text.rstrip()) for offset, text in enumerate(texts)]
    (frame,) = sketcher.frames("gateway-logs", partition, "0", records, 1).frames
    return frame


def invented(ordinary: RowFrame, total: int, **loud: int) -> Iterator[RowFrame]:
    """Ordinary requests, each of a client never seen before. loud : columns filled so as to look like evidence."""
    rng = np.random.default_rng(5)
    for start in range(0, total, FLOOD_FRAME):
        n = min(FLOOD_FRAME, total - start)
        rows = columns.take(ordinary.rows, rng.integers(0, ordinary.rows.count, n))
        rows = rows._replace(
            client=rng.integers(0, 2**64 - 1, n, dtype=np.uint64), offset=np.arange(start, start + n),
            index=np.zeros(n, np.int32),
        )._replace(**{name: np.full_like(getattr(rows, name), value) for name, value in loud.items()})  # fmt: skip
        yield replace(ordinary, rows=rows)


def folded(state: engine.PartitionState, frames: Iterable[RowFrame]) -> list[Event]:
    events = []
    for frame in frames:
        events += engine.step(state, world.placed(frame, int(state.block_offset[0])))
    return events


def part(frame: RowFrame, start: int, stop: int) -> RowFrame:
    return replace(frame, rows=columns.take(frame.rows, np.arange(start, min(stop, frame.rows.count))))


def test_a_million_invented_clients_hide_nobody(fitted: Calibrated) -> None:
    """State stays as small as it may be, those who left are counted, and a client that is half-way through its probing
    when they come is found at the same row, with the same bytes, as without them."""
    attack, ordinary = frame_of(fitted, sweeps(1, 60, seed=6)), frame_of(fitted, benign(2_000, seed=77), 1)
    client = int(attack.rows.client[0])
    alone = engine.open_partition(settings(fitted), 0)
    expected = folded(alone, [part(attack, 0, 3), part(attack, 3, 60)])
    assert max(json.loads(event.value)["level"] for event in expected if event.kind == "throttle") == 4

    state = engine.open_partition(settings(fitted), 0)
    found = folded(state, [part(attack, 0, 3)])
    held = 0
    for frame in invented(ordinary, FLOOD):
        folded(state, [frame])
        held = max(held, sum(table.nbytes for table in state.tables.values()))
    found += folded(state, [part(attack, 3, 60)])
    assert held < 4 * SMALL.state.block_bytes and state.clients < 1_000
    assert state.evicted > FLOOD - 1_000
    assert {e.id: e.value for e in found if e.client_key == client} == {e.id: e.value for e in expected}


def test_who_shouts_is_heard_before_it_crowds_others_out(fitted: Calibrated) -> None:
    """One request may look like evidence, up to what one row can say. Clients with more than that stay; and each of
    those that shout is decided on itself."""
    attack, ordinary = frame_of(fitted, sweeps(1, 60, seed=6)), frame_of(fitted, benign(500, seed=77), 1)
    state = engine.open_partition(settings(fitted), 0)
    folded(state, [part(attack, 0, 8)])
    loud = {"offgrid": 255, "margin": 0, "flags": 15, "tokens_in": 2**31, "novelty": 10**9, "cell": 1}
    shouted = folded(state, invented(ordinary, 2 * FLOOD_FRAME, **loud))
    (table,) = state.tables.values()
    assert state.evicted > FLOOD_FRAME and table.find(int(attack.rows.client[0])) >= 0
    assert len({event.client_key for event in shouted}) == 2 * FLOOD_FRAME


async def test_evictions_are_told(embedded_broker: str, namespace: str, fitted: Calibrated) -> None:
    """In a metric always, in the log whenever they have doubled."""
    config = kafka_config(embedded_broker, namespace).model_copy(update={"state": SMALL.state})
    metrics = Metrics()
    stage = JudgeStage(config, await probe(config.kafka), settings(fitted), metrics)
    partition = Partition(engine.open_partition(settings(fitted), 0))
    stage._partitions = {("t", 0): partition}  # type: ignore[dict-item]
    ordinary = frame_of(fitted, benign(500, seed=77), 1)
    with structlog.testing.capture_logs() as told:
        for frame in invented(ordinary, 4 * FLOOD_FRAME):
            for one in [part(frame, at, at + 256) for at in range(0, FLOOD_FRAME, 256)]:
                folded(partition.state, [one])
                await stage.tick()  # no block is due
    await stage.stop()
    assert 2 <= len(told) <= 8 and {line["log_level"] for line in told} == {"warning"}
    assert f"probewatch_evicted_clients {float(partition.state.evicted)}" in metrics.render().decode()


def decided(events: Iterable[Event], client: int) -> list[tuple[int, str, int]]:
    """Level, time and rows seen of each decision on a client; its place in the log depends on who else stands in it."""
    said = [json.loads(e.value) for e in events if e.kind == "throttle" and e.client_key == client]
    return [(one["level"], one["issued_at"], one["trigger"]["rows_seen"]) for one in said]


@pytest.mark.parametrize("years", [-20, 60])
def test_a_clock_that_is_years_off_is_its_owners_trouble(fitted: Calibrated, years: int) -> None:
    """What is said of others does not change by a byte; the owner is still found by what it does."""
    attacks = [sweeps(1, 40, seed=seed) for seed in (6, 7)]
    off = [years * YEAR_S if place % 7 == 3 else 0 for place in range(40)]
    mine = [row | {"client_id": "late", "ts": row["ts"] + by} for row, by in zip(attacks[1], off, strict=True)]
    both = [row for pair in zip(attacks[0], mine, strict=True) for row in pair]
    other = frame_of(fitted, attacks[0])
    alone = folded(engine.open_partition(settings(fitted), 0), [other])
    found = folded(engine.open_partition(settings(fitted), 0), [frame_of(fitted, both)])
    client = int(other.rows.client[0])
    assert decided(found, client) == decided(alone, client) != []
    assert any(event.client_key != client and event.kind == "alert" for event in found)


def test_a_decision_on_a_clock_years_ahead_holds_from_when_it_was_written() -> None:
    """Else the door would wait for that year, and a client that once got hold of such a clock would go free."""
    now_ms = FINDING.decision.issued_ms
    view = Decisions(clock=lambda: now_ms / 1000 + 60)
    view.heard()
    years = timedelta(days=365 * 70)
    made = throttle(FINDING)
    ahead = msgspec.structs.replace(
        made, **{name: getattr(made, name) + years for name in ("issued_at", "effective_at", "expires_at")}
    )
    view.apply(None, msgspec.json.encode(ahead), now_ms)
    found = view.strictest([made.client], made.model)
    assert found is not None and found.expires_at == made.expires_at == moment(FINDING.decision.expires_ms)
    behind = msgspec.structs.replace(made, revision=made.revision + 1)
    view.apply(None, msgspec.json.encode(behind), now_ms + 3_600_000)
    assert view.strictest([made.client], made.model) == behind
