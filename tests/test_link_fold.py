"""A second fold of `link`, registered by a test: what holds for drift holds for it, and drift does not notice it."""

import asyncio
import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from detector import link
from detector.drift import fold as drift_fold
from detector.drift.fold import DriftFold
from detector.events.finding import Event
from detector.frame import RESULT_BYTES_MAX, CloseFrame, Frame, LinkFrame, ResultFrame
from detector.link_fold import DamagedStateError, LinkFold, StateError
from detector.schema_drift import fold as schema_drift_fold
from detector.schema_drift.fold import SchemaDriftFold
from streams import replay
from streams.config.config import Config
from streams.history.archive import Message
from streams.history.sources import open_sources
from streams.wire import frames
from tests import drift_cases
from tests.archives import archived
from tests.drift_cases import HOUR_MS, PARTITIONS, changed, hour, in_turn, logs, mixed
from tests.history import write_jsonl
from tests.link_folds.minutes import MinuteFold
from tests.pipeline import Calibrated, read_events, read_topic
from tests.test_link import configured, handed_over, history

ROWS = history(at=10)[:2_000]
"""Twenty-five hours."""

LOGS = logs(changed(34, 20, lambda number: hour(number, score=1.0)))


def both() -> link.LinkState:
    folds: list[LinkFold] = [DriftFold(drift_cases.settings()), MinuteFold()]
    return link.LinkState(folds, PARTITIONS)


def is_of_minutes(value: bytes) -> bool:
    return value.startswith(b'{"fold":"minutes"')


def values(events: list[Event]) -> dict[str, bytes]:
    return {event.id: event.value for event in events}


# Live and in a replay


