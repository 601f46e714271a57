"""Blocks of state as bytes: damage is seen without unpacking them, another layout is refused with a way out."""

import random

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
    assert marks == [(PARTITION, block, end) for block in BLOCKS]


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


def test_a_layout_of_another_version_is_not_damage(blocks: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BLOCK_LAYOUT", engine.BLOCK_LAYOUT + 1)
    _, state = fold(cut(history())[:2])
    newer = engine.dump_block(state, 0)
    monkeypatch.undo()
    said = rf"layout {engine.BLOCK_LAYOUT + 1}, this version reads layout {engine.BLOCK_LAYOUT}: .* topics.judge_state"
    with pytest.raises(engine.BlockError, match=said) as told:
        engine.block_mark(newer)
    assert not isinstance(told.value, engine.DamagedBlockError)
