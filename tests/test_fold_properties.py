"""The same history gives the same bytes, however it is cut, interrupted, told twice or accompanied."""

import json
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detector import engine
from detector.events.finding import Event
from detector.frame import ControlFrame, Frame, RowFrame, ShiftFrame
from models.kernels.numbers import NEVER
from models.pseudonym import pseudonym
from streams.config.config import Config
from streams.worker.state_topic import Stored
from tests import engine_cases as cases
from tests.engine_cases import PARTITION, Unit, Worker, about, cut, fold, history, newcomers, said, told
from tests.scenarios import run, world

few = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
lengths = st.lists(st.integers(1, 80), max_size=12)
BLOCKS = range(cases.CONFIG.state.blocks)
DAY_MS = 86_400_000


def order(action: str, name: str, until_ms: int) -> ControlFrame:
    keys, tails = cases.identity().clients([name])
    client = int(keys[0])
    return ControlFrame(
        PARTITION, 0, action, client, pseudonym("k1", client, tails[0].tobytes()), "", until_ms, "spoken to"
    )  # fmt: skip


def moved(by: int, day: int) -> ShiftFrame:
    """How far everybody has moved, as `link` says after so many days."""
    (space,) = cases.settings().spaces.values()
    until_ms = int(history()[0].frame.rows.time_ms.min()) + day * DAY_MS
    vector = tuple(by * (i % 5) for i in range(space.artefact.encoder.dim))
    return ShiftFrame(PARTITION, 0, space.artefact.model, space.artefact.space, until_ms - 1, until_ms, 300, vector)


