"""What cannot be read is absent, or held against its client: cases that failed once, and the family of tricks."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.rows import FLAG_LABEL, FLAG_UNJUDGED, FLAG_UNREADABLE, Rows
from streams import replay
from streams.config.config import Config
from streams.history.sources import open_sources
from streams.sketch.identity import Identity
from streams.sketch.sketcher import RawRecord, Sketcher, SketchResult
from tests import loan_day
from tests.hostile_inputs import COUNTED_ROWS, LATER, Seen, Trial
from tests.pipeline import Calibrated
from tests.tricks import Trick, tricks

CASES = Path(__file__).parent / "cases"
EVERY = 19
"""One trick in so many is tried here; `make hostile` tries all. No divisor of the number of forms."""
Decide = Callable[[str], list[tuple[str, int, int]]]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Calibrated:
    return loan_day.calibrated(tmp_path_factory.mktemp("demo"))


@pytest.fixture
def decide(demo: Calibrated) -> Decide:
    """Detector, level and row of each decision in a case."""

    def decided(name: str) -> list[tuple[str, int, int]]:
        sources = open_sources([str(CASES / f"{name}.jsonl")], Config())
        outcome = replay.replay(replay.Plan(sources, Config(), demo.artefacts, demo.secrets))
        bodies = [json.loads(event.value) for event in outcome.events if event.kind == "throttle"]
        return [(body["reason"], body["level"], body["trigger"]["rows_seen"]) for body in bodies]

    return decided


def sketched(demo: Calibrated, *values: bytes) -> SketchResult:
    secrets = demo.secrets
    identity = Identity(secrets.pseudonym_key, secrets.key_id, secrets.projection_seed)
    records = [RawRecord(offset, value, None, (), -1) for offset, value in enumerate(values)]
    return Sketcher(demo.artefacts, identity, Config()).frames("gateway-logs", 3, "0", records, 1)


def rows_of(demo: Calibrated, name: str) -> Rows:
    [frame] = sketched(demo, *(CASES / f"{name}.jsonl").read_bytes().splitlines()).frames
    return frame.rows


def test_a_probe_with_its_names_is_judged_and_found(demo: Calibrated, decide: Decide) -> None:
    rows = rows_of(demo, "probe_plain_names")
    assert rows.flags.tolist() == [FLAG_LABEL] * 40
    assert max(level for _, level, _ in decide("probe_plain_names")) >= 3


@pytest.mark.parametrize("name", ["probe_camel_names", "probe_empty_features"])
def test_renamed_fields_are_told_and_held_against_the_client(demo: Calibrated, decide: Decide, name: str) -> None:
    result = sketched(demo, *(CASES / f"{name}.jsonl").read_bytes().splitlines())
    assert result.unjudged == {"few_fields": 40} and not result.rejects
    [frame] = result.frames
    assert frame.rows.flags.tolist() == [FLAG_UNJUDGED] * 40 and not frame.rows.values.any()
    assert len(set(frame.rows.exact.tolist())) == (40 if name == "probe_camel_names" else 1)
    assert min(row for *_, row in decide(name)) <= 2 * COUNTED_ROWS


def test_python_s_nan_is_a_missing_value(demo: Calibrated, decide: Decide) -> None:
    plain, rows = rows_of(demo, "probe_plain_names"), rows_of(demo, "nan_literal")
    assert (rows.flags & FLAG_UNREADABLE > 0).any() and not (rows.flags & FLAG_UNJUDGED).any()
    differ = (rows.fields != plain.fields).sum(axis=1)
    assert (differ == (rows.flags & FLAG_UNREADABLE > 0)).all(), "one field of each flagged row is missing"
    found = {name: min(row for *_, row in decide(name)) for name in ("probe_plain_names", "nan_literal")}
    assert found["nan_literal"] <= LATER * found["probe_plain_names"]


def test_nan_in_one_of_three_costs_its_neighbours_nothing(demo: Calibrated) -> None:
    [frame] = sketched(demo, (CASES / "nan_in_array_of_three.jsonl").read_bytes()).frames
    assert sorted(frame.rows.flags.tolist()) == [FLAG_LABEL, FLAG_LABEL, FLAG_LABEL | FLAG_UNREADABLE]
    assert frame.rows.index.tolist() == [0, 1, 2]


def test_a_message_of_arrays_holds_all_rows(demo: Calibrated, decide: Decide) -> None:
    """Live it is one message; of a file each line is a record."""
    result = sketched(demo, (CASES / "arrays_one_a_line.jsonl").read_bytes())
    [frame] = result.frames
    assert frame.rows.count == 40 and not result.rejects
    np.testing.assert_array_equal(frame.rows.exact, rows_of(demo, "probe_plain_names").exact)
    assert decide("arrays_one_a_line") == decide("probe_plain_names")


def test_without_request_ids_a_probe_is_found_as_early(demo: Calibrated, decide: Decide) -> None:
    rows = rows_of(demo, "empty_request_id")
    assert [rows.request_id(row) for row in range(40)] == [f"gateway-logs[3]@{row}/0" for row in range(40)]
    assert decide("empty_request_id") == decide("probe_plain_names")


@pytest.fixture(scope="module")
def tried(fitted: Calibrated) -> tuple[Seen, list[tuple[Trick, Seen]]]:
    trial = Trial(fitted)
    return trial.run(None), [(trick, trial.run(trick)) for trick in list(tricks())[::EVERY]]


def test_the_family_is_large() -> None:
    family = list(tricks())
    assert len(family) >= 200 and len({trick.label for trick in family}) == len(family)
    sample = family[::EVERY]
    assert {trick.kind for trick in sample} == {trick.kind for trick in family}
    assert {trick.form for trick in sample} == {trick.form for trick in family}


def test_no_trick_hides_a_request(tried: tuple[Seen, list[tuple[Trick, Seen]]]) -> None:
    _, found = tried
    assert not [(trick.label, seen) for trick, seen in found if seen.unseen]


def test_no_trick_hides_a_probe(tried: tuple[Seen, list[tuple[Trick, Seen]]]) -> None:
    plain, found = tried
    assert plain.found is not None
    assert not [(trick.label, seen) for trick, seen in found if not seen.in_time(plain.found)]
