"""What was aimed at, and what this run says of it."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Parts = Mapping[str, Any]


class Aim(NamedTuple):
    """One line. now : with its spread. to_plain : as a ratio to the plain reader. reached : None without a figure."""

    question: str
    aim: str
    now: str
    to_plain: str
    reached: bool | None

    @property
    def verdict(self) -> str:
        return "-" if self.reached is None else "reached" if self.reached else "missed"


def aims(parts: Parts) -> list[Aim]:
    """Of the parts that were run; a median decides, so half of the repetitions may have been worse."""
    found: list[Aim] = []
    lines: tuple[tuple[str, Callable[[Any], list[Aim]]], ...] = (
        ("sketch", _sketch), ("judge", _judge), ("memory", _memory), ("service", _service), ("replay", _replay),
        ("river", _river),
    )  # fmt: skip
    for name, said in lines:
        if name in parts:
            found += said(parts[name])
    return found


def _sketch(part: Any) -> list[Aim]:
    wanted = {"64 numbers": 0.6, "64 numbers, base64": 0.5, "23 features": 0.5}
    return [
        Aim(
            f"`sketch`, {line['kind']}, one core", f"≥ {wanted[line['kind']]:.0%} of the plain reader",
            percent(line["of_plain"]["sketch"]), times(line["of_plain"]["sketch"]),
            line["of_plain"]["sketch"]["median"] >= wanted[line["kind"]],
        )
        for line in part["kinds"]
    ]  # fmt: skip


def _judge(part: Any) -> list[Aim]:
    found = []
    for line in part["clients"]:
        if line["clients"] == 100_000:
            rate = line["rows_per_s"]
            found.append(
                Aim(
                    "`judge` from frames, 100,000 clients, one core", "≥ 400,000 rows/s", rates(rate),
                    times(line["of_plain"]), rate["median"] >= 400_000,
                )
            )  # fmt: skip
        if line["clients"] == 1_000_000:
            cost = line["cost_to_10000"]
            found.append(
                Aim(
                    "cost of a row with 1,000,000 clients", "≤ 1.5 x that with 10,000", times(cost),
                    times(line["of_plain"]), cost["median"] <= 1.5,
                )
            )  # fmt: skip
    return found


def _memory(part: Any) -> list[Aim]:
    if part["clients"] < 900_000:
        return []
    resident = part["resident"] / 1e9
    return [Aim("1,000,000 clients, resident", "≤ 2.2 GB", f"{resident:.2f} GB", "-", resident <= 2.2)]


def _service(part: Any) -> list[Aim]:
    drained, (fixed, half) = part["backlog"], part["steady"][:2]
    rate = drained["records_per_s"]
    return [
        Aim(
            "one worker end to end, two cores with broker", "≥ 30,000 records/s sustained",
            f"{rate:,.0f} ({drained['windows']['low']:,.0f}-{drained['windows']['high']:,.0f})",
            times(part["of_plain"]), rate >= 30_000,
        ),
        _latency("log record to throttle event at half of that, p99", half),
        _latency("the same at 15,000 records/s, half of what is aimed at", fixed),
    ]  # fmt: skip


def _latency(what: str, fed: Any) -> Aim:
    late, events = fed["p99_ms"], fed["events"]
    now = f"{milliseconds(late)} of {events:,} events, {fed['lost']} lost"
    return Aim(what, "≤ 250 ms", now, "-", late <= 250 if events >= 100 else None)


def _replay(part: Any) -> list[Aim]:
    rate, seconds = part["rows_a_minute"], part["cpu_s"]
    if part["report"]:
        return [
            Aim(
                f"replay of {part['rows']:,} archived rows with report, one core", "≤ 90 s for 10,000,000",
                f"{seconds['median']:.0f} s", times(part["of_plain"]), rate["median"] >= 10_000_000 / 1.5,
            )
        ]  # fmt: skip
    return [
        Aim(
            "replay of archived frames, one core", "≥ 10,000,000 rows a minute", rates(rate), times(part["of_plain"]),
            rate["median"] >= 10_000_000,
        )
    ]  # fmt: skip


def _river(part: Any) -> list[Aim]:
    return [
        Aim(f"against river, {line['name']}", "≥ 100 x", times(line["times"]), "-", line["times"]["median"] >= 100)
        for line in part["lines"]
    ]


def percent(found: Mapping[str, float]) -> str:
    return f"{found['median']:.0%} ({found['low']:.0%}-{found['high']:.0%})"


def times(found: Mapping[str, float]) -> str:
    return f"{_short(found['median'])} x ({_short(found['low'])}-{_short(found['high'])})"


def rates(found: Mapping[str, float]) -> str:
    return f"{found['median']:,.0f} ({found['low']:,.0f}-{found['high']:,.0f})"


def microseconds(found: Mapping[str, float]) -> str:
    return f"{_short(found['median'])} ({_short(found['low'])}-{_short(found['high'])})"


def milliseconds(value: float) -> str:
    """A percentile among events that never came is no number."""
    return "-" if math.isnan(value) else "never" if math.isinf(value) else f"{value:,.0f} ms"


def _short(value: float) -> str:
    """Two digits that count, and no more than a person reads."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"
