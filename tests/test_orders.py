"""A person's block: refused at once and until its end, whatever the judge says; taken back; replayed alike."""

import asyncio
import itertools
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from detector import engine
from detector.events.finding import Event
from detector.frame import ControlFrame, Frame
from models.pseudonym import client_of, pseudonym
from probewatch_door.decisions import Decisions
from probewatch_door.record import Throttle
from streams.kafka import topics
from streams.ops import orders
from streams.wire import frames
from tests import engine_cases as cases
from tests.history import sweeps
from tests.kafka_config import kafka_config
from tests.pipeline import (
    RAW_PARTITIONS,
    Calibrated,
    all_handled,
    offline,
    read_events,
    read_topic,
    until,
    write_raw,
)
from tests.test_worker import working

SCHEMA = Draft202012Validator(json.loads((Path(__file__).parents[1] / "docs/formats/throttle.schema.json").read_text()))
UNSEEN = pseudonym("k1", 77, bytes(9))
GIVEN_MS = 1_700_000_000_000
END_MS = GIVEN_MS + 86_400_000


def order(action: str, name: str = UNSEEN, *, model: str = "", until_ms: int = END_MS, given_ms: int = GIVEN_MS) -> (
    ControlFrame
):  # fmt: skip
    return ControlFrame(0, -1, action, client_of(name), name, model, until_ms, "ticket 12", given_ms)


def placed(found: Iterable[Frame]) -> list[Frame]:
    return [replace(frame, offset=offset) for offset, frame in enumerate(found)]


def fold(found: Iterable[Frame], state: engine.PartitionState | None = None) -> list[Event]:
    state = state or engine.open_partition(cases.settings(), cases.PARTITION)
    return [event for frame in found for event in engine.step(state, frame)]


def records(found: Iterable[Event]) -> list[Throttle]:
    return [msgspec.json.decode(event.value, type=Throttle) for event in found if event.kind == "throttle"]


def test_a_block_is_a_record_of_a_persons_own_and_no_alert() -> None:
    (event,) = fold(placed([order("block")]))
    (record,) = records([event])
    assert list(SCHEMA.iter_errors(json.loads(event.value))) == []
    assert event.key.decode() == f"client:{UNSEEN}::person"
    assert (record.action, record.level, record.mode, record.reason, record.origin) == (
        "block", 4, "enforce", "person", "person"
    )  # fmt: skip
    assert (record.issued_at.timestamp() * 1000, record.expires_at.timestamp() * 1000) == (GIVEN_MS, END_MS)
    assert record.limits.requests_per_minute is None and record.revision == 1


@pytest.mark.parametrize(("action", "revision"), [("lift", 2), ("allow", 2)])
def test_what_came_later_ends_it(action: str, revision: int) -> None:
    found = records(fold(placed([order("block"), order(action, given_ms=GIVEN_MS + 5), order(action)])))
    assert [(record.action, record.revision) for record in found] == [("block", 1), ("lift", revision)]
    assert found[1].expires_at >= found[0].expires_at, "the record that ends it outlives it"


def test_orders_about_one_model_and_about_all() -> None:
    log = [order("block", model="loan"), order("block", model="fraud"), order("lift", model="loan"), order("block")]
    found = records(fold(placed([*log, order("lift")])))
    assert [(record.model, record.action, record.revision) for record in found] == [
        ("loan", "block", 1), ("fraud", "block", 1), ("loan", "lift", 2), ("", "block", 1),
        ("", "lift", 2), ("fraud", "lift", 2),
    ]  # fmt: skip


def test_the_judge_goes_on_as_if_nothing_had_been_ordered() -> None:
    """The same decisions about everybody; and a block joins the incident that the client has open."""
    rows = cases.cut(cases.history())
    names = sorted({record.client for record in records(fold(placed(rows)))})
    middle = len(rows) // 2
    with_order = placed([*rows[:middle], *[order("block", name) for name in names], *rows[middle:]])
    found = fold(with_order)
    blocks = [record for record in records(found) if record.origin == "person"]
    assert {record.client for record in blocks} == set(names) and len(names) > 5
    assert len([event for event in found if b'"origin":"person"' not in event.value]) == len(fold(placed(rows)))
    mine = {record.finding_uid for record in records(found) if record.origin == "judge"}
    assert sum(record.finding_uid in mine for record in blocks) > 3


