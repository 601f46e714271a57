"""A short seeded set of faults; `make test-faults` has all of them, often."""

from pathlib import Path

import pytest

from tests.faults import processes
from tests.faults.registry import REGISTRY
from tests.faults.run import Plan, perform, plans
from tests.faults.workers import start_server
from tests.pipeline import Calibrated

PLANS = (Plan(101, 1, [processes.Killed("judge"), processes.Stalled("sketch"), processes.Stalled("judge")]),)


@pytest.mark.kafka
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"seed {plan.seed}, {plan.nodes} nodes")
async def test_nothing_is_lost_and_nothing_doubled(plan: Plan, fitted: Calibrated, tmp_path: Path) -> None:
    start_server(fitted)
    done = await perform(plan, fitted, tmp_path, print)
    assert done.verdict.events > 100, "the stream must be worth it"
    assert done.verdict.good, str(done.verdict)


def test_a_full_set_is_worth_its_name() -> None:
    """A hundred faults or more in ten runs or more, all that are possible here; the same for the same seed."""
    full = list(plans(1, 12))
    assert len([plan for plan in full if plan.faults]) >= 10
    assert sum(len(plan.faults) for plan in full) >= 100
    struck = {fault.name for plan in full for fault in plan.faults}
    assert struck == {fault.name for fault in REGISTRY if not fault.impossible()}
    assert full == list(plans(1, 12)) != list(plans(2, 12))
    assert len({fault.name for fault in REGISTRY}) == len(REGISTRY)
