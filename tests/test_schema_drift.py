"""News about the population: samples and shares, the fold of `link`, and what `judge` then leaves out."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from detector import engine, engine_batch, link
from detector.events.finding import Event
from detector.frame import CloseFrame, Frame, ResultFrame, RowFrame
from detector.link_fold import Closed, DamagedStateError
from detector.schema_drift import clients, fold, shares
from detector.schema_drift.news import News, frame_of, news_of
from examples.alert_schema import validate_alert
from models.rows import FLAG_UNREADABLE, Rows, blank_rows
from streams.config.config import Config
from tests import engine_cases
from tests.drift_cases import in_turn, mixed, take

SCHEMA = Draft202012Validator(json.loads((Path(__file__).parents[1] / "docs/formats/drift.schema.json").read_text()))
SPACE = "loan@0123456789abcdef"
PARTITIONS = 3
MINUTES, CHANGE = 40, 20
BEGIN_MS = 1_735_776_000_000
PEOPLE = np.random.default_rng(99).integers(0, 2**63, 300).astype(np.uint64)


class Encoder(NamedTuple):
    field_names: tuple[str, ...] = ("age", "device", "income")
    categories: frozenset[int] = frozenset({1})


class Reference(NamedTuple):
    odd_shares: np.ndarray = np.full((3, 32), 2_000)


ENCODER, REFERENCE = Encoder(), Reference()


@dataclass(frozen=True)
class Model:
    model: str = "loan"
    space: str = SPACE
    encoder: Encoder = ENCODER
    reference: Reference = REFERENCE


@dataclass(frozen=True)
class Artefacts:
    hash: str = "facade00facade00"
    models: dict[str, Model] = field(default_factory=lambda: {"loan": Model()})


def new_fold() -> fold.SchemaDriftFold:
    return fold.SchemaDriftFold(Config(), Artefacts())  # type: ignore[arg-type]


def minute(number: int, share: float, *, odd: int = 2, offgrid: int = 0, flags: int = 0, rows: int = 60) -> Rows:
    """One minute in order of time. share : of the clients whose rows have these bits from CHANGE on."""
    rng = np.random.default_rng(number)
    who = rng.integers(0, len(PEOPLE), rows)
    changed = (who < share * len(PEOPLE)) & (number >= CHANGE)
    return blank_rows(
        rows, 3, 3,
        offset=np.arange(rows) + number * 1_000, client=PEOPLE[who],
        time_ms=np.sort(BEGIN_MS + number * 60_000 + rng.integers(0, 60_000, rows)),
        odd=np.where(changed, odd, 0).astype(np.uint32), offgrid=np.where(changed, offgrid, 0).astype(np.uint32),
        flags=np.where(changed, flags, 0).astype(np.uint16),
    )  # fmt: skip


def logs(share: float = 0.2, **bits: int) -> list[list[RowFrame]]:
    """Of each partition, a frame a minute."""
    found: list[list[RowFrame]] = [[] for _ in range(PARTITIONS)]
    for number in range(MINUTES):
        rows = minute(number, share, **bits)
        for partition, log in enumerate(found):
            part = take(rows, rows.client % PARTITIONS == partition)
            log.append(RowFrame(partition, len(log), "loan", SPACE, "raw[0]", "k1", part))
    return found


def told(parts: list[list[RowFrame]]) -> Closed:
    """What one fold says, closing as event time goes on."""
    one, events, frames = new_fold(), list[Event](), list[object]()
    for frame in in_turn(parts):
        one.step([frame])
        until_ms = one.due(())
        if until_ms is not None:
            closed = one.close(until_ms)
            events += closed.events
            frames += closed.frames
    return Closed(events, frames, 0)  # type: ignore[arg-type]


LOGS = logs()


# Samples


@given(st.integers(0, 2**32), st.integers(1, 400))
@settings(max_examples=40, deadline=None)
def test_a_sample_is_the_least_clients_with_all_their_bits_in_any_order(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    client = rng.choice(PEOPLE, n)
    signals = (1 << rng.integers(0, 32, (n, 3))).astype(np.uint32)
    expected: dict[int, np.ndarray] = {}
    for key, bits in zip(client.tolist(), signals, strict=True):
        expected[key] = expected.get(key, np.zeros(3, np.uint32)) | bits
    least = sorted(expected)[: clients.SAMPLED_CLIENTS]
    held = clients.NOBODY
    for part in np.array_split(rng.permutation(n), min(n, 7)):
        ((_, sample),) = clients.samples(np.zeros(len(part), np.int64), client[part], signals[part])
        held = clients.merged(clients.merged(held, sample), sample)
    assert held.client.tolist() == least
    assert held.signals.tolist() == [expected[key].tolist() for key in least]


# Shares and the test


def test_the_test_is_the_binomial_one_exactly() -> None:
    for found, of, share in ((8, 64, 2_000), (13, 64, 20_000), (30, 190, 100_000), (64, 64, 900_000)):
        p = Fraction(share, 1_000_000)
        tail = sum(comb(of, k) * p**k * (1 - p) ** (of - k) for k in range(found, of + 1))
        assert shares.is_news(found, of, share) == (tail < Fraction(1, 1_000_000) and found * 10 >= of)
        assert shares.p_value(found, of, share) == float(tail)
    assert not shares.is_news(7, 10, 1), "seven clients are too few"
    assert not shares.is_news(8, 81, 1), "less than a tenth"
    assert shares.is_news(8, 80, 1)


def test_shares_are_of_client_hours_and_a_category_of_one_client_is_unseen() -> None:
    """Field 1 holds a value that one client alone sends, in one of its two hours; field 0, of numbers, likewise."""
    n = 400
    rows = blank_rows(
        n, 2, 2, client=PEOPLE[np.arange(n) % 100], time_ms=np.arange(n) // 200 * 3_600_000,
        fields=np.tile(np.array([5, 6], np.uint16), (n, 1)),
    )  # fmt: skip
    rows.fields[0] = 7
    rows.odd[rows.client == PEOPLE[3]] = 1
    found = shares.reference_shares([rows], frozenset({1}))
    assert found[0, :2].tolist() == [3 * 1_000_000 // 202, 2 * 1_000_000 // 202]
    assert found.min() == 1_000_000 // 202 and found.shape == (3, 32)
    assert shares.reference_shares([], frozenset()).min() == 500_000, "nothing is known: nothing is news"


# The fold


@pytest.mark.parametrize(
    ("bits", "statistic", "name", "masks"),
    [
        ({"odd": 2}, "unseen_categories", "device", (2, 0, 0)),
        ({"odd": 4}, "beyond_range", "income", (4, 0, 0)),
        ({"odd": 0, "offgrid": 1}, "off_grid", "age", (0, 1, 0)),
        ({"odd": 0, "flags": FLAG_UNREADABLE}, "unreadable", None, (0, 0, FLAG_UNREADABLE)),
    ],
)
def test_it_is_told_once_and_names_field_kind_and_clients(
    bits: dict[str, int], statistic: str, name: str | None, masks: tuple[int, int, int]
) -> None:
    closed = told(logs(**bits))
    (frame,) = closed.frames
    assert isinstance(frame, ResultFrame) and news_of(frame) == News(SPACE, *masks)
    assert [event.kind for event in closed.events] == ["drift", "alert"]
    record, alert = (msgspec.json.decode(event.value) for event in closed.events)
    assert (record["statistic"], record.get("field"), record["state"]) == (statistic, name, "lasts")
    assert 8 <= record["clients"] <= record["of_clients"] and record["after"] >= 0.1 > record["before"]
    since_ms = BEGIN_MS + CHANGE * 60_000
    assert frame.until_ms - since_ms <= 4 * 60_000 and record["since"] == "2025-01-02T00:20:00Z"
    SCHEMA.validate(record)
    assert not validate_alert(closed.events[1].value) and (name or "unreadable") in alert["message"]


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_what_few_clients_send_is_no_news(share: float) -> None:
    assert told(logs(share)) == Closed([], [], 0)


@pytest.mark.parametrize("seed", range(6))
def test_order_redelivery_and_restarts_change_no_byte(seed: int) -> None:
    """Partitions in any order, frames twice, the state stored and read: the same events and frames."""
    rng = np.random.default_rng(seed)
    one, said = _state(), list[tuple[str, bytes]]()
    for frame, behind in mixed(LOGS, seed):
        one.step([frame])
        if rng.random() < 0.3:
            one.step([frame])
        if rng.random() < 0.1:
            stored = one.dump()
            one = _state()
            one.load(stored)
            assert one.dump() == stored
        for close in one.due(behind):
            said += _said(one.folds[0].close(close.until_ms))
    whole = _state()
    whole.step(in_turn(LOGS))
    expected = _said(whole.close_due())
    assert sorted(said) == sorted(expected) and len(expected) == 3


def _state() -> link.LinkState:
    return link.LinkState([new_fold()], PARTITIONS)


def _said(closed: Closed) -> list[tuple[str, bytes]]:
    frames = [(frame.about, frame.body) for frame in closed.frames if isinstance(frame, ResultFrame)]
    return [(event.id, event.value) for event in closed.events] + frames


def test_rows_behind_a_close_frame_are_late_for_every_reader() -> None:
    one = new_fold()
    one.step([CloseFrame(0, 0, BEGIN_MS + 60_000 * 30, "schema_drift"), *LOGS[0][:30]])
    assert one.late == sum(frame.rows.count for frame in LOGS[0][:30])


def test_damaged_states_are_refused_and_other_spaces_dropped() -> None:
    one = new_fold()
    one.step(in_turn(LOGS)[:80])
    stored = one.dump()
    with pytest.raises(DamagedStateError):
        new_fold().load(stored[:-3])
    other = fold.SchemaDriftFold(Config(), Artefacts(models={}))  # type: ignore[arg-type]
    other.load(stored)
    assert len(other.dump()) < len(stored) / 2


def test_results_of_others_and_forged_ones_are_no_news() -> None:
    assert news_of(ResultFrame(0, 0, "minutes", "1", 0, b"{}")) is None
    for body in (b"{}", b"[]", b'{"space":"a","odd":-1}', b'{"space":"a","odd":4294967296}', b"\xff"):
        assert news_of(ResultFrame(0, 0, "schema_drift", "a", 0, body)) is None
    assert news_of(frame_of(News("a", 1, 2, 16), 0)) == News("a", 1, 2, 16)


# What judge makes of it


def events_of(state: engine.PartitionState, frames: list[Frame]) -> Iterator[tuple[str, bytes]]:
    for frame in frames:
        for event in engine.step(state, frame):
            yield event.id, event.value


def log_with_news() -> list[Frame]:
    """Everybody's attacks; two rows in three are odd in the first field, which is news from the middle on."""
    rows = engine_cases.cut(engine_cases.history())
    for frame in rows:
        frame.rows.odd[:] = np.where(frame.rows.client % 3, 1, 0)
    space = rows[0].space
    news: list[Frame] = [frame_of(News(space, 1, 0xFFFFFFFF), 0)]
    middle = len(rows) // 2
    return [
        replace(frame, partition=0, offset=offset)
        for offset, frame in enumerate([*rows[:middle], *news, *news, *rows[middle:]])
    ]


