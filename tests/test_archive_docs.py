"""Every query of docs/archive.md, on an archive of two days with two sweepers in it."""

import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from detector.frame import ControlFrame
from models.pseudonym import client_of, pseudonym
from streams.config.config import Config
from streams.history.archive import Message
from streams.history.base import RawBatch
from streams.history.sources import open_sources
from streams.sketch.identity import Identity
from streams.sketch.sketcher import Sketcher
from streams.wire import frames
from tests.archives import archived
from tests.history import benign, sweeps, write_jsonl
from tests.pipeline import Calibrated

QUERIES = re.findall(r"```sql\n(.*?)```", (Path(__file__).parents[1] / "docs/archive.md").read_text(), re.DOTALL)
CONFIG = Config()
PLACEHOLDER = "k1-" + 26 * "a"


@pytest.fixture(scope="module")
def folder(fitted: Calibrated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("archive")
    parts = [benign(300, seed=2, day=day) for day in (0, 1)]
    shared = [row | {"client_id": f"copy-{row['client_id']}"} for row in parts[1][:3]]
    write_jsonl(made / "log.jsonl", *parts, shared, sweeps(2, 60, seed=3, day=1))
    archived(made / "archive", messages(made / "log.jsonl", fitted))
    return made


def messages(log: Path, fitted: Calibrated) -> Iterator[Message]:
    """Frames of 50 records each, with the time of the last of them, and an order behind them."""
    (source,) = open_sources([str(log)], CONFIG)
    sketcher = Sketcher(fitted.artefacts, identity(fitted), CONFIG)
    (batch,) = source.batches()
    assert isinstance(batch, RawBatch)
    offset = 0
    for start in range(0, len(batch.records), 50):
        part = batch.records[start : start + 50]
        for frame in sketcher.frames("gateway-logs", 0, "0", part, 1).frames:
            time_ms = int(frame.rows.time_ms[-1])
            yield Message(0, offset, None, frames.encode(frame), time_ms)
            offset += 1
    order = ControlFrame(0, offset, "lift", 7, pseudonym("k1", 7, bytes(9)), "", 0, "false alarm")
    yield Message(0, offset, None, frames.encode_control(order), time_ms)


def identity(fitted: Calibrated) -> Identity:
    return Identity(fitted.secrets.pseudonym_key, fitted.secrets.key_id, fitted.secrets.projection_seed)


def sweeper(fitted: Calibrated) -> str:
    of = identity(fitted)
    return pseudonym(of.key_id, *of.client("evil-0"))


@pytest.fixture(scope="module")
def answers(folder: Path, fitted: Calibrated) -> list[list[dict[str, object]]]:
    found = []
    with duckdb.connect() as database:
        database.execute(f"SET file_search_path = '{folder}'")
        for query in QUERIES:
            result = database.execute(query.replace(PLACEHOLDER, sweeper(fitted)))
            names = [column[0] for column in result.description or ()]
            found.append([dict(zip(names, row, strict=True)) for row in result.fetchall()])
    return found


def test_there_are_queries_and_each_has_an_answer(answers: list[list[dict[str, object]]]) -> None:
    assert len(answers) == len(QUERIES) >= 8
    assert all(answers[1:])


def test_the_sweepers_stand_out(answers: list[list[dict[str, object]]], fitted: Calibrated) -> None:
    _, amount, most, path, nearest, shared, orders, sizes = answers
    assert [line["model"] for line in amount] == ["loan", "loan"] and amount[0]["day"] < amount[1]["day"]  # type: ignore[operator]
    assert most[0]["inputs"] == most[1]["inputs"] == 60
    assert client_of(sweeper(fitted)) in {most[0]["client"], most[1]["client"]}
    assert len(path) == 60 and all(len(line["changed_fields"]) == 1 for line in path[1:])  # type: ignore[arg-type]
    assert nearest[0]["distance"] < 0.5  # type: ignore[operator]
    assert [line["clients"] for line in shared][:3] == [2, 2, 2]
    assert [line["action"] for line in orders] == ["lift"]
    assert sum(line["share"] for line in sizes) == pytest.approx(1, abs=0.02)  # type: ignore[misc]