def log() -> list[Frame]:
    """The history in frames of at most 15 rows, with orders of people and shifts between them."""
    frames: list[Frame] = list(cut(history(), [15] * 1000))
    end_ms = int(history()[-1].frame.rows.time_ms.max()) + DAY_MS
    third = len(frames) // 3
    frames.insert(2 * third, order("lift", "sweeper", 0))
    frames.insert(third, order("allow", "collector", end_ms))
    frames.insert(third, order("block", "sweeper", end_ms))
    for place, by in enumerate((30, -200, 500, 450)):
        frames.insert((place + 1) * len(frames) // 6, moved(by, place))
    return [replace(frame, offset=offset) for offset, frame in enumerate(frames)]


def values(kind: str) -> list[dict[str, Any]]:
    events = [json.loads(whole) for whole in told().values()]
    return [json.loads(event["value"]) for event in events if event["kind"] == kind]


def test_the_history_is_of_interest() -> None:
    """Equality of nothing with nothing proves nothing: all levels, all detectors, alerts, decisions after expiry."""
    decided = values("throttle")
    assert {one["level"] for one in decided} == {1, 2, 3, 4}
    assert {one["reason"] for one in decided} == {detector.name for detector in cases.REGISTRY}
    assert max(one["revision"] for one in decided) >= 4
    assert len(values("drift")) >= 4
    assert len(values("alert")) >= 5 and len(suspects()) >= 8
    assert len({unit.frame.source_name for unit in history()}) == 2
    assert {unit.client % len(BLOCKS) for unit in history()} == set(BLOCKS)
    orders, state = fold(log())
    assert not orders.keys() >= told().keys()  # the allowance silences
    assert any(b'\\"action\\":\\"lift\\"' in whole for whole in orders.values())
    (space,) = state.tables.values()
    clients = space.table.clients[space.table.places[space.table.places >= 0]]
    for name in ("cells", "gap_ms", "tokens_today", "explained_rows", "member_rows", "explained_today", "rows_minute"):
        assert np.count_nonzero(clients[name] > 0) >= 5, name
    assert np.abs(space.table.moved).max() > 1 << 16 and np.count_nonzero(clients["page"] >= 0) >= 5
    bets = space.table.bets[space.table.places[space.table.places >= 0]]
    assert np.count_nonzero(bets > NEVER, axis=0).min() >= 10


@few
@given(lengths)
def test_any_cutting_gives_the_same_bytes(sizes: list[int]) -> None:
    assert fold(cut(history(), sizes))[0] == told()


@few
@given(lengths)
def test_rows_of_several_raw_partitions_in_one_frame_give_the_same_bytes(sizes: list[int]) -> None:
    frames = cut(history(), sizes, together=True)
    assert any(len(set(frame.rows.source.tolist())) > 1 for frame in frames)
    assert fold(frames)[0] == told()


@few
@given(st.integers(0, 10_000), lengths)
def test_any_race_between_raw_partitions_gives_the_same_bytes(seed: int, sizes: list[int]) -> None:
    """Each client stands in one raw partition; which of them is read faster does not matter."""
    mixed = cases.shuffled(history(), seed)
    assert [unit.client for unit in mixed] != [unit.client for unit in history()]
    assert fold(cut(mixed, sizes))[0] == told()


Script = list[tuple[str, int]]
acts = st.one_of(
    st.tuples(st.sampled_from(["go", "zombie goes", "die before saying"]), st.integers(1, 12)),
    st.tuples(st.sampled_from(["write", "zombie writes", "die while writing"]), st.integers(1, len(BLOCKS))),
    st.tuples(st.sampled_from(["commit", "die", "stall", "hand over", "lose", "take back", "hand back"]), st.just(0)),
)


def live(frames: list[Frame], script: Script) -> tuple[list[Event], Worker]:
    """All that was ever said: by a worker, by those who took over, by a stalled one that wakes, and by one that gets
    the partition back and remembers it. Partitions go in order ("hand over", "hand back") or without a word."""
    stored: list[bytes] = []
    worker = zombie = former = Worker(frames, stored, 0)
    events: list[Event] = []
    committed = 0
    for act, n in script:
        if act == "go":
            events += worker.process(n)
        elif act == "write":
            worker.write_round(n / len(BLOCKS))
        elif act == "commit":
            committed = worker.committable
        elif act == "zombie goes":
            events += zombie.process(n)
        elif act == "zombie writes":
            zombie.write_round(n / len(BLOCKS))
        elif act in ("hand over", "lose", "take back", "hand back"):
            if act.startswith("hand"):
                worker.release()
                committed = worker.committable
            back = act.endswith("back")
            former, worker = worker, former.taken_back(committed) if back else Worker(frames, stored, committed)
        else:  # somebody else takes over
            if act == "die before saying":
                worker.step(n)
            if act == "die while writing":
                worker.begin_to_write(n / len(BLOCKS))
                committed = worker.committable
            zombie = worker if act == "stall" else zombie
            worker = Worker(frames, stored, committed)
    return events + worker.process(len(frames)), worker


@few
@given(st.lists(acts, max_size=40))
def test_any_stops_restarts_and_zombies_give_the_same_bytes(script: Script) -> None:
    """Blocks are written at different times, frames read again from the committed offset; zombies write old blocks."""
    expected, undisturbed = fold(log())
    events, worker = live(log(), script)
    assert said(events) == expected
    for block in BLOCKS:
        assert engine.dump_block(worker.partition.state, block) == engine.dump_block(undisturbed, block)


FORGETFUL: Script = [("go", 12), ("hand over", 0), ("go", 12), ("hand back", 0)]


def test_memory_is_no_good_behind_what_others_have_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever goes on from memory whatever was committed meanwhile loses rows in this script: the property can fail."""
    expected = fold(log())[0]
    assert said(live(log(), FORGETFUL)[0]) == expected
    idle: Script = [("go", 12), ("hand over", 0), ("hand back", 0)]
    first, second = (live(log()[:12], script[:count])[1] for script, count in ((idle, 1), (idle, 3)))
    assert first.partition.next == second.partition.next == 12
    assert 0.0 not in second.partition.written_at.values(), "from memory: nothing was loaded"
    monkeypatch.setattr(cases.Partition, "goes_on_from", lambda *_: True)
    assert said(live(log(), FORGETFUL)[0]) != expected


def test_nothing_is_committable_behind_events_before_their_blocks_are_written() -> None:
    """Events travel while the next frames are judged; blocks are dumped when they have arrived."""
    one, told_of = cases.Partition(engine.open_partition(cases.settings(), cases.PARTITION)), 0
    for frame in log():
        events = one.step(frame)
        one.next = frame.offset + 1
        if events:
            told_of += 1
            assert one.committable <= frame.offset
            blocks = list(one.unwritten)
            for block in blocks:
                one.dump(block)
            assert one.committable <= frame.offset and not one.unwritten
            one.written(blocks, 1.0)
            assert one.committable == one.next
    assert told_of > 20


def test_blocks_with_decisions_are_written_soon_and_no_more_of_them_than_of_others() -> None:
    one = cases.Partition(engine.open_partition(cases.settings(), cases.PARTITION))
    for frame in log():
        one.step(frame)
    known = set(one.unwritten)
    for block in known:
        one.dump(block)
    one.written(known, 10.0)
    assert not one.decided and cases.due([one], 10.0, 1.0) == {}, "all were written after that"
    one.decided = {block: -float(block) for block in sorted(known)}
    assert cases.due([one], 10.0, 1 / len(known)) == {one: [max(known)]}, "the longest waiting, and one only"
    stale = cases.due([one], 11.0, 2 / len(known))[one]
    assert len(stale) <= 4 and {max(known), sorted(known)[-2]} <= set(stale)


DYING: Script = [("go", 22), ("die while writing", len(BLOCKS))]


def test_what_is_still_on_its_way_is_not_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever commits behind blocks that are not acknowledged loses rows in this script: the property can fail."""
    expected = fold(log())[0]
    assert said(live(log(), DYING)[0]) == expected
    monkeypatch.setattr(
        cases.Partition, "committable", property(lambda one: min(one.unwritten.values(), default=one.next))
    )
    assert said(live(log(), DYING)[0]) != expected


LATE_ZOMBIE: Script = [
    ("go", 18), ("stall", 0), ("go", 22), ("write", 8), ("commit", 0), ("zombie writes", 8), ("die", 0),
]  # fmt: skip


def test_the_furthest_mark_counts_not_the_last_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recovering from what was written last loses rows in the same script: the property can fail."""
    expected = fold(log())[0]
    assert said(live(log(), LATE_ZOMBIE)[0]) == expected

    def keep_last(stored: Stored, value: bytes) -> None:
        stored.blocks[engine.block_mark(value).block] = value

    monkeypatch.setattr(Stored, "keep", keep_last)
    assert said(live(log(), LATE_ZOMBIE)[0]) != expected


@few
@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=8), lengths)
def test_frames_delivered_again_change_nothing(repeats: list[tuple[int, int]], sizes: list[int]) -> None:
    """After some frames, the last few of them come once more."""
    frames = cut(history(), sizes)
    state = engine.open_partition(cases.settings(), PARTITION)
    events: list[Event] = []
    at = twice = 0
    for forward, back in [*repeats, (len(frames), 3)]:
        begun, at = at, min(len(frames), at + forward)
        again = frames[max(0, at - back) : at]
        for frame in frames[begun:at] + again:
            events += engine.step(state, frame)
        twice += sum(frame.rows.count for frame in again)
    assert said(events) == told() and len(events) == len(told())
    assert state.skipped == twice > 0


def resent(places: list[tuple[int, int]]) -> list[Unit]:
    """The history, stretches of it told twice: up to `place`, then on from `back` rows before it."""
    rows: list[Unit] = []
    begin = 0
    for place, back in sorted(places):
        rows += history()[begin:place]
        begin = max(0, place - back)
    return [*rows, *history()[begin:]]


@few
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 200)), min_size=1, max_size=6), lengths)
def test_rows_sent_again_in_other_cuts_at_new_offsets_change_nothing(
    places: list[tuple[int, int]], sizes: list[int]
) -> None:
    """A sketch that died sends rows again; the frames are new, the positions in the raw log are not."""
    rows = resent(places)
    found, state = fold(cut(rows, sizes))
    assert found == told()
    assert state.skipped == len(rows) - len(history())


def test_an_engine_that_forgets_its_marks_counts_twice() -> None:
    """The properties above can fail."""
    state = engine.open_partition(cases.settings(), PARTITION)
    events: list[Event] = []
    for frame in cut(resent([(place, 40) for place in range(40, 600, 20)])):
        for table in state.tables.values():
            table.table.mark_offset[:] = -1
            table.table.clients["receipt_count"] = 0
        events += engine.step(state, frame)
    assert said(events) != told()  # more rows seen, at the least


def delivered_again(rows: Iterable[Unit], by: int) -> list[Unit]:
    """The same requests further on in the log."""
    return [replace_rows(unit, unit.frame.rows._replace(offset=unit.frame.rows.offset + by)) for unit in rows]


@few
@given(st.lists(st.tuples(st.integers(1, 900), st.integers(1, 900)), max_size=5), lengths)
def test_a_log_delivered_several_times_gives_the_events_of_once(
    places: list[tuple[int, int]], sizes: list[int]
) -> None:
    """Gateways deliver at least once: stretches of the log, and then all of it twice over, at offsets of their own."""
    rows, begin = list[Unit](), 0
    for number, (place, back) in enumerate(sorted(places)):
        rows += delivered_again(history()[begin:place], 100_000 * number)
        begin = max(0, place - back)
    rows += delivered_again(history()[begin:], 100_000 * len(places))
    whole = [*rows, *delivered_again(history(), 1_000_000), *delivered_again(history(), 2_000_000)]
    found, state = fold(cut(whole, sizes))
    assert [content(event) for event in found.values()] == [content(event) for event in told().values()] != []
    assert state.redelivered == len(whole) - len(history())


def content(event: bytes) -> Any:
    """All of an event that does not come from where in the log its request stands."""
    decoded = json.loads(event)
    return {name: decoded[name] for name in ("kind", "client_key", "time_ms", "model", "detector", "level")}


def test_a_late_row_is_judged_while_there_are_receipts_of_those_before() -> None:
    """Nothing is known again by its time alone before a page of receipts is full."""
    ((busiest, _),) = Counter(unit.client for unit in history()).most_common(1)
    rows = [unit for unit in history() if unit.client == busiest]
    late = [at(unit, int(unit.frame.rows.time_ms[unit.row]) - 5_000) for unit in rows[1:]]
    assert 10 < len(rows) < 256
    assert fold(cut([rows[0], *late]))[1].redelivered == 0


@cache
def suspects() -> list[int]:
    """Clients of whom something is said."""
    return sorted({int(json.loads(whole)["client_key"]) for whole in told().values()})


@few
@given(st.integers(0, 1000), st.integers(0, 10_000), st.integers(-20, 70))
def test_others_cannot_change_what_is_said_of_a_client(one: int, seed: int, years: int) -> None:
    """Some stay away, others come, and their clocks are decades off. Below capacity."""
    client, rng = suspects()[one % len(suspects())], random.Random(seed)
    present = {other for other in {unit.client for unit in history()} if rng.random() < 0.5} | {client}
    rows = [unit if unit.client == client else later(unit, years) for unit in history() if unit.client in present]
    for unit in newcomers():
        rows.insert(rng.randint(0, len(rows)), unit) if rng.random() < 0.5 else None
    found, state = fold(cut(rows))
    assert state.evicted == 0
    assert about(client, found) == about(client, told()) != {}


def later(unit: Unit, years: int) -> Unit:
    rows = unit.frame.rows
    return replace_rows(unit, rows._replace(time_ms=rows.time_ms + years * 365 * DAY_MS))


def replace_rows(unit: Unit, rows: Any) -> Unit:
    return Unit(replace(unit.frame, rows=rows), unit.row)


@few
@given(st.integers(0, 10_000))
def test_a_clients_time_never_goes_back(seed: int) -> None:
    """Records out of order are judged as if they had come at the latest time the client had shown. Inputs that a client
    sends twice are left out: at one time they would be one request, delivered twice."""
    rng = random.Random(seed)
    latest: Counter[int] = Counter()
    disordered, ordered = [], []
    sent = set[tuple[int, int]]()
    for unit in history():
        input_of = unit.client, int(unit.frame.rows.exact[unit.row])
        if input_of in sent:
            continue
        sent.add(input_of)
        time_ms = int(unit.frame.rows.time_ms[unit.row])
        shown = time_ms - rng.choice((0, 0, 0, 5_000, 3 * DAY_MS, 400 * DAY_MS)) if latest[unit.client] else time_ms
        latest[unit.client] = max(latest[unit.client], shown)
        disordered.append(at(unit, shown))
        ordered.append(at(unit, latest[unit.client]))
    assert fold(cut(disordered))[0] == fold(cut(ordered))[0] != {}


def at(unit: Unit, time_ms: int) -> Unit:
    return replace_rows(unit, unit.frame.rows._replace(time_ms=np.full_like(unit.frame.rows.time_ms, time_ms)))


def test_judging_and_dumping_change_neither_frames_nor_state() -> None:
    frames = cut(history())
    before = [{name: column.copy() for name, column in frame.rows._asdict().items()} for frame in frames]
    state = engine.open_partition(cases.settings(), PARTITION)
    events: list[Event] = []
    for frame in frames:
        events += engine.step(state, frame)
        dumped = [engine.dump_block(state, block) for block in BLOCKS]
        assert dumped == [engine.dump_block(state, block) for block in BLOCKS]
    assert said(events) == told()
    for frame, columns in zip(frames, before, strict=True):
        for name, column in columns.items():
            assert np.array_equal(getattr(frame.rows, name), column, equal_nan=column.dtype.kind == "f"), name
    restored = engine.open_partition(cases.settings(), PARTITION)
    for block in BLOCKS:
        engine.load_block(restored, dumped[block])
    assert [engine.dump_block(restored, block) for block in BLOCKS] == dumped


@few
@given(st.integers(0, 60), st.integers(0, 80))
def test_an_old_block_may_be_put_in_place_of_a_newer_one(early: int, late: int) -> None:
    """Going back: nothing of what the state had learnt since stays in it, no client, no mark, no allowance."""
    frames = log()
    state = engine.open_partition(cases.settings(), PARTITION)
    for frame in frames[:early]:
        engine.step(state, frame)
    dumped = [engine.dump_block(state, block) for block in BLOCKS]
    for frame in frames[early : early + late]:
        engine.step(state, frame)
    for block in BLOCKS:
        engine.load_block(state, dumped[block])
    assert [engine.dump_block(state, block) for block in BLOCKS] == dumped
    whole = fold(frames[:early])[0] | said(event for frame in frames[early:] for event in engine.step(state, frame))
    assert whole == fold(frames)[0]


@settings(few, max_examples=5)
@given(st.integers(0, 10_000))
def test_a_full_block_lets_the_same_clients_go_however_it_is_cut_and_restored(seed: int) -> None:
    """Who leaves depends on evidence, clock and key, never on the order in which memory holds them."""
    rng = random.Random(seed)
    expected, undisturbed = crowded(cut(crowd()), set())
    frames = cut(crowd(), [rng.randint(1, 50) for _ in range(100)])
    found, state = crowded(frames, set(rng.sample(range(len(frames)), 6)))
    assert found == expected != {}
    assert (
        engine.dump_block(state, 0)[engine.BLOCK_HEAD_BYTES :]
        == engine.dump_block(undisturbed, 0)[engine.BLOCK_HEAD_BYTES :]
    )  # but for the offset
    assert undisturbed.evicted > 200 and undisturbed.clients < 200


@cache
def crowd() -> tuple[Unit, ...]:
    lines = world.benign(450, seed=33) + run.records("sweep", "attack") + run.records("boundary", "attack")
    return cases.units(sorted(lines, key=lambda line: line["ts"]))


def crowded(frames: list[RowFrame], restarts: set[int]) -> tuple[cases.Said, engine.PartitionState]:
    """One block of the least size. A restart restores it and reads the last frames again."""
    config = Config.model_validate({"state": {"blocks": 1, "block_bytes": 65_536}})
    small = engine.EngineSettings(config, run.artefacts())
    state = engine.open_partition(small, PARTITION)
    events: list[Event] = []
    for place, frame in enumerate(frames):
        events += engine.step(state, frame)
        if place in restarts:
            dumped = engine.dump_block(state, 0)
            state = engine.open_partition(small, PARTITION)
            engine.load_block(state, dumped)
            events += [event for again in frames[: place + 1][-4:] for event in engine.step(state, again)]
    return said(events), state
