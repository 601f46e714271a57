"""What is said of a log that does not lie in order of time."""

from collections import defaultdict

import numpy as np
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from detector.frame import RowFrame, label
from models.rows import blank_rows
from streams.history.order import LogOrder, measured
from streams.metrics import Metrics
from streams.worker.order_watch import ROWS_MIN, OrderWatch
from streams.worker.source_clocks import SourceClocks

NAMES = {1: "gw[0]", 2: "gw[1]", 3: "pod.jsonl[0]"}
TOPICS = {source: name[:-3] for source, name in NAMES.items()}
NOON_MS = 1_740_830_400_000


def frame(sources: list[int], clients: list[int], times_ms: list[int], late_ms: int = 0) -> RowFrame:
    rows = blank_rows(
        len(sources), 2, 0, source=np.array(sources, np.uint32), client=np.array(clients, np.uint64),
        time_ms=np.array(times_ms, np.int64), append_ms=np.array(times_ms, np.int64) + late_ms if late_ms else
        np.zeros(len(sources), np.int64),
    )  # fmt: skip
    named = {source: NAMES[source] for source in sorted(set(sources))}
    return RowFrame(0, 0, "loan", "loan@1", label(named), "k1", rows)


@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2, 3]), st.integers(0, 4), st.integers(0, 400)), max_size=40
    )
)  # fmt: skip
def test_measured_is_a_walk_through_the_rows(drawn: list[tuple[int, int, int]]) -> None:
    latest: dict[int, int] = {}
    partitions: dict[tuple[int, str], set[int]] = defaultdict(set)
    back = 0
    for source, client, second in drawn:
        back += 0 < second < latest.get(client, second) - 60
        latest[client] = max(second, latest.get(client, second))
        partitions[client, TOPICS[source]].add(source)
    split = {client for (client, _), own in partitions.items() if len(own) > 1}
    parts = [frame([s], [c], [1_000 * t]).rows for s, c, t in drawn]
    assert measured({"loan": parts}, TOPICS) == LogOrder(len(drawn), back, len(latest), len(split))


def test_warnings_begin_beyond_one_in_a_hundred() -> None:
    assert LogOrder(1_000, 10, 100, 1).warnings() == []
    back, split = LogOrder(1_000, 500, 100, 2).warnings()
    assert back.startswith("50% of the rows") and split.startswith("2 of 100 clients")
    assert LogOrder(0, 0, 0, 0).warnings() == []


def test_live_it_is_two_gauges_and_a_warning() -> None:
    metrics = Metrics()
    watch = OrderWatch(metrics)
    keys = [number << 24 for number in range(400)]  # of the sample
    with structlog.testing.capture_logs() as said:
        for source in (1, 2):
            watch.add(frame([source] * 400, keys, [NOON_MS] * 400))
        watch.look(back=0)
        assert not said, f"{ROWS_MIN} rows are needed"
        watch.add(frame([1] * 400, keys, [NOON_MS] * 400))
        watch.look(back=900)
        watch.look(back=900)
    assert metrics.registry.get_sample_value("probewatch_split_clients_ratio") == 1.0
    assert metrics.registry.get_sample_value("probewatch_rows_back_in_time") == 900
    assert ["75% of the rows" in said[0]["event"], "400 of 400" in said[1]["event"], len(said)] == [True, True, 2]


def test_files_of_one_log_are_no_split_clients() -> None:
    watch = OrderWatch(metrics := Metrics())
    watch.add(frame([1, 3] * 600, [5 << 24] * 1_200, [NOON_MS] * 1_200))
    watch.look(back=0)
    assert metrics.registry.get_sample_value("probewatch_split_clients_ratio") == 0.0


@pytest.mark.parametrize(("late_s", "told"), [(2, False), (300, False), (7_200, True), (-100, False)])
def test_a_source_whose_clock_runs_behind_is_told(late_s: int, told: bool) -> None:
    metrics = Metrics()
    clocks = SourceClocks(metrics)
    with structlog.testing.capture_logs() as said:
        for _ in range(2):
            clocks.add([frame([1] * 99 + [2], list(range(100)), [NOON_MS] * 100, late_s * 1_000)])
            clocks.look()
    behind_s = metrics.registry.get_sample_value("probewatch_source_behind_seconds", {"topic": "gw"})
    assert behind_s == max(0, late_s)
    assert len(said) == told


def test_without_the_brokers_time_nothing_is_said_of_clocks() -> None:
    metrics = Metrics()
    clocks = SourceClocks(metrics)
    clocks.add([frame([1], [1], [NOON_MS])])
    clocks.look()
    assert metrics.registry.get_sample_value("probewatch_source_behind_seconds", {"topic": "gw"}) is None
