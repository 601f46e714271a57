"""A history of attacks among ordinary people as frames, and ways to cut, repeat, stop and restart it."""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from functools import cache
from itertools import chain, groupby, repeat
from typing import NamedTuple
from zlib import crc32

import msgspec
import numpy as np

from detector import engine
from detector.detectors import REGISTRY
from detector.events.finding import Event
from detector.frame import Frame, RowFrame, label
from models.rows import FLAG_EXPLAIN, FLAG_MEMBER, Rows
from streams.config.config import Config
from streams.sketch import columns
from streams.sketch.identity import Identity
from streams.sketch.sketcher import RawRecord, Sketcher
from streams.worker.judge import Partition, due
from streams.worker.state_topic import Stored
from tests.scenarios import run, world

CONFIG = Config.model_validate({"state": {"blocks": 8}})
RAW_PARTITIONS = 2
DRIFT_LIMIT = 1 << 28
PARTITION = 0
EVENT = tuple(field.name for field in fields(Event))

Said = dict[str, bytes]
"""Event id -> everything that is written of it."""


class Unit(NamedTuple):
    """One row where it first stood."""

    frame: RowFrame
    row: int

    @property
    def client(self) -> int:
        return int(self.frame.rows.client[self.row])


def by_hash(client: str) -> int:
    return crc32(client.encode()) % RAW_PARTITIONS


@cache
def settings() -> engine.EngineSettings:
    """With limits of clients' drift that attackers reach: hardly anybody in this history has rows enough for any."""
    fitted = run.artefacts()
    near = {
        name: replace(model, reference=replace(model.reference, drift=np.full(3, DRIFT_LIMIT)))
        for name, model in fitted.models.items()
    }
    return engine.EngineSettings(CONFIG, replace(fitted, models=near))


@cache
def history() -> tuple[Unit, ...]:
    """Rows in the order of `requests`: every detector's attack, people, retries; two raw partitions in turn."""
    lines = world.benign(60, seed=9) + run.records("variants", "lookalike")[:40]
    for detector in REGISTRY:
        lines += run.records(detector.name, "attack")
    lines += [line | {"ts": line["ts"] + 86_400 * 9} for line in run.records("sweep", "attack")]  # again, after expiry
    return tuple(described(unit) for unit in units(sorted(lines, key=lambda line: line["ts"])))


def described(unit: Unit) -> Unit:
    """With novelty, cell, tokens and now and then a member or an explanation, where the sketch said nothing of them.

    Rows off their grid stay as they are, or another detector would speak first of their client.
    """
    rows, at = unit.frame.rows, unit.row
    if rows.offgrid[at]:
        return unit
    rng = random.Random(crc32(f"{unit.client} {rows.request_id(at)}".encode()))
    novelty, cell = rows.novelty.copy(), rows.cell.copy()
    tokens_in, tokens_out, flags = rows.tokens_in.copy(), rows.tokens_out.copy(), rows.flags.copy()
    if np.isnan(novelty[at]) and rng.random() < 0.9:
        novelty[at] = rng.expovariate(1.5)
    cell[at] = cell[at] or rng.choice((0, rng.randint(1, 64)))
    tokens_in[at], tokens_out[at] = tokens_in[at] or rng.randint(0, 20), tokens_out[at] or rng.randint(0, 60)
    flags[at] |= rng.choice((FLAG_MEMBER, FLAG_EXPLAIN)) if rng.random() < 0.05 else 0
    changed = rows._replace(novelty=novelty, cell=cell, tokens_in=tokens_in, tokens_out=tokens_out, flags=flags)
    return Unit(replace(unit.frame, rows=changed), at)


@cache
def identity() -> Identity:
    return Identity(run.SECRETS.pseudonym_key, run.SECRETS.key_id, run.SECRETS.projection_seed)


@cache
def newcomers() -> tuple[Unit, ...]:
    """Other clients, in a raw partition of their own."""
    return units(world.benign(80, seed=10), lambda client: RAW_PARTITIONS)


def units(lines: Iterable[world.Record], partition_of: Callable[[str], int] = by_hash) -> tuple[Unit, ...]:
    """lines : in the order in which they reach `requests`."""
    sketcher = Sketcher(run.artefacts(), identity(), CONFIG)
    written: Counter[int] = Counter()
    found: list[Unit] = []
    for partition, group in groupby(lines, key=lambda line: partition_of(line["client_id"])):
        records = []
        for line in group:
            value = world.as_bytes(line | {"request_id": f"r-{partition}-{written[partition]}"})
            records.append(RawRecord(written[partition], value, None, [], -1))
            written[partition] += 1
        result = sketcher.frames("gateway-logs", partition, "0", records, 1)
        rows = [Unit(frame, row) for frame in result.frames for row in range(frame.rows.count)]
        assert len(rows) == len(records)
        found += rows
    return tuple(found)


