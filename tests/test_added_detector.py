"""A detector is a declaration: added or taken away, it changes no state and no decision of the others.

tests/added_detector.py declares one; a second process has it in its registry, this one does not.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from detector import engine, evidence
from models.artefacts.signing import public_key
from models.artefacts.store import ArtefactError, load_artefacts, save_artefacts
from streams.analyst.events import Alert, decode_event
from streams.wire import frames
from tests import engine_cases as cases
from tests.added_detector import HOPPER, SIGNING_KEY, Given, Result
from tests.pipeline import HANGS_S
from tests.scenarios import run

ROOT = Path(__file__).parents[1]
BLOCKS = range(cases.CONFIG.state.blocks)


class Without(NamedTuple):
    """The same log here. blocks : when half of it was applied; end : when all was."""

    settings: engine.EngineSettings
    log: list[engine.Frame]
    half: int
    first: list[bytes]
    rest: list[bytes]
    end: list[bytes]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Without, Result]:
    folder = tmp_path_factory.mktemp("added")
    save_artefacts(folder / "artefacts", list(run.artefacts().models.values()), {}, SIGNING_KEY)
    fitted = load_artefacts(folder / "artefacts", run.SECRETS.projection_seed, (public_key(SIGNING_KEY),))
    values = [frames.encode(frame) for frame in cases.cut(cases.history())]
    log = [frames.decode(value, 0, offset) for offset, value in enumerate(values)]
    half = len(log) // 4  # by then half of the decisions have fallen
    settings = engine.EngineSettings(cases.CONFIG, fitted)
    state = engine.open_partition(settings, 0)
    first = values_of(state, log[:half])
    blocks = dumped(state)
    rest = values_of(state, log[half:])
    (folder / "given").write_bytes(msgspec.msgpack.encode(Given(values, half, blocks)))
    subprocess.run([sys.executable, "-m", "tests.added_detector", str(folder)], cwd=ROOT, check=True, timeout=HANGS_S)
    result = msgspec.msgpack.decode((folder / "result").read_bytes(), type=Result)
    return Without(settings, log, half, first, rest, dumped(state)), result


def values_of(state: engine.PartitionState, log: list[engine.Frame]) -> list[bytes]:
    return [event.value for frame in log for event in engine.step(state, frame)]


def dumped(state: engine.PartitionState) -> list[bytes]:
    return [engine.dump_block(state, block) for block in BLOCKS]


def test_state_written_without_it_is_loaded_with_it(both: tuple[Without, Result]) -> None:
    without, with_it = both
    assert with_it.first == without.first and with_it.rest == without.rest
    assert len(without.first) > 10 and len(without.rest) > 10


def test_state_written_with_it_is_loaded_without_it(both: tuple[Without, Result]) -> None:
    without, with_it = both
    state = engine.open_partition(without.settings, 0)
    for value in with_it.blocks:
        engine.load_block(state, value)
    assert values_of(state, without.log[without.half :]) == without.rest
    assert dumped(state) == without.end


def test_it_is_off_until_it_is_calibrated_and_named(both: tuple[Without, Result]) -> None:
    _, with_it = both
    assert with_it.off == [HOPPER.name]
    assert with_it.led, "calibrated, it decides"


def test_its_events_have_its_words(both: tuple[Without, Result]) -> None:
    _, with_it = both
    alerts = [event for event in map(decode_event, with_it.led) if isinstance(event, Alert)]
    assert alerts
    for alert in alerts:
        assert alert.title == f"{HOPPER.title}: model {alert.model}"
        attacks = json.loads(alert.raw)["attacks"]
        assert attacks[0]["technique"]["uid"] == HOPPER.techniques[0].id
    assert with_it.meanings == ["hops of equal length", "steps along one line", "hops of equal length, all families"]


def test_artefacts_for_other_kernels_are_refused() -> None:
    (model,) = run.artefacts().models.values()
    other = replace(model.reference, processes=(*model.reference.processes[:-1], "another"))
    with pytest.raises(ArtefactError, match="other kernels; run `probewatch calibrate` again"):
        evidence.nulls(other, 1.0, 0, None)
