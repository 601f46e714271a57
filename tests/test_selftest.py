"""`selftest` on a worker that runs, and with each part of it missing: it says what is broken."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.artefacts.store import load_artefacts
from streams.analyst.events import read_events
from streams.analyst.suppress import read_suppressions
from streams.config.config import Config
from streams.fit.calibrate import calibrate
from streams.history.sources import open_sources
from streams.kafka import topics
from streams.ops.selftest.rehearsal import SelftestError, rehearse
from streams.ops.selftest.selftest import RESERVED, SelftestStep, _Heard, reserved_name, selftest
from streams.progress import Silent
from streams.secrets.load import create_secrets, load_secrets
from tests.history import BEGIN_S, DAY_S, write_jsonl
from tests.kafka_config import kafka_config
from tests.pipeline import HANGS_S, RAW_PARTITIONS, Calibrated
from tests.test_worker import working

END_MS = 1_900_000_000_000
STEPS = {"sketch": "_sketched", "judge": "_judged"}


def test_the_prober_is_found_whatever_its_name(fitted: Calibrated) -> None:
    for number in range(20):
        found = rehearse(Config(), fitted.artefacts, fitted.secrets, "", name=f"{RESERVED}-{number}", end_ms=END_MS)
        assert found.model == "loan" and found.due[-1].level >= 3
        assert len(found.values) == found.due[-1].rows_seen <= 200


def test_another_model_or_thresholds_out_of_reach_are_said(fitted: Calibrated) -> None:
    with pytest.raises(SelftestError, match="expected one of loan; got 'other'"):
        rehearse(Config(), fitted.artefacts, fitted.secrets, "other", name="x", end_ms=END_MS)
    model = fitted.artefacts.models["loan"]
    deaf = replace(model, reference=replace(model.reference, thresholds=model.reference.thresholds + 10**8))
    silent = replace(fitted.artefacts, models={"loan": deaf})
    with pytest.raises(SelftestError, match="make no alert under these artefacts"):
        rehearse(Config(), silent, fitted.secrets, "", name="x", end_ms=END_MS)


def test_a_model_of_embeddings_gets_its_prober(tmp_path: Path) -> None:
    """Ordinary clients ask about a topic each, two or three times a day."""
    rng = np.random.default_rng(31)
    rows = []
    for client in range(300):
        topic = rng.standard_normal(16)
        for turn in range(int(rng.integers(2, 4))):
            asked = topic + 0.8 * rng.standard_normal(16)
            ts = BEGIN_S + DAY_S * (client + turn / 5) / 301
            output = {"label": str(rng.choice(["ok", "refused"], p=[0.95, 0.05]))}
            rows.append(
                {"ts": ts, "client_id": f"c{client}", "model": "chat", "embedding": asked.tolist(), "output": output}
            )
    create_secrets(tmp_path)
    config, secrets = Config(), load_secrets(Config(), tmp_path)
    write_jsonl(tmp_path / "day.jsonl", sorted(rows, key=lambda row: row["ts"]))
    calibrate(open_sources([str(tmp_path / "day.jsonl")], config), tmp_path, config, secrets, Silent())
    artefacts = load_artefacts(tmp_path, secrets.projection_seed)
    assert artefacts.models["chat"].encoder.kind == "embedding"
    for number in range(10):
        found = rehearse(config, artefacts, secrets, "chat", name=f"{RESERVED}-{number}", end_ms=END_MS)
        assert found.due[-1].level >= 3 and len(found.values) == found.due[-1].rows_seen


async def run(config: Config, fitted: Calibrated, timeout_s: float) -> list[SelftestStep]:
    found = rehearse(config, fitted.artefacts, fitted.secrets, "", name=reserved_name(), end_ms=END_MS)
    return await asyncio.to_thread(selftest, config, found, timeout_s)


async def test_a_way_that_works_passes_twice_and_is_cleaned_up(broker: str, namespace: str, fitted: Calibrated) -> None:
    config = kafka_config(broker, namespace)
    await topics.create(config, RAW_PARTITIONS)
    async with working(config, fitted):
        for _ in range(2):
            steps = await run(config, fitted, HANGS_S)
            assert [(step.step, step.state) for step in steps] == [
                (name, "ok") for name in ("sketch", "judge", "doors", "alert", "lift")
            ], steps
    throttles = await asyncio.to_thread(lambda: list(read_events(None, config, kinds=("throttle",))))
    last = {event.client: event for event in throttles}
    assert len(last) == 2 and {event.record.action for event in last.values()} == {"lift"}
    hidden = await asyncio.to_thread(read_suppressions, None, config)
    assert {one.client for one in hidden} == set(last)


def patient_until(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs gets as long as it needs; only what does not is waited for in vain, and that not for long."""
    until = _Heard.until

    async def waited(heard: _Heard, seen: Callable[[], str], timeout_s: float) -> str:
        return await until(heard, seen, timeout_s if seen.__name__ == STEPS[broken] else HANGS_S)

    monkeypatch.setattr(_Heard, "until", waited)


@pytest.mark.parametrize(("stages", "broken"), [((), "sketch"), (("sketch",), "judge")])
async def test_what_does_not_run_is_named(
    embedded_broker: str,
    namespace: str,
    fitted: Calibrated,
    monkeypatch: pytest.MonkeyPatch,
    stages: tuple[str, ...],
    broken: str,
) -> None:
    patient_until(broken, monkeypatch)
    config = kafka_config(embedded_broker, namespace)
    await topics.create(config, RAW_PARTITIONS)
    if stages:
        async with working(config, fitted, stages):
            *well, last = await run(config, fitted, 1)
    else:
        *well, last = await run(config, fitted, 1)
    assert (last.step, last.state) == (broken, "fault")
    assert f"Is `{broken}` running" in last.detail or f"is `{broken}` running" in last.detail
    assert all(step.state == "ok" for step in well) and len(well) == len(stages)
