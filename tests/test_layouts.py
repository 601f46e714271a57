"""State that the last release wrote is read: a partition and a `link` go on with the events of an undisturbed fold."""

import hashlib
import struct
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
import zstandard

from detector import engine, evidence
from detector.drift import fold as drift
from detector.events.finding import Event
from detector.state import migrations
from models.artefacts.signing import public_key
from models.artefacts.store import load_artefacts
from models.kernels import layout
from streams.wire import frames
from tests import drift_cases, engine_cases
from tests.scenarios import run

SIGNING_KEY = bytes(range(64, 96))
GOLDEN = Path(__file__).parent / "golden"
BLOCK_FINGERPRINTS = {4: "1bd6feb473ed6b9c"}
"""Of what stands in a block. When it changes: raise engine.BLOCK_LAYOUT, add a step to layouts.BLOCKS, pin it here."""

LINK_FINGERPRINTS = {1: "59f6610495c4199b", 2: "4665728006495f2b"}


class Golden(NamedTuple):
    """A partition that layout 2 wrote. reached : frames applied. said : ids of the events that it gave to the rest."""

    settings: engine.EngineSettings
    blocks: list[bytes]
    reached: int
    frames: list[Any]
    said: list[str]


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Golden:
    packed = (GOLDEN / "partition-layout-2.zst").read_bytes()
    stored = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(packed))
    folder = tmp_path_factory.mktemp("artefacts")
    for name, content in stored["artefacts"].items():
        (folder / name).write_bytes(content)
    fitted = load_artefacts(folder, run.SECRETS.projection_seed, (public_key(SIGNING_KEY),))
    settings = engine.EngineSettings(engine_cases.CONFIG, fitted)
    log = [frames.decode(value, 0, offset) for offset, value in enumerate(stored["frames"])]
    return Golden(settings, stored["blocks"], stored["reached"], log, stored["said"])


def step(state: engine.PartitionState, log: list[Any]) -> list[Event]:
    return [event for frame in log for event in engine.step(state, frame)]


def test_a_partition_goes_on_from_the_blocks_of_the_last_release(golden: Golden) -> None:
    undisturbed = engine.open_partition(golden.settings, 0)
    step(undisturbed, golden.frames[: golden.reached])
    state = engine.open_partition(golden.settings, 0)
    for value in golden.blocks:
        assert engine.block_mark(value).layout == 2
        engine.load_block(state, value)
    (table,) = state.tables.values()
    heads = table.table.heads
    assert min(heads[layout.ANCHOR_BUMP], heads[layout.PAGE_BUMP], heads[layout.RING_BUMP]) > 5, "of interest"
    assert state.allowed and state.shift
    for block in range(len(golden.blocks)):
        assert engine.dump_block(state, block) == engine.dump_block(undisturbed, block)
    expected = step(undisturbed, golden.frames[golden.reached :])
    found = step(state, golden.frames[golden.reached :])
    assert engine_cases.said(found) == engine_cases.said(expected)
    assert {event.id for event in found} == set(golden.said) and len(golden.said) > 10


def test_link_goes_on_from_the_state_of_the_last_release() -> None:
    hours = drift_cases.changed(60, 40, lambda n: drift_cases.hour(n, 240, score=1.0))
    log = drift_cases.in_turn(drift_cases.logs(hours))
    expected = drift_cases.told(log)
    state = drift.load(drift_cases.settings(), (GOLDEN / "link-layout-1.bin").read_bytes())
    found = []
    for frame in log[len(log) // 2 :]:
        drift.step(state, frame)
        found += drift.close_due(state).events
    assert len(found) >= 5
    assert [event.value for event in found] == [event.value for event in expected.events][-len(found) :]


def test_there_is_a_step_from_every_layout_since_the_last_release() -> None:
    assert set(migrations.BLOCKS) == set(range(2, engine.BLOCK_LAYOUT))
    assert set(migrations.LINK) == set(range(1, drift.STATE_LAYOUT))


def test_steps_are_taken_one_after_the_other(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_reasons(body: migrations.Body) -> migrations.Body:
        return body | {"allowed": [[key, model, until + 1] for key, model, until in body["allowed"]]}

    def again(body: migrations.Body) -> migrations.Body:
        return body | {"allowed": [[key, model, 2 * until] for key, model, until in body["allowed"]]}

    state, newer = (engine.open_partition(golden.settings, 0) for _ in range(2))
    for value in golden.blocks:
        engine.load_block(state, value)
    monkeypatch.setattr(engine, "BLOCK_LAYOUT", 5)
    monkeypatch.setattr(migrations, "BLOCKS", {2: migrations.unchanged, 3: with_reasons, 4: again})
    for value in golden.blocks:
        engine.load_block(newer, value)
    assert newer.allowed == {about: 2 * (until + 1) for about, until in state.allowed.items()} != {}


def test_a_layout_without_a_step_is_refused_with_the_way_out(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    state = engine.open_partition(golden.settings, 0)
    engine.load_block(state, golden.blocks[0])
    today = engine.dump_block(state, 0)
    monkeypatch.setattr(engine, "BLOCK_LAYOUT", 5)
    with pytest.raises(engine.BlockError, match=r"layout 4.* go on with the version .* topics.judge_state"):
        engine.block_mark(today)
    with pytest.raises(drift.StateError, match=r"layout 7, this version reads up to 2.* topics.link_state"):
        drift.reached(b"PWL7" + struct.pack("<i", 0))


def test_what_is_stored_changes_only_with_its_number() -> None:
    records = [layout.CLIENT, layout.ENTRY, layout.ANCHOR, layout.PAGE]
    parts: list[object] = [record.descr for record in records]
    parts += [layout.CLIENT_PROCESSES, evidence.PROCESSES, evidence.JOINT, layout.ID_BYTES, layout.VARIANTS_KNOWN]
    table = engine.open_partition(engine_cases.settings(), 0).table(next(iter(engine_cases.settings().spaces)))
    columns = table.table._asdict()
    del columns["leaving"]  # to work in
    parts += [(name, column.dtype.descr, column.shape[1:]) for name, column in columns.items()]
    assert BLOCK_FINGERPRINTS.get(engine.BLOCK_LAYOUT) == fingerprint(parts)
    assert LINK_FINGERPRINTS.get(drift.STATE_LAYOUT) == fingerprint([msgspec.json.schema(drift._Stored)])


def fingerprint(parts: list[object]) -> str:
    text = repr([part.tolist() if isinstance(part, np.ndarray) else part for part in parts])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