def test_it_survives_restarts_and_frames_that_come_again() -> None:
    log = placed([order("block"), order("block", until_ms=END_MS + 1), order("lift"), order("block")])
    expected = [event.value for event in fold(log)]
    assert [record.revision for record in records(fold(log))] == [1, 2, 3, 4]
    for cut in range(len(log) + 1):
        first, second = (engine.open_partition(cases.settings(), cases.PARTITION) for _ in range(2))
        said = [event.value for event in fold(log[:cut], first)]
        for block in range(cases.CONFIG.state.blocks):
            engine.load_block(second, engine.dump_block(first, block))
        assert said + [event.value for event in fold(log, second)] == expected, "what lies below a mark says nothing"


@given(st.integers(-(2**62), 2**62), st.integers(-(2**62), 2**62), st.sampled_from(["block", "lift", "allow"]))
def test_no_forged_order_stops_a_judge(until_ms: int, given_ms: int, then: str) -> None:
    log = placed([order("block", until_ms=until_ms, given_ms=given_ms), order(then, given_ms=until_ms)])
    read = [frames.decode(frames.encode_control(frame), 0, frame.offset) for frame in log]
    assert read == log
    assert len(fold(read)) >= 1


def test_orders_without_a_time_are_read() -> None:
    """As the first version wrote them."""
    value = frames.encode_control(order("allow")).replace(b',"given_ms":1700000000000', b"")
    assert b"given_ms" not in value
    assert frames.decode(value, 0, 7) == replace(order("allow", given_ms=0), offset=7)


def test_doors_refuse_until_it_is_lifted_whatever_the_judge_decides_meanwhile() -> None:
    view = Decisions(clock=lambda: GIVEN_MS / 1000 + 60)
    view.heard()
    (blocked, lifted) = fold(placed([order("block"), order("lift")]))
    view.apply(blocked.key, blocked.value)
    assert _action(view) == "block"
    by_judge = msgspec.structs.replace(
        records([blocked])[0], origin="judge", model="loan", action="lift", level=0, revision=99
    )
    view.apply(by_judge.key.encode(), msgspec.json.encode(by_judge))
    assert _action(view) == "block"
    view.apply(lifted.key, lifted.value)
    assert _action(view) is None


def _action(view: Decisions) -> str | None:
    found = {view.strictest([UNSEEN], model) for model in ("loan", "fraud", None)}
    actions = {one.action if one else None for one in found}
    assert len(actions) == 1
    return next(itertools.chain(actions))


async def test_live_and_replayed_alike_and_doors_have_it(broker: str, namespace: str, fitted: Calibrated) -> None:
    """A block in the middle of an attack, and its end: the worker's bytes are those of a replay of its frames."""
    config = kafka_config(broker, namespace)
    await topics.create(config, RAW_PARTITIONS)
    rows = sweeps(2, 60, seed=6)
    commands = [("block", "evil-0", 0), ("block", "acct-never-seen", 0), ("lift", "evil-0", 60)]
    async with working(config, fitted):
        for action, client, first in commands:
            await write_raw(config, rows[first : first + 60] if client == "evil-0" else [])
            await until(lambda: all_handled(config), "rows")
            until_ms = END_MS if action == "block" else 0
            await asyncio.to_thread(orders.send, config, fitted.secrets, action, client, "", until_ms, "ticket 12")
        await until(lambda: all_handled(config), "orders")
    written = await read_events(config)
    expected = await offline(config, fitted, config.topics.requests)
    assert {name: values.pop() for name, values in written.values.items() if len(values) == 1} == expected
    by_person = [record for record in map(_record, expected.values()) if record is not None]
    assert sorted((record.action, record.revision) for record in by_person) == [("block", 1), ("block", 1), ("lift", 2)]
    kept = {record.key.decode(): record.value for record in await read_topic(config, config.topics.throttle_state)}
    assert {key.split(":")[-1] for key in kept} == {"judge", "person"}


def _record(value: bytes) -> Throttle | None:
    if b'"origin":"person"' not in value:
        return None
    return msgspec.json.decode(value, type=Throttle)
