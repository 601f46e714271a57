"""Every detector finds its attack, keeps silent at its look-alike, has a slow twin and a page."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from detector import engine, policy
from detector.detectors import REGISTRY, Detector
from detector.evidence import PROCESSES
from models.rows import Rows
from tests import engine_cases as cases
from tests import fold_cases
from tests.reference.fold import NEVER, SlowFold
from tests.scenarios import run

PAGES = Path(__file__).parents[1] / "docs" / "detectors"
PARTS = (
    "Finds",
    "Statistic",
    "Null",
    "Looks alike and is not",
    "Evaded by",
    "Answer",
    "Cost",
    "Needs",
    "Limits",
    "Sources",
)
every = pytest.mark.parametrize("detector", REGISTRY, ids=lambda detector: detector.name)


@every
def test_the_attack_is_found(detector: Detector) -> None:
    """By this detector, at least at the level that limits, and exactly as accepted."""
    outcome = run.replayed(run.records(detector.name, "attack"))
    found = run.told(outcome.events)
    assert any(one["reason"] == detector.name and one["level"] >= 2 for one in found)
    assert run.as_text(found) == accepted(detector.name, "attack"), "make accept shows what moved, and accepts it"


@every
def test_the_lookalike_stays_silent(detector: Detector) -> None:
    """All of it was judged, and nothing was said."""
    records = run.records(detector.name, "lookalike")
    outcome = run.replayed(records)
    assert outcome.summary["rows"] == len(records) > 5 and not outcome.rejects
    assert outcome.events == []
    assert accepted(detector.name, "lookalike") == ""


def accepted(detector: str, kind: str) -> str:
    return run.expected(detector, kind).read_text()


class Decided(NamedTuple):
    client: int
    level: int
    reason: str
    rows: int


@every
@pytest.mark.parametrize("kind", run.KINDS)
def test_the_slow_twin_decides_the_same(detector: Detector, kind: str) -> None:
    """With the tables that calibration fitted; and a look-alike gives this detector something to think about."""
    units = cases.units(run.records(detector.name, kind))
    state = engine.open_partition(cases.settings(), cases.PARTITION)
    events = [event for frame in cases.cut(units) for event in engine.step(state, frame)]
    fast = [
        Decided(event.client_key, one["level"], one["reason"], one["rows"])
        for event, one in zip((e for e in events if e.kind == "throttle"), run.told(events), strict=True)
    ]
    ((name, space),) = cases.settings().spaces.items()
    costs = state.tables[name].table.costs.tolist()
    slow = SlowFold(fold_cases.as_tables(space.nulls), cases.CONFIG.state.blocks, state.tables[name].capacity, costs)
    decided, most = twin_decisions(slow, units)
    assert decided == fast
    own = [place for place, process in enumerate(PROCESSES) if process.detector == detector.name]
    assert own and max(most[place] for place in own) > 0


def twin_decisions(slow: SlowFold, units: tuple[cases.Unit, ...]) -> tuple[list[Decided], list[int]]:
    """Decisions, the policy's part by the policy; and the most evidence that each process ever had."""
    standing: dict[int, policy.ClientStanding] = {}
    decided: list[Decided] = []
    most = [NEVER] * len(PROCESSES)
    for unit in units:
        verdict = slow.apply(as_row(unit.frame.rows, unit.row))
        assert verdict is not None
        most = [max(pair) for pair in zip(most, verdict.evidence, strict=True)]
        if verdict.level:
            client, detector = slow.clients[unit.client], PROCESSES[verdict.lead].detector
            before = standing.get(client.key, policy.ClientStanding(0, 0, 0, 0, 0))
            _, after = policy.decide(
                cases.CONFIG.policy, before, verdict.level, detector, client.clock_ms, client.key
            )  # fmt: skip
            standing[client.key] = after
            client.level, client.expires_ms = after.level, after.expires_ms
            decided.append(Decided(client.key, verdict.level, detector, client.rows))
    return decided, most


def as_row(rows: Rows, place: int) -> dict[str, Any]:
    names = (
        "source", "offset", "index", "client", "client_class", "time_ms", "exact", "values", "fields", "surprisal",
        "offgrid", "odd",
        "output", "score", "margin", "novelty", "cell", "tokens_in", "tokens_out", "flags", "append_ms",
    )  # fmt: skip
    return {name: getattr(rows, name)[place].tolist() for name in names} | {
        "request_id": rows.request_id(place).encode()
    }  # fmt: skip


def test_every_scenario_belongs_to_a_detector() -> None:
    folders = {path.parent.relative_to(run.FOLDER).as_posix() for path in run.FOLDER.glob("*/*/input.py")}
    assert folders == {f"{detector.name}/{kind}" for detector in REGISTRY for kind in run.KINDS}


@every
def test_the_page_has_every_part(detector: Detector) -> None:
    text = (PAGES / f"{detector.name}.md").read_text()
    assert re.findall(r"^\*\*([A-Z][^*]+)\*\*", text, re.MULTILINE) == list(PARTS)
    assert all(len(part) > 30 for part in text.split("\n**")[1:])
