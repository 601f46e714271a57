"""One id that carries much of a model's traffic is told, and not decided on where a person says that many share it."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from detector import engine
from detector.frame import RowFrame
from models.pseudonym import client_of, pseudonym
from streams.config.config import Config, load_config
from streams.config.keys import ConfigError
from streams.kafka.broker import probe
from streams.ops import doctor
from streams.sketch import shares
from streams.sketch.shares import Share, Shares
from tests import engine_cases as cases
from tests.history import benign, sweeps
from tests.kafka_config import kafka_config
from tests.pipeline import Calibrated
from tests.test_stages import sketched, sketching


def frames_of(count: int = 40) -> list[RowFrame]:
    return cases.cut(cases.history(), [count] * (len(cases.history()) // count))


def names(frames: list[RowFrame]) -> Counter[str]:
    """Rows of each client, counted one by one."""
    found: Counter[str] = Counter()
    for frame in frames:
        for client, tail in zip(frame.rows.client.tolist(), frame.rows.client_tail, strict=True):
            found[pseudonym(frame.key_id, client, tail.tobytes())] += 1
    return found


@pytest.mark.parametrize("window", [100, 200])
def test_the_largest_share_is_that_of_a_plain_count(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Window by window, and declared clients apart."""
    monkeypatch.setattr(shares, "WINDOW_ROWS", window)
    declared = [name for name, _ in names(frames_of()).most_common(2)]
    told, gathered, windows = Shares(declared), [], 0
    for frame in frames_of():
        gathered.append(frame)
        share = told.add(frame)
        assert (share is not None) == (sum(one.rows.count for one in gathered) >= window)
        if share is not None:
            rows = names(gathered)
            most = max(count for name, count in rows.items() if name not in declared)
            assert rows[share.client] == most and share.client not in declared
            assert share.share == pytest.approx(most / rows.total())
            assert share.large == (share.share >= shares.LARGE and len(rows) >= shares.CLIENTS_MIN)
            gathered, windows = [], windows + 1
    assert windows > 2
    left = told.rest(1)
    assert [share.client for share in left] == [] if not gathered else [left[0].client]
    assert told.rest(10**9) == []


def test_nothing_is_decided_on_a_client_that_many_share() -> None:
    """What is said of others stays, byte for byte but for the configuration's hash; evidence goes on all the while."""
    told = cases.told()
    culprit = next(unit for unit in cases.history() if cases.about(unit.client, told))
    row = culprit.frame.rows
    name = pseudonym(culprit.frame.key_id, culprit.client, row.client_tail[culprit.row].tobytes())
    config = Config.model_validate({"state": {"blocks": 8}, "policy": {"shared_clients": [name]}})
    assert config.hash != cases.CONFIG.hash
    settings = engine.EngineSettings(config, cases.settings().artefacts)
    state = engine.open_partition(settings, cases.PARTITION)
    events = [event for frame in cases.cut(cases.history()) for event in engine.step(state, frame)]
    assert [event.id for event in events if event.client_key == culprit.client and event.kind != "drift"] == []
    others = {event.id for event in events if event.client_key != culprit.client}
    assert len(others) > 10 and others == set(told) - set(cases.about(culprit.client, told))
    _, usual = cases.fold(cases.cut(cases.history()))
    assert state.clients == usual.clients


def test_a_shared_client_is_decided_on_again_when_it_is_not_shared_any_more() -> None:
    told = cases.told()
    culprit = max({unit.client for unit in cases.history()}, key=lambda client: len(cases.about(client, told)))
    shared = replace_shared(culprit)
    state = engine.open_partition(shared, cases.PARTITION)
    frames = cases.cut(cases.history())
    half = len(frames) // 2
    before = [event for frame in frames[:half] for event in engine.step(state, frame)]
    state.settings = cases.settings()
    after = [event for frame in frames[half:] for event in engine.step(state, frame)]
    again = cases.cut([replace_time(unit, 3 * 3_600_000) for unit in cases.history()], start=frames[-1].offset + 1)
    after += [event for frame in again for event in engine.step(state, frame)]
    assert not any(event.client_key == culprit and event.kind == "throttle" for event in before)
    assert any(event.client_key == culprit and event.kind == "throttle" for event in after)


def replace_shared(client: int) -> engine.EngineSettings:
    unit = next(unit for unit in cases.history() if unit.client == client)
    name = pseudonym(unit.frame.key_id, client, unit.frame.rows.client_tail[unit.row].tobytes())
    config = Config.model_validate({"state": {"blocks": 8}, "policy": {"shared_clients": [name]}})
    return engine.EngineSettings(config, cases.settings().artefacts)


def replace_time(unit: cases.Unit, later_ms: int) -> cases.Unit:
    """The same row as another one, later."""
    rows = unit.frame.rows
    moved = rows._replace(time_ms=rows.time_ms + later_ms + 30 * 86_400_000, offset=rows.offset + 10_000_000)
    return unit._replace(frame=replace(unit.frame, rows=moved))


def test_only_pseudonyms_can_be_shared_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBEWATCH_POLICY__SHARED_CLIENTS", "anonymous")
    with pytest.raises(ConfigError, match="shared_clients"):
        load_config()


async def test_the_worker_tells_once_and_the_doctor_too(
    embedded_broker: str,
    namespace: str,
    fitted: Calibrated,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [*benign(700, seed=11), *sweeps(1, 600, seed=12)]
    random.Random(1).shuffle(rows)
    monkeypatch.setattr(shares, "WINDOW_ROWS", 500)
    config = kafka_config(embedded_broker, namespace)
    await sketched(config, fitted, rows)
    said = "".join(capfd.readouterr())
    assert said.count("one client carries much of a model's traffic") == 1 and "policy.shared_clients" in said
    features = await probe(config.kafka)
    (check,) = await doctor._shared_ids(config, features)
    (name,) = [word for word in check.finding.split() if word.startswith("k1-")]
    assert (check.state, name in said, "policy.shared_clients" in check.fix) == ("warning", True, True)
    assert client_of(name)
    declared = kafka_config(embedded_broker, namespace, policy={"shared_clients": (name,)})
    assert [check.state for check in await doctor._shared_ids(declared, features)] == ["ok"]
    async with sketching(declared, fitted) as stage:
        stage._tell(Share("loan", name, 0.3, large=False))
        assert stage._metrics.largest_share.labels("loan")._value.get() == 0.3
