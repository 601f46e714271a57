"""Does the live pipeline work? A synthetic prober under a reserved client id is sent through it.

The self-test reads every topic behind the raw one, so that the first missing message shows where the pipeline is
broken. A final `lift` ends the prober's decisions, which also shows that orders arrive.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Literal

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition

from detector.frame import ControlFrame, RowFrame
from streams.analyst import feedback
from streams.analyst.events import Alert, EventError, ThrottleEvent, decode_event, now
from streams.analyst.suppress import suppression_of
from streams.config.config import Config
from streams.kafka import clients, topics
from streams.kafka.broker import Features, log_ends, probe
from streams.ops import orders
from streams.ops.selftest.rehearsal import Due, Rehearsal, SelftestError, due_of
from streams.wire import frames

RESERVED = "probewatch-selftest"
"""Client ids with this prefix are reserved for self-tests; gateways must not assign them."""

POLL_MS = 200
SHOWN_AGAIN = timedelta(days=1)


Step = Literal["sketch", "judge", "doors", "alert", "lift", "suppression"]


class SelftestStep(msgspec.Struct, frozen=True):
    """One step of the self-test. seconds : since the first record was sent."""

    step: Step
    state: Literal["ok", "fault"]
    seconds: float
    detail: str


class SelftestReport(msgspec.Struct, frozen=True):
    """Result of a self-test. requests : number sent, as `client`, to `model`. due : the expected decisions."""

    model: str
    client: str
    requests: int
    passed: bool
    due: list[Due]
    steps: list[SelftestStep]


Look = tuple[Step, Callable[[], str], str]
"""A step; a function that returns its result, "" until it is there; the message if it fails."""


def reserved_name() -> str:
    """Another each time: from a client that is known already the same inputs would be repeats."""
    return f"{RESERVED}-{time.time_ns() // 1_000_000}"


def selftest(config: Config, rehearsal: Rehearsal, timeout_s: float) -> list[SelftestStep]:
    """Send it, listen, and clean up. timeout_s : for each step. Raises SelftestError, KafkaError if it cannot begin."""
    steps = asyncio.run(_run(config, rehearsal, timeout_s))
    until, why = now() + SHOWN_AGAIN, "selftest: the alert needs no work"
    hidden = suppression_of(rehearsal.client, "", "", until, why, now())
    try:
        feedback.keep(config, hidden.suppression_id, hidden, None)
    except feedback.FeedbackError as error:  # the way is armed all the same
        steps.append(SelftestStep("suppression", "ok", steps[-1].seconds, f"its alert will be shown: {error}"))
    return steps


async def _run(config: Config, rehearsal: Rehearsal, timeout_s: float) -> list[SelftestStep]:
    features = await probe(config.kafka)
    steps: list[SelftestStep] = []
    async with _listening(config, rehearsal, features) as heard:
        begun = time.monotonic()
        await _send(config, rehearsal, features)
        looks = [*heard.looks(config)]
        while looks and all(step.state == "ok" for step in steps):
            name, seen, fault = looks.pop(0)
            if name == "lift":
                await orders.give(config, [_lift(rehearsal)])
            said = await heard.until(seen, timeout_s)
            seconds = round(time.monotonic() - begun, 1)
            steps.append(SelftestStep(name, "ok" if said else "fault", seconds, said or f"{fault} ({timeout_s:g} s)"))
        if looks:
            await orders.give(config, [_lift(rehearsal)])
    return steps


def _lift(rehearsal: Rehearsal) -> ControlFrame:
    given_ms = time.time_ns() // 1_000_000
    return ControlFrame(-1, -1, "lift", rehearsal.key, rehearsal.client, "", 0, "selftest", given_ms)


async def _send(config: Config, rehearsal: Rehearsal, features: Features) -> None:
    """All to one raw partition, in order. Raises SelftestError if there is no raw topic."""
    topic, values = rehearsal.topic, rehearsal.values
    counts = await topics.partition_counts(config, [topic])
    if topic not in counts:
        raise SelftestError(f"there is no topic {topic} (topics.raw): what gateways write must stand there")
    producer = clients.producer(config, features, max(map(len, values)))
    await producer.start()
    try:
        partition = time.time_ns() % counts[topic]
        for sent in [await producer.send(topic, value, partition=partition) for value in values]:
            await sent
    finally:
        await producer.stop()


class _Heard:
    """Events about the prober, collected from the topics."""

    def __init__(self, consumer: AIOKafkaConsumer, config: Config, rehearsal: Rehearsal) -> None:
        self._consumer, self._rehearsal, self._names = consumer, rehearsal, config.topics
        self._rows: set[int] = set()
        self._throttles: dict[str, ThrottleEvent] = {}
        self._alerts: dict[str, Alert] = {}
        self._kept: set[str] = set()

    async def until(self, seen: Callable[[], str], timeout_s: float) -> str:
        """What `seen` says; "" if it says nothing in time."""
        deadline = time.monotonic() + timeout_s
        while not (said := seen()) and time.monotonic() < deadline:
            for records in (await self._consumer.getmany(timeout_ms=POLL_MS)).values():
                for record in records:
                    self._take(record)
        return said

    def _take(self, record: Any) -> None:
        if record.topic == self._names.requests:
            self._take_frame(record)
            return
        try:
            event = decode_event(record.value or b"")
        except EventError:
            return
        if event.client != self._rehearsal.client:
            return
        if record.topic == self._names.throttle_state:
            self._kept.add(event.uid)
        elif isinstance(event, ThrottleEvent):
            self._throttles[event.uid] = event
        elif isinstance(event, Alert):
            self._alerts[event.uid] = event

    def _take_frame(self, record: Any) -> None:
        try:
            frame = frames.decode(record.value or b"", record.partition, record.offset)
        except frames.FrameError:
            return
        if isinstance(frame, RowFrame):
            mine = frame.rows.client == np.uint64(self._rehearsal.key)
            self._rows.update(frame.rows.offset[mine].tolist())

    def looks(self, config: Config) -> list[Look]:
        """The way, in order."""
        names, due = config.topics, ", then ".join(map(str, self._rehearsal.due))
        return [
            ("sketch", self._sketched, f"{names.requests} did not get its {len(self._rehearsal.values)} rows: is"
             " `sketch` running, does it read this raw topic, and how far behind is it (probewatch_lag)?"),
            ("judge", self._judged, f"not decided: {due}. Is `judge` running, with this configuration and these"
             " artefacts, and how far behind is it?"),
            ("doors", self._obeyed, f"{names.throttle_state} did not get the decision: gateways cannot obey it"),
            ("alert", self._alarmed, f"{names.alerts} did not get the alert: the SOC sees nothing"),
            ("lift", self._lifted, "the lift took nothing back: what was decided ends when it expires"),
        ]  # fmt: skip

    def _sketched(self) -> str:
        rows = len(self._rehearsal.values)
        return f"{rows} rows in {self._names.requests}" if len(self._rows) >= rows else ""

    def _judged(self) -> str:
        decided = [one for one in self._throttles.values() if one.record.action != "lift"]
        if not set(self._rehearsal.due) <= set(map(due_of, decided)):
            return ""
        return "; ".join(map(str, self._rehearsal.due)) + f", as folded here; mode {decided[-1].mode}"

    def _obeyed(self) -> str:
        return f"{self._names.throttle_state} has it" if self._throttles.keys() <= self._kept else ""

    def _alarmed(self) -> str:
        return next((f"alert {uid}, {alert.severity}" for uid, alert in self._alerts.items()), "")

    def _lifted(self) -> str:
        taken = any(one.record.action == "lift" for one in self._throttles.values())
        return "taken back" if taken and self._obeyed() else ""


@asynccontextmanager
async def _listening(config: Config, rehearsal: Rehearsal, features: Features) -> AsyncIterator[_Heard]:
    """From now on. Raises SelftestError for a topic that is not there."""
    names = config.topics
    wanted = (names.requests, names.throttle, names.throttle_state, names.alerts)
    counts = await topics.partition_counts(config, wanted)
    missing = [name for name in wanted if name not in counts]
    if missing:
        raise SelftestError(f"there is no topic {missing[0]}; `probewatch topics create` makes it")
    async with clients.reader(config) as consumer:
        places = [TopicPartition(name, number) for name, count in counts.items() for number in range(count)]
        ends = await log_ends(consumer, places, features)
        consumer.assign(places)
        for place in places:
            consumer.seek(place, ends[place])
        yield _Heard(consumer, config, rehearsal)