async def test_a_second_fold_says_the_same_live_after_restarts_and_zombies_and_in_every_replay(
    embedded_broker: str, namespace: str, fitted: Calibrated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(embedded_broker, namespace)
    requests = f"kafka://{embedded_broker}/{config.topics.requests}"
    with monkeypatch.context() as patch:
        patch.setattr(link, "REGISTRY", (*link.REGISTRY, MinuteFold.of))
        await handed_over(config, fitted, ROWS)
        live = {name: value for name, (value,) in (await read_events(config)).values.items()}
        minutes = {name: value for name, value in live.items() if is_of_minutes(value)}
        assert len(minutes) > 300 and len(live) > len(minutes)
        messages = await read_topic(config, config.topics.requests)
        archived(tmp_path / "archive", [Message(m.partition, m.offset, None, m.value) for m in messages])
        for source in (requests, str(tmp_path / "archive")):
            assert await asyncio.to_thread(replayed, config, fitted, source) == live, source
        write_jsonl(tmp_path / "day.jsonl", ROWS)
        raw = await asyncio.to_thread(replayed, config, fitted, str(tmp_path / "day.jsonl"))
        assert raw.items() <= live.items() and len(live) - len(raw) < 60, "clocks of one raw partition end earlier"
        decoded = [frames.decode(m.value, m.partition, m.offset) for m in messages]
        assert_results_stand_everywhere(config, fitted, decoded)
    drift = {name: value for name, value in live.items() if name not in minutes}
    assert await asyncio.to_thread(replayed, config, fitted, requests) == drift, "drift does not notice the other fold"


def replayed(config: Config, fitted: Calibrated, source: str) -> dict[str, bytes]:
    """Events of `link`."""
    plan = replay.Plan(open_sources([source], config), config, fitted.artefacts, fitted.secrets)
    events = replay.replay(plan).events
    return values([event for event in events if not event.client_key])


def assert_results_stand_everywhere(config: Config, fitted: Calibrated, decoded: list[Frame]) -> None:
    """Each partition holds the results that an uninterrupted fold of the log gives."""
    state = link.LinkState.of(config, fitted.artefacts)
    state.step(decoded)
    expected = {(frame.about, frame.body) for frame in state.close().frames if isinstance(frame, ResultFrame)}
    assert len(expected) > 300
    for partition in range(config.topics.partitions):
        written = [f for f in decoded if isinstance(f, ResultFrame) and f.partition == partition]
        assert {(frame.about, frame.body) for frame in written} == expected


# The same bytes


def uninterrupted() -> list[Event]:
    state, events = both(), []
    for frame in in_turn(LOGS):
        state.step([frame])
        events += state.close_due().events
    return events


EXPECTED = values(uninterrupted())


@hypothesis_settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_order_redelivery_and_restarts_change_no_byte_of_any_fold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    state, events = both(), []
    for frame, behind in mixed(LOGS, seed):
        state.step([frame])
        if rng.random() < 0.3:
            state.step([frame])
        if rng.random() < 0.1:
            value = state.dump()
            assert link.reached(value) == state.next
            state = both()
            state.load(value)
            assert state.dump() == value
        for close in state.due(behind):
            for fold in state.folds:
                if fold.name == close.fold:
                    events += fold.close(close.until_ms).events
    assert values(events) == EXPECTED
    assert sum(map(is_of_minutes, EXPECTED.values())) > 300 and not all(map(is_of_minutes, EXPECTED.values()))


def test_each_fold_closes_by_its_own_close_frames_and_asks_for_each_once() -> None:
    state = both()
    state.step(in_turn(LOGS)[: len(LOGS[0])])
    asked = state.due()
    assert [close.fold for close in asked] == ["drift", "minutes"]
    assert asked[0].until_ms % HOUR_MS == 0 != asked[1].until_ms % HOUR_MS
    assert state.due() == [] and state.close().windows == 0
    for partition in range(PARTITIONS):
        state.step([CloseFrame(partition, 1_000, asked[1].until_ms, "minutes")])
    closed = state.close()
    assert closed.events and all(is_of_minutes(event.value) for event in closed.events)
    assert state.cuts["drift"] == {} and state.close().windows == 0


def test_a_fold_that_is_added_begins_where_link_stands_and_one_that_is_removed_is_dropped() -> None:
    frames_in_order = in_turn(LOGS)
    alone = link.LinkState([DriftFold(drift_cases.settings())], PARTITIONS)
    alone.step(frames_in_order[:90])
    added = both()
    added.load(alone.dump())
    added.step(frames_in_order)
    assert added.next == {partition: len(log) for partition, log in enumerate(LOGS)}
    rows = sum(frame.rows.count for frame in frames_in_order[90:])
    assert sum(added.folds[1]._open.values()) == rows  # type: ignore[attr-defined]
    removed = link.LinkState([DriftFold(drift_cases.settings())], PARTITIONS)
    removed.load(added.dump())
    assert removed.next == added.next and removed.folds[0].dump() == added.folds[0].dump()


def test_a_state_that_a_fold_cannot_read_is_damaged() -> None:
    state = both()
    state.folds[1].dump = lambda: b"\xc1"  # type: ignore[method-assign]
    with pytest.raises(DamagedStateError):
        both().load(state.dump())


# As bytes

FINGERPRINTS = {
    ("link", 1): "be27c25db131c5fb",
    ("drift", 1): "70ae02cef85afc36",
    ("schema_drift", 1): "6047d7e1a53317bd",
}
"""Of what is stored, by layout. When one changes, raise the layout's number and pin the new one here."""


def test_what_is_stored_changes_only_with_its_layout() -> None:
    stored = {
        ("link", link.STATE_LAYOUT): link._Stored,
        ("drift", DriftFold.layout): drift_fold._Stored,
        ("schema_drift", SchemaDriftFold.layout): schema_drift_fold._Stored,
    }
    assert {key: fingerprint(kind) for key, kind in stored.items()} == FINGERPRINTS


def fingerprint(kind: type) -> str:
    return hashlib.sha256(repr(msgspec.json.schema(kind)).encode()).hexdigest()[:16]


def test_another_layout_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    value = both().dump()
    with pytest.raises(StateError, match=r"state has layout 7, this version reads layout 1: .*topics.link_state"):
        link.reached(value[:3] + b"7" + value[4:])
    monkeypatch.setattr(DriftFold, "layout", 9)
    with pytest.raises(StateError, match=r"fold drift has layout 1, this version reads layout 9: .*topics.link_state"):
        both().load(value)


# On the wire


@pytest.mark.parametrize(
    "frame",
    [CloseFrame(2, 7, 60_000, "minutes"), ResultFrame(2, 7, "minutes", "29", 60_000, b'{"rows":[1,{"a":"\xc3\xa9"}]}')],
)
def test_what_link_writes_reads_back(frame: LinkFrame) -> None:
    value = frames.encode_control(frame)
    assert frames.decode(value, 2, 7) == frame
    for old, new in ((b'"fold":"minutes",', b""), (b"60000", b"7e30"), (b"}", b"")):
        with pytest.raises(frames.FrameError):
            frames.decode(value.replace(old, new), 2, 7)


def test_a_result_that_is_too_long_is_neither_written_nor_read() -> None:
    body = b'"' + b"x" * RESULT_BYTES_MAX + b'"'
    with pytest.raises(frames.FrameError, match="65538 bytes; at most 65536"):
        frames.encode_control(ResultFrame(0, 0, "minutes", "", 0, body))
    short = frames.encode_control(ResultFrame(0, 0, "minutes", "", 0, b'"y"'))
    with pytest.raises(frames.FrameError, match="65538 bytes; at most 65536"):
        frames.decode(short.replace(b'"y"', body), 0, 0)
