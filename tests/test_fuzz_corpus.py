"""The fuzz targets on their corpus: what fuzzing found stays mended, and the corpus still reaches what it should."""

import importlib
from pathlib import Path

import pytest

from detector import engine
from detector.frame import RowFrame
from streams.wire import frames
from streams.wire.rejects import Fault
from tests.fuzz import run, world
from tests.fuzz.frame import unsealed

CORPUS = Path(run.FOLDER) / "corpus"
BYTES_MAX = 300_000


@pytest.mark.parametrize("target", run.TARGETS)
def test_no_input_breaks_its_target(target: str) -> None:
    check = importlib.import_module(f"tests.fuzz.{target}").check
    inputs = sorted((CORPUS / target).iterdir())
    assert len(inputs) >= 5
    for path in inputs:
        try:
            check(path.read_bytes())
        except Exception as error:
            raise AssertionError(f"{path.name} breaks {target}") from error


def test_the_corpus_is_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < BYTES_MAX


def test_targets_can_fail() -> None:
    """An oracle that nothing fails proves nothing."""
    check = importlib.import_module("tests.fuzz.adapter")._check_fault
    with pytest.raises(AssertionError):
        check(Fault("features.secret", "a number", "a string", "type"))


def test_the_corpus_reaches_the_folds() -> None:
    """A new layout or wire format turns seeds into noise: write them anew with `python -m tests.fuzz.seeds`."""
    judged = loaded = 0
    for path in (CORPUS / "frame").iterdir():
        try:
            judged += isinstance(frames.decode(unsealed(path.read_bytes()), 0, 1), RowFrame)
        except frames.FrameError:
            continue
    for path in (CORPUS / "block").iterdir():
        value = path.read_bytes()
        state = engine.open_partition(world.settings(), 0)
        try:
            engine.load_block(state, engine.seal(value[1:], 0, 0, 1) if value[:1] == b"\x01" else value)
        except engine.BlockError:
            continue
        loaded += state.clients > 0
    assert judged >= 2 and loaded >= 1
