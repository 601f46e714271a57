"""Many incidents of a model within an hour are shown as one."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from streams.analyst.incidents import Incident
from streams.analyst.waves import marked, sentence, waves
from streams.cli.tables import incident_rows

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR_S = 3_600


def incident(begin_s: int, number: int = 0, model: str = "loan", alerts: int = 1) -> Incident:
    first = NOON + timedelta(seconds=begin_s)
    return Incident(
        uid=f"{number:032x}", client=f"k1-{number}", client_class="consumer", model=model, title="",
        detectors=("sweep",), first=first, last=first + timedelta(minutes=5), level=3, level_now=0, action="", mode="",
        until=None,
        alerts=alerts, throttles=1, certified=True, state="open", verdict="",
    )  # fmt: skip


def begun(seconds: Sequence[int]) -> list[Incident]:
    return [incident(begin_s, number) for number, begin_s in enumerate(seconds)]


def test_one_more_than_the_limit_within_an_hour_is_a_wave() -> None:
    assert not waves(marked(begun([0, 600, 1_200]), 3))
    assert not waves(marked(begun([0, 600, 1_200, HOUR_S]), 3)), "the first is an hour ago"
    (wave,) = waves(marked(begun([0, 600, 1_200, HOUR_S - 1]), 3))
    assert (wave.incidents, wave.clients, wave.alerts, wave.open, wave.level) == (4, 4, 4, 4, 3)
    assert wave.uid == f"{0:032x}"
    assert "4 incidents of the model loan within 1.1 h" in sentence(wave)


def test_models_and_incidents_without_an_alert_count_apart() -> None:
    mixed = [incident(n, n, model="loan" if n % 2 else "fraud") for n in range(8)]
    assert not waves(marked(mixed, 4))
    assert len(waves(marked(mixed, 3))) == 2
    assert not waves(marked([incident(n, n, alerts=n % 2) for n in range(8)], 4))


def test_a_table_shows_a_wave_as_one_row_among_the_others() -> None:
    incidents = marked([*begun(range(0, 600, 10)), incident(9 * HOUR_S, 99), incident(-9 * HOUR_S, 98)], 20)
    before, wave, after = incident_rows(incidents)
    assert before["client"] == "k1-98" and after["client"] == "k1-99"
    assert wave["client"].startswith("WAVE: 60 clients in 60 incidents") and wave["alerts"] == 60


@given(st.lists(st.integers(0, 6 * HOUR_S), max_size=40), st.integers(1, 6))
def test_an_incident_is_in_a_wave_if_an_hour_around_it_has_too_many(seconds: list[int], per_hour: int) -> None:
    found = marked(begun(seconds), per_hour)
    for one in found:
        at = (one.first - NOON).total_seconds()
        hours = [[s for s in seconds if begin <= s < begin + HOUR_S] for begin in seconds]
        crowded = any(len(hour) > per_hour and at in hour for hour in hours)
        assert bool(one.wave) == crowded
    assert sum(wave.incidents for wave in waves(found)) == sum(bool(one.wave) for one in found)
    spans = sorted((wave.first, wave.incidents) for wave in waves(found))
    assert all(count > per_hour for _, count in spans)


@given(st.permutations(range(12)))
def test_the_order_of_incidents_does_not_matter(order: list[int]) -> None:
    incidents = begun([0, 0, 5, 9, 9, 9, 5_000, 5_001, 5_001, 5_002, 9_000, 20_000])
    told = {one.uid: one.wave for one in marked(incidents, 3)}
    assert {one.uid: one.wave for one in marked([incidents[place] for place in order], 3)} == told
