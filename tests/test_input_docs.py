"""The pages on requests, frames and dead letters name what the code reads and writes."""

import json
from pathlib import Path
from typing import get_args

import pytest

from models.rows import COLUMNS
from streams.adapters import native
from streams.adapters.json_text import NESTING_MAX
from streams.adapters.request import EmbeddingObject, Output, Request
from streams.wire import frames
from streams.wire.dead_letter import OMITTED_HEADER
from streams.wire.rejects import LENGTHS_HEADER, Reason, Record, Reject, dead_letters

DOCS = Path(__file__).parents[1] / "docs" / "formats"
REQUESTS, FRAMES, LETTERS = ((DOCS / f"{page}.md").read_text() for page in ("requests", "frames", "dead-letters"))


@pytest.mark.parametrize("kind", [Request, Output, EmbeddingObject])
def test_every_field_is_explained(kind: type) -> None:
    names: tuple[str, ...] = kind.__struct_fields__  # type: ignore[attr-defined]
    assert names and not [name for name in names if f"`{name}`" not in REQUESTS and f'"{name}"' not in REQUESTS]


def test_the_sample_request_is_read() -> None:
    start = REQUESTS.index("```json") + len("```json")
    request = native.decode(REQUESTS[start : REQUESTS.index("```", start)].encode(), ())
    assert isinstance(request, Request)
    assert request.features and request.output
    assert f"| nesting | {NESTING_MAX} levels |" in REQUESTS


def test_every_column_is_explained() -> None:
    assert not [column.name for column in COLUMNS if f"`{column.name}`" not in FRAMES]
    assert not [key for key in ("schema", *frames.METADATA) if f"| `{key}` |" not in FRAMES]
    assert frames.ROWS_SCHEMA in FRAMES and frames.KIND_HEADER in FRAMES


def test_the_sample_order_is_read() -> None:
    sample = FRAMES[FRAMES.index("```json") + len("```json") :]
    order = json.loads(sample[: sample.index("```")])
    assert set(order) == set(frames._Control.__struct_fields__) and order["schema"] == frames.CONTROL_SCHEMA


def test_every_header_and_reason_is_explained() -> None:
    reject = Reject("gateway-logs", 3, 18842, 0, "embedding", "384 numbers (embedding.dim)", "383 of them", "input")
    [letter] = dead_letters([reject], {18842: Record(None, b"{}", [])}, native.elements)
    names = [name for name, _ in letter.headers]
    known = (*names, LENGTHS_HEADER, OMITTED_HEADER)
    assert len(names) == 6 and not [name for name in known if f"`{name}`" not in LETTERS]
    assert reject.message in LETTERS
    assert not [reason for reason in get_args(Reason) if f"| `{reason}` |" not in LETTERS]
