"""Blocks of state as bytes: damage is seen without unpacking them, and the last release's are still read."""

import random
import struct

import pytest

from detector import engine
from tests import engine_cases as cases
from tests.engine_cases import PARTITION, cut, fold, history

BLOCKS = range(cases.CONFIG.state.blocks)


@pytest.fixture(scope="module")
def blocks() -> list[bytes]:
    _, state = fold(cut(history()))
    return [engine.dump_block(state, block) for block in BLOCKS]


def test_a_block_tells_where_it_belongs_and_how_far_it_has_come(blocks: list[bytes]) -> None:
    marks = [engine.block_mark(value) for value in blocks]
    end = cut(history())[-1].offset + 1
    assert marks == [(PARTITION, block, end, engine.BLOCK_LAYOUT) for block in BLOCKS]


def test_any_flipped_bit_and_any_lost_byte_is_seen_without_unpacking(blocks: list[bytes]) -> None:
    rng = random.Random(1)
    value = max(blocks, key=len)
    head = [8 * byte + bit for byte in range(engine.BLOCK_HEAD_BYTES) for bit in range(8)]
    for place in [*head, *(rng.randrange(8 * len(value)) for _ in range(500))]:
        damaged = bytearray(value)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(engine.DamagedBlockError):
            engine.block_mark(bytes(damaged))
    for length in [*range(64), *(rng.randrange(len(value)) for _ in range(50))]:
        with pytest.raises(engine.DamagedBlockError):
            engine.block_mark(value[:length])
    with pytest.raises(engine.DamagedBlockError):
        engine.block_mark(value + b"\0")


def test_the_layout_before_checksums_is_read(blocks: list[bytes]) -> None:
    """PWB2: magic, partition, block, offset, body."""
    state = engine.open_partition(cases.settings(), PARTITION)
    for block, value in enumerate(blocks):
        mark = engine.block_mark(value)
        old = struct.pack(">4sIIq", b"PWB2", *mark[:3]) + value[engine.BLOCK_HEAD_BYTES :]
        assert engine.block_mark(old) == (*mark[:3], 2)
        engine.load_block(state, old)
        assert engine.dump_block(state, block) == value
        with pytest.raises(engine.DamagedBlockError):
            engine.block_mark(old[:-1])


def test_a_layout_of_another_version_is_not_damage(blocks: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BLOCK_LAYOUT", engine.BLOCK_LAYOUT + 1)
    _, state = fold(cut(history())[:2])
    newer = engine.dump_block(state, 0)
    monkeypatch.undo()
    said = rf"layout {engine.BLOCK_LAYOUT + 1}, this version reads up to {engine.BLOCK_LAYOUT}: .* topics.judge_state"
    with pytest.raises(engine.BlockError, match=said) as told:
        engine.block_mark(newer)
    assert not isinstance(told.value, engine.DamagedBlockError)
