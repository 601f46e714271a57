"""Where a figure of `make bench` could lie: repetitions, processor time, events that never came, windows of a rate."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.performance import report
from bench.performance.aims import aims
from bench.performance.common import cpu_s, in_turn, percentile, ratios, spread
from bench.performance.feeder import Decision
from bench.performance.service import latencies, window_rates
from bench.performance.traffic import Traffic
from bench.performance.worker import Seen
from streams.adapters import native


def test_events_that_never_came_are_infinitely_late() -> None:
    came = [float(late) for late in range(1, 99)]  # of 100
    assert percentile(came, 0.5, missing=2) == 50
    assert percentile(came, 0.98, missing=2) == 98
    assert percentile(came, 0.99, missing=2) == math.inf
    assert percentile(came, 0.99) == 98  # what it would be if nobody counted them
    assert percentile([], 0.5, missing=1) == math.inf
    assert math.isnan(percentile([], 0.5))


def test_latencies_are_of_expected_events_of_the_span_and_the_first_arrival_counts() -> None:
    expected = {"a": 10.0, "b": 10.5, "lost": 10.9, "earlier": 9.0}
    decisions = [
        Decision("a", 10.0, 10.1), Decision("a", 10.0, 13.0), Decision("b", 10.5, 10.7), Decision("earlier", 9.0, 14.0),
        Decision("nobody expects it", 10.2, 19.0),
    ]  # fmt: skip
    found = latencies(decisions, expected, 10.0, 11.0)
    assert (found["events"], found["lost"]) == (3, 1)
    assert found["p50_ms"] == pytest.approx(200)
    assert found["p99_ms"] == found["max_ms"] == math.inf


BURNING = """
import subprocess, sys, threading, time
def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end: pass
thread = threading.Thread(target=burn, args=(0.5,)); thread.start(); thread.join()
again = "import time\\nwhile time.process_time() < %s: pass\\nprint('burnt', flush=True)\\ntime.sleep(%s)"
subprocess.run([sys.executable, "-c", again % (0.5, 0)], stdout=subprocess.DEVNULL)
subprocess.run([sys.executable, "-c", again % (0.5, 60)])
"""


@pytest.fixture
def burning() -> Iterator[int]:
    """A process that spent half a second in a thread, in a child that ended, and in one that lives."""
    with subprocess.Popen([sys.executable, "-c", BURNING], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None and process.stdout.readline() == b"burnt\n"
        yield process.pid
        for line in Path("/proc").glob("[0-9]*/stat"):
            if line.read_text().rpartition(")")[2].split()[1] == str(process.pid):
                subprocess.run(["kill", line.parent.name], check=True)
        process.kill()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processor time of others is read from /proc")
def test_processor_time_is_that_of_threads_and_children_too(burning: int) -> None:
    spent, of_nobody = cpu_s(burning, -1)
    assert 1.45 < spent < 5 and math.isnan(of_nobody)


def test_a_ratio_is_taken_inside_each_round() -> None:
    """The machine was half as fast in the second round: every round says 2, whatever the rates were."""
    assert ratios([20, 10, 40], [10, 5, 20]) == {"median": 2, "low": 2, "high": 2, "of": 3}
    with pytest.raises(ValueError, match="zip"):
        ratios([1, 2], [1])
    with pytest.raises(ValueError, match="nothing"):
        spread([])


def test_tasks_take_turns_and_none_always_comes_first() -> None:
    order: list[str] = []

    def task(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = in_turn({"a": lambda: task("a"), "b": lambda: task("b")}, 3, lambda _: None)
    assert "".join(order) == "abbaab"
    assert found == {"a": [1, 4, 5], "b": [2, 3, 6]}


def test_a_standstill_shows_in_the_windows_and_no_record_is_left_out() -> None:
    looks = [
        Seen(at / 2, rows, 0, 0, 0, 0) for at, rows in enumerate([0, 500, 1000, 1000, 1000, 1000, 1500, 2000, 2100])
    ]
    found = window_rates(looks, seconds=1.0)
    assert min(found) == 0 and max(found) == 1000
    assert sum(rate * length for rate, length in zip(found, (1, 1, 1, 1), strict=True)) == 2100


def test_traffic_is_the_same_again_can_be_read_and_keeps_each_client_in_one_partition() -> None:
    one, again = Traffic(1_000, seed=3), Traffic(1_000, seed=3)
    homes: dict[str, set[int]] = {}
    for number in range(3_000):
        owner, value = one.next(1_760_000_000 + number)
        assert again.record(1_760_000_000 + number) == value
        request = native.decode_one(value)
        homes.setdefault(request.client_id, set()).add(owner % 4)
    probing = [name for name in homes if name.startswith("prober")]
    assert 0 < len(probing) < 10 and len(homes) > 800
    assert all(len(home) == 1 for home in homes.values())


def _of(median: float) -> dict[str, float]:
    return {"median": median, "low": 0.9 * median, "high": 1.1 * median, "of": 3}


def _sketched(kind: str, share: float) -> dict[str, Any]:
    return {
        "kind": kind, "record_bytes": 600.0, "rates": {"plain": _of(2e5), "sketch": _of(2e5 * share)},
        "of_plain": {"sketch": _of(share), "sketch and send": _of(share / 2)}, "fields": 23, "dim": 0,
    }  # fmt: skip


def _judged(clients: int, rate: float) -> dict[str, Any]:
    last = {"decode_share": 0.06, "bytes_per_client": 9e3, "used_per_client": 8e3, "us_per_event": math.nan}
    return {
        "clients": clients, "rows": 400_000, "rows_per_s": _of(rate), "of_plain": _of(rate / 2e5),
        "cost_to_10000": _of(4e5 / rate), "bound_rows_per_s": _of(1e6), "last": last,
    }  # fmt: skip


def _beside_river(name: str, times: float) -> dict[str, Any]:
    return {
        "name": name, "clients": 1_000, "rows": 40_000, "river_us": 2.8 * times, "our_us": _of(2.8),
        "times": _of(times), "river_bytes": 1.4e6, "our_bytes": 9e3,
    }  # fmt: skip


@pytest.fixture
def results() -> dict[str, Any]:
    """As a full run leaves them, with figures that nobody measured."""
    us = {"worker": 30.0, "broker": math.nan, "feeder": 4.0}
    drained = {
        "records": 10**6, "seconds": 30.0, "rows_a_frame": 130.0, "records_per_s": 33_000.0, "windows": _of(33_000.0),
        "us": us,
    }  # fmt: skip
    steady = {
        "load": 0.5, "fed_per_s": 16_000.0, "rows_a_frame": 51.0, "behind_s": 0.1, "us": us, "p50_ms": 70.0,
        "p95_ms": 120.0, "p99_ms": math.inf, "max_ms": math.inf, "events": 500, "lost": 7,
    }  # fmt: skip
    fixed = steady | {"load": 0.45, "p99_ms": 240.0, "max_ms": 260.0, "lost": 0}
    kinds = {"64 numbers": 0.61, "64 numbers, base64": 0.49, "23 features": 0.5}
    return {
        "command": "make bench", "date": "2030-01-01", "seconds": 590.0, "quick": False, "left_out": {},
        "machine": {"processor": "<b>CPU</b>", "cores": 2, "python": "3.11", "load_before": 0.1, "broker": "Kafka"},
        "parts": {
            "sketch": {"records": 40_000, "kinds": [_sketched(kind, share) for kind, share in kinds.items()]},
            "reading": {"records": 40_000, "readers": [{"name": "plain", "us": _of(5), "times_plain": _of(1)}]},
            "judge": {"clients": [_judged(10_000, 4e5), _judged(100_000, 3.9e5), _judged(1_000_000, 3e5)]},
            "memory": {
                "clients": 999_980, "rows": 2_200_000, "in_use": 9e8, "allocated": 1.3e9, "before": 3e8,
                "resident": 1.5e9,
            },
            "service": {
                "raw_partitions": 4, "partitions": 12, "clients": 100_000, "backlog": drained, "of_plain": _of(0.2),
                "steady": [fixed, steady], "resident_bytes": 9e8, "events": {"expected": 900, "arrived": 893},
            },
            "replay": {
                "rows": 10**6, "frames": 3_000, "archive_bytes": 2e8, "rows_a_minute": _of(1.1e7),
                "rows_a_minute_without_start": _of(1.3e7), "of_plain": _of(0.9), "report": False, "cpu_s": _of(5),
            },
            "river": {"lines": [_beside_river("many", 500), _beside_river("busy", 18)]},
            "widths": {
                "sketch": [_sketched("23 features", 0.5)],
                "judge": [{"kind": "23 features", "us": _of(2.5), "of_plain": _of(2)}],
            },
            "partitions": {
                "records": 150_000, "clients": 10_000,
                "lines": [{"partitions": 4, "resident_bytes": 5e8} | drained],
            },
        },
    }  # fmt: skip


def test_each_aim_is_told_as_reached_or_missed(results: dict[str, Any]) -> None:
    verdicts = [line.verdict for line in aims(results["parts"])]
    sketch, judge, memory, service = ["reached", "missed", "reached"], ["missed", "reached"], ["reached"], ["reached"]
    assert verdicts == [*sketch, *judge, *memory, *service, "missed", "reached", "reached", "reached", "missed"]
    assert "never of 500 events, 7 lost" in [line.now for line in aims(results["parts"])]


def test_a_percentile_of_few_events_is_no_verdict(results: dict[str, Any]) -> None:
    results["parts"]["service"]["steady"][1] |= {"events": 20, "p99_ms": 90.0}
    assert "-" in [line.verdict for line in aims(results["parts"])]


def test_documentation_page_and_json_hold_every_table(results: dict[str, Any], tmp_path: Path) -> None:
    docs, page, figures = tmp_path / "performance.md", tmp_path / "page.html", tmp_path / "figures.json"
    docs.write_text(f"before\n{report.BEGIN}\nyesterday's\n{report.END}\nafter\n")
    report.write_docs(results, docs)
    report.write_page(results, page)
    report.write_json(results, figures)
    text, html = docs.read_text(), page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "yesterday" not in text
    shown = report.tables(results)
    assert len(shown) == 12 and all(len(line) == len(table.header) for table in shown for line in table.cells)
    assert all(f"### {table.title}" in text and table.title in html for table in shown)
    assert "<b>CPU</b>" not in html and "http-equiv" not in html and 'src="http' not in html
    assert json.loads(figures.read_text())["parts"]["service"]["steady"][1]["p99_ms"] is None
    docs.write_text("no place for figures")
    with pytest.raises(ValueError, match="no <!-- figures"):
        report.write_docs(results, docs)


def test_the_page_of_documentation_has_a_place_for_figures() -> None:
    text = Path("docs/performance.md").read_text(encoding="utf-8")
    assert 0 < text.find(report.BEGIN) < text.find(report.END)


def test_a_run_of_one_part_shows_that_part(results: dict[str, Any]) -> None:
    results["parts"] = {"memory": results["parts"]["memory"]}
    assert [table.title for table in report.tables(results)] == ["What was aimed at", "Memory"]