def cut(rows: Sequence[Unit], lengths: Iterable[int] = (), start: int = 0, *, together: bool = False) -> list[RowFrame]:
    """Frames of the given lengths, then of 60 rows; of one raw partition each, unless they stand together."""
    sizes = chain(lengths, repeat(60))
    groups: list[list[Unit]] = []
    room = 0
    for unit in rows:
        if room <= 0 or (not together and groups[-1][-1].frame.source_name != unit.frame.source_name):
            groups.append([])
            room = next(sizes)
        groups[-1].append(unit)
        room -= 1
    return [_frame(group, start + place) for place, group in enumerate(groups)]


def _frame(group: list[Unit], offset: int) -> RowFrame:
    parts = [columns.take(unit.frame.rows, np.array([unit.row])) for unit in group]
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in Rows._fields}
    lengths = np.concatenate([np.diff(part.id_offsets) for part in parts])
    joined["id_offsets"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    of = label({int(unit.frame.rows.source[unit.row]): unit.frame.source_name for unit in group})
    return replace(group[0].frame, partition=PARTITION, offset=offset, source_name=of, rows=Rows(**joined))


def said(events: Iterable[Event]) -> Said:
    """What a reader has after duplicates of one id are gone. Fails if one id was given to two different events."""
    found: Said = {}
    for event in events:
        whole = msgspec.json.encode({name: _text(getattr(event, name)) for name in EVENT})
        assert found.setdefault(event.id, whole) == whole
    return found


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def fold(frames: Iterable[Frame]) -> tuple[Said, engine.PartitionState]:
    state = engine.open_partition(settings(), PARTITION)
    events = [event for frame in frames for event in engine.step(state, frame)]
    return said(events), state


@cache
def told() -> Said:
    """What an undisturbed fold says to the history."""
    return fold(cut(history()))[0]


def about(client: int, found: Said) -> Said:
    """Only what concerns one client."""
    mark = f'"client_key":"{client}"'.encode()
    return {name: whole for name, whole in found.items() if mark in whole}


class Worker:
    """A judge without Kafka: the log of frames, a state topic, a committed offset; it can die at any point.

    stored : every block ever written, by anybody. position : next frame of the log.
    """

    def __init__(self, log: Sequence[Frame], stored: list[bytes], committed: int) -> None:
        self.log, self.stored = log, stored
        found = Stored()
        for value in stored:
            found.keep(value)
        self.partition = Partition(engine.open_partition(settings(), PARTITION))
        for block, value in sorted(found.blocks.items()):
            engine.load_block(self.partition.state, value)
            self.partition.written_at[block] = 0.0
        self.partition.next = self.position = committed

    def step(self, frames: int) -> list[Event]:
        """Events of the next frames, none of them acknowledged yet: to die here is to lose them."""
        events = []
        for frame in self.log[self.position : self.position + frames]:
            events += self.partition.step(frame)
            self.position = frame.offset + 1
        return events

    def process(self, frames: int) -> list[Event]:
        """Events of the next frames, acknowledged; their blocks are not written yet."""
        events = self.step(frames)
        self.partition.next = max(self.partition.next, self.position)
        return events

    def release(self) -> None:
        """Write all that is not written; the partition goes."""
        self.write(list(self.partition.unwritten))

    def taken_back(self, committed: int) -> "Worker":
        """This worker with the partition again: with what it remembers, if that is still good."""
        if not self.partition.goes_on_from(committed):
            return Worker(self.log, self.stored, committed)
        self.position = committed
        return self

    def write(self, blocks: Iterable[int]) -> None:
        for block in sorted(blocks):
            self.stored.append(self.partition.dump(block))
            self.partition.written([block], float(len(self.stored)))

    def write_round(self, share: float) -> None:
        """Part of a round of block writing, the oldest first."""
        self.write(due([self.partition], math.inf, share).get(self.partition, []))

    def begin_to_write(self, share: float) -> None:
        """The same, to die in the middle: half of the blocks arrive, none is acknowledged."""
        values = [
            self.partition.dump(block) for block in due([self.partition], math.inf, share).get(self.partition, [])
        ]
        self.stored.extend(values[: len(values) // 2])

    @property
    def committable(self) -> int:
        return self.partition.committable


def shuffled(rows: Sequence[Unit], seed: int) -> list[Unit]:
    """Another race between raw partitions: each client's rows stay in order, and so do each raw partition's."""
    rng = random.Random(seed)
    names = sorted({unit.frame.source_name for unit in rows})
    queues = [[unit for unit in rows if unit.frame.source_name == name] for name in names]
    mixed = []
    while any(queues):
        queue = rng.choice([queue for queue in queues if queue])
        take = rng.randint(1, 30)
        mixed += queue[:take]
        del queue[:take]
    return mixed
