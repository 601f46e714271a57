"""Delivered again is not done again; and what is done again is counted, however alike it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.loan_gateway.model import NAME
from streams import replay
from streams.config.config import Config
from streams.fit.history import read
from streams.history.sources import open_sources
from streams.progress import Silent
from streams.sketch.identity import Identity
from tests import loan_day
from tests.pipeline import Calibrated

CASES = Path(__file__).parent / "cases"
Judge = Callable[[Path], replay.Outcome]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Calibrated:
    return loan_day.calibrated(tmp_path_factory.mktemp("demo"))


@pytest.fixture
def judge(demo: Calibrated) -> Judge:
    def judged(path: Path) -> replay.Outcome:
        config = Config()
        return replay.replay(replay.Plan(open_sources([str(path)], config), config, demo.artefacts, demo.secrets))

    return judged


def told(outcome: replay.Outcome) -> list[tuple[str, str, int, int]]:
    """What was decided: on whom, why, at which level, at which of the client's rows."""
    decided = [json.loads(event.value) for event in outcome.events if event.kind == "throttle"]
    return [(one["client"], one["reason"], one["level"], one["trigger"]["rows_seen"]) for one in decided]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_cases_of_requotes(judge: Judge) -> None:
    """Seventeen re-quotes of an ordinary customer, once and sent three times, as lines and as arrays."""
    once, thrice, arrays = (
        judge(CASES / f"requote_{name}.jsonl") for name in ("once", "sent_three_times", "sent_three_times_arrays")
    )
    assert told(once) == told(thrice) == told(arrays) != []
    assert max(level for _, _, level, _ in told(once)) == 1, "watched, no more"
    assert [one.summary["redelivered_rows"] for one in (once, thrice, arrays)] == [0, 34, 34]


def test_a_retry_that_is_logged_under_new_ids_counts_once(judge: Judge, tmp_path: Path) -> None:
    once = lines(CASES / "requote_once.jsonl")
    retried = [line | {"request_id": f"{line['request_id']}-{turn}"} for line in once for turn in range(3)]
    assert told(judge(loan_day.write(tmp_path / "retried.jsonl", tuple(retried)))) == told(
        judge(CASES / "requote_once.jsonl")
    )


def test_a_benign_day_that_is_delivered_three_times_says_what_it_says_once(judge: Judge, tmp_path: Path) -> None:
    day = loan_day.day()
    once, thrice = (judge(loan_day.write(tmp_path / f"{n}.jsonl", *[day] * n)) for n in (1, 3))
    assert told(thrice) == told(once)
    assert [one.summary["redelivered_rows"] for one in (once, thrice)] == [0, 2 * len(day)]


def flood(ts: list[float]) -> tuple[dict[str, Any], ...]:
    (first, *_) = lines(CASES / "requote_once.jsonl")
    return tuple(first | {"request_id": f"f-{n}", "ts": first["ts"] + at} for n, at in enumerate(ts))


def test_a_flood_of_one_request_is_decided_on(judge: Judge, tmp_path: Path) -> None:
    """Twenty thousand identical requests in 200 s: repeats decide too."""
    outcome = judge(loan_day.write(tmp_path / "flood.jsonl", flood([n / 100 for n in range(20_000)])))
    decided = told(outcome)
    assert {reason for _, reason, _, _ in decided} == {"volume"}
    assert max(level for _, _, level, _ in decided) >= 3


def test_in_a_log_of_whole_seconds_equal_requests_of_a_second_are_one(judge: Judge, tmp_path: Path) -> None:
    outcome = judge(loan_day.write(tmp_path / "flood.jsonl", flood([n // 100 for n in range(2_000)])))
    assert outcome.summary["redelivered_rows"] == 2_000 - 20


def test_history_that_was_delivered_twice_is_the_history_of_once(demo: Calibrated, tmp_path: Path) -> None:
    """A calibration on a log of an at-least-once gateway promises what the log of once does."""
    day, config = loan_day.day()[:3_000], Config()
    identity = Identity(demo.secrets.pseudonym_key, demo.secrets.key_id, demo.secrets.projection_seed)
    once, twice = (
        read(
            open_sources([str(loan_day.write(tmp_path / f"{n}.jsonl", *[day] * n))], config),
            config, identity, demo.artefacts, Silent(),
        )
        for n in (1, 2)
    )  # fmt: skip
    assert twice.records == 2 * once.records == 6_000 and twice.row_count == once.row_count == 3_000
    for name in ("offset", "client", "time_ms", "exact", "values"):
        whole = (np.concatenate([getattr(part, name) for part in one.rows[NAME]]) for one in (once, twice))
        assert np.array_equal(*whole), name