def test_judged_in_parts_and_from_blocks_the_events_are_the_same() -> None:
    frames = log_with_news()
    whole = list(events_of(engine.open_partition(engine_cases.settings(), 0), frames))
    without = list(
        events_of(engine.open_partition(engine_cases.settings(), 0), [f for f in frames if isinstance(f, RowFrame)])
    )
    assert len(whole) > 10 and dict(whole) != dict(without), "the news matters"
    for cut in (3, len(frames) // 2, len(frames) // 2 + 1, len(frames) - 2):
        first = engine.open_partition(engine_cases.settings(), 0)
        said = list(events_of(first, frames[:cut]))
        second = engine.open_partition(engine_cases.settings(), 0)
        for block in range(engine_cases.CONFIG.state.blocks):
            engine.load_block(second, engine.dump_block(first, block))
        said += events_of(second, frames[max(0, cut - 2) :])
        assert said == whole, cut
    together = engine_batch.step(engine.open_partition(engine_cases.settings(), 0), frames)
    assert {event.id: event.value for event in together} == dict(whole)


def test_what_is_muted_is_no_evidence_and_what_it_fed_is_forgotten() -> None:
    """Novelty, coverage and grids of a client end with the frame; its other evidence goes on."""
    frames = log_with_news()
    at = next(place for place, frame in enumerate(frames) if isinstance(frame, ResultFrame))
    state = engine.open_partition(engine_cases.settings(), 0)
    list(events_of(state, frames[:at]))
    ((_, table),) = state.tables.items()
    fed, other = table.table.bets[: table.count, 1:5].copy(), table.table.bets[: table.count, 5:].copy()
    engine.step(state, frames[at])
    assert fed.max() > 0 and (table.table.bets[: table.count, 1:5] == -100_000).all()
    assert np.array_equal(table.table.bets[: table.count, 5:], other) and state.dirty
    batch = table.batch(
        max((frame.rows for frame in frames if isinstance(frame, RowFrame)), key=lambda rows: rows.count)
    )
    odd = batch.client % 3 > 0
    assert np.isnan(batch.novelty[odd]).all() and not batch.cell[odd].any() and not batch.surprisal[odd, 0].any()
    assert not batch.offgrid.any() and (~np.isnan(batch.novelty[~odd])).any() and batch.surprisal[:, 1].any()
