"""The pages on formats name what the code writes."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from detector.detectors.__main__ import page
from detector.detectors.atlas import API_ACCESS, EROSION
from detector.events.encode import events
from probewatch_door.asgi import ProbewatchDoor
from probewatch_door.limits import ANSWERS
from probewatch_door.record import Limits, Position, Throttle
from streams.analyst.labels import Label
from streams.analyst.suppress import Suppression, suppression_of
from tests.findings import FINDING

DOCS = Path(__file__).parents[1] / "docs"
THROTTLE, ALERTS, DOORS = (
    (DOCS / page).read_text() for page in ("formats/throttle.md", "formats/alerts.md", "doors.md")
)


@pytest.mark.parametrize("kind", [Throttle, Limits, Position])
def test_every_throttle_field_is_explained(kind: type) -> None:
    fields: tuple[str, ...] = kind.__struct_fields__  # type: ignore[attr-defined]
    assert fields
    assert not [name for name in fields if f"`{name}`" not in THROTTLE]


def test_the_throttle_sample_is_what_the_code_writes() -> None:
    start = THROTTLE.index("```json") + len("```json")
    assert json.loads(THROTTLE[start : THROTTLE.index("```", start)]) == json.loads(events(FINDING)[0].value)


def test_every_technique_is_explained() -> None:
    """Those of detectors by `page`, which is generated."""
    assert (DOCS / "detectors/README.md").read_text() == page()
    assert all(f"{each.id} ({each.name})" in page() for each in (API_ACCESS, EROSION))
    assert API_ACCESS.id in ALERTS


def test_every_header_is_explained() -> None:
    names = [name for name, _ in events(FINDING)[1].headers]
    assert names
    assert not [name for name in names if f"`{name}`" not in ALERTS]


def test_every_argument_of_the_door_and_its_metric_are_explained() -> None:
    arguments = set(ProbewatchDoor.__init__.__annotations__) - {"app", "return"}
    assert len(arguments) >= 6
    assert not [name for name in arguments if f"`{name}`" not in DOORS]
    assert {metric.name for metric in ANSWERS.collect()} == {"probewatch_door_requests"}
    assert "probewatch_door_requests_total" in DOORS


def test_the_feedback_page_shows_records_that_are_read_and_names_every_field() -> None:
    page = (DOCS / "formats/feedback.md").read_text()
    samples = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    for kind, sample in zip((Label, Suppression), samples, strict=True):
        record = msgspec.json.decode(sample, type=kind)
        assert json.loads(msgspec.json.encode(record)) == json.loads(sample)
        assert not [name for name in kind.__struct_fields__ if f"`{name}`" not in page]
    noon = datetime(2023, 11, 14, 12, tzinfo=UTC)
    made = suppression_of("", "loan", "offgrid", noon, "", noon)
    assert json.loads(samples[1])["suppression_id"] == made.suppression_id
