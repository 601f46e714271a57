"""An installation without Kafka: partitions of `requests`, their judges, and what these write back into the log."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import msgspec

from detector import engine
from detector.events.finding import Event
from detector.frame import BreakerFrame, Frame, JudgeFrame, ResetFrame
from models.pseudonym import pseudonym
from probewatch_door.record import Throttle
from streams.config.config import Config
from streams.wire import frames
from tests import engine_cases as cases
from tests.engine_cases import Unit
from tests.scenarios import run, world

PARTITIONS, BLOCKS = 2, 4
LIMIT = 3
"""Clients of one group that are enforced at most; so few that nothing else limits them."""


@cache
def settings(mode: str = "enforce", *, enabled: bool = True) -> engine.EngineSettings:
    policy = {"mode": mode, "breaker": {"clients": LIMIT, "factor": 1.0, "enabled": enabled}}
    sections = {"state": {"blocks": BLOCKS}, "topics": {"partitions": PARTITIONS}, "policy": policy}
    return engine.EngineSettings(Config.model_validate(sections), run.artefacts())


def accounts(name: str, count: int, rows: int = 12, start_s: float = 0.0, every_s: float = 20.0) -> list[world.Record]:
    """Clients that sweep, one after another."""
    lines = run.records("sweep", "attack")[:rows]
    first = min(line["ts"] for line in lines)
    return [
        line | {"client_id": f"{name}-{number}", "ts": line["ts"] + start_s + every_s * number + 0.001 * place}
        for number in range(count)
        for place, line in enumerate(lines)
        if line["ts"] >= first
    ]


def units(lines: Sequence[world.Record]) -> tuple[Unit, ...]:
    return cases.units(sorted(lines, key=lambda line: line["ts"]))


class Installation:
    """Two partitions. logs : what stands in them. said : every event, as often as it was said."""

    def __init__(self, made_with: engine.EngineSettings) -> None:
        self.settings = made_with
        self.logs: list[list[Frame]] = [[] for _ in range(PARTITIONS)]
        self.states = [engine.open_partition(made_with, number) for number in range(PARTITIONS)]
        self.next = [0] * PARTITIONS
        self.stored: list[dict[int, bytes]] = [{} for _ in range(PARTITIONS)]
        self.said: list[Event] = []

    def arrive(self, rows: Iterable[Unit]) -> None:
        """Rows of one raw partition, as `sketch` writes them."""
        parts: dict[int, list[Unit]] = {}
        for unit in rows:
            parts.setdefault(partition_of(unit), []).append(unit)
        for partition, part in sorted(parts.items()):
            for frame in cases.cut(part):
                self.append(partition, frame)

    def append(self, partition: int, frame: Frame) -> None:
        self.logs[partition].append(replace(frame, partition=partition, offset=len(self.logs[partition])))

    def judge(self, partition: int, count: int = 1) -> None:
        """The next frames of a partition; what the judge writes goes over the wire and behind what is there."""
        state = self.states[partition]
        for frame in self.logs[partition][self.next[partition] : self.next[partition] + count]:
            self.said += engine.step(state, frame)
            self.next[partition] = frame.offset + 1
            self.write(state.breakers.take())

    def write(self, told: Iterable[JudgeFrame]) -> None:
        for frame in told:
            places = range(PARTITIONS) if isinstance(frame, BreakerFrame) else (0,)
            for partition in places:
                self.append(partition, frames.decode(frames.encode_control(frame), partition, 0))

    def settle(self) -> None:
        """Until nothing is left to be judged."""
        while any(self.next[n] < len(self.logs[n]) for n in range(PARTITIONS)):
            for partition in range(PARTITIONS):
                self.judge(partition, len(self.logs[partition]))

    def store(self, partition: int, blocks: Iterable[int]) -> None:
        for block in blocks:
            self.stored[partition][block] = engine.dump_block(self.states[partition], block)

    def restart(self, partition: int) -> None:
        """Another judge goes on from the blocks as they were stored, each at its own mark."""
        state = self.states[partition] = engine.open_partition(self.settings, partition)
        for value in self.stored[partition].values():
            engine.load_block(state, value)
        self.next[partition] = int(state.block_offset.min())

    def reset(self, model: str = "") -> None:
        self.append(0, ResetFrame(0, 0, model, "looked at", 1))
        self.settle()

    def replayed(self) -> dict[str, bytes]:
        """What a fold of the logs says, partition after partition."""
        events = []
        for partition, log in enumerate(self.logs):
            state = engine.open_partition(self.settings, partition)
            events += [event for frame in log for event in engine.step(state, frame)]
        return cases.said(events)

    @property
    def opened(self) -> list[BreakerFrame]:
        return [frame for frame in self.logs[1] if isinstance(frame, BreakerFrame)]

    def enforced(self) -> set[str]:
        """Pseudonyms of clients whose last decision doors act on, if it has not run out."""
        last: dict[str, Throttle] = {}
        for event in self.said:
            if event.kind == "throttle":
                record = msgspec.json.decode(event.value, type=Throttle)
                if record.client not in last or record.revision > last[record.client].revision:
                    last[record.client] = record
        return {client for client, record in last.items() if record.mode == "enforce" and record.action == "cap"}

    def alerts(self) -> list[Any]:
        told = {event.id: event for event in self.said if event.kind == "alert" and event.detector == "breaker"}
        return [msgspec.json.decode(event.value) for event in told.values()]


def partition_of(unit: Unit) -> int:
    return int(frames.partition_of(unit.client, PARTITIONS))


def name_of(client: str) -> str:
    keys, tails = cases.identity().clients([client])
    return pseudonym("k1", int(keys[0]), tails[0].tobytes())


def scattered(rows: Sequence[Unit], seed: int) -> Installation:
    """Rows arrive, are judged and told again in any order; judges die and go on from blocks of different ages."""
    rng = random.Random(seed)
    live = Installation(settings())
    waiting = list(rows)
    while waiting or any(live.next[n] < len(live.logs[n]) for n in range(PARTITIONS)):
        act, partition = rng.random(), rng.randrange(PARTITIONS)
        if act < 0.3:
            size = rng.randint(1, 40)
            live.arrive(waiting[:size])
            del waiting[:size]
        elif act < 0.8:
            live.judge(partition, rng.randint(1, 6))
        elif act < 0.95:
            live.store(partition, rng.sample(range(BLOCKS), rng.randint(1, BLOCKS)))
        elif len(live.stored[partition]) == BLOCKS:
            live.restart(partition)
    return live
