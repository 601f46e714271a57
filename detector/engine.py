"""The fold: (state, frame) -> events. The same bytes for the same history, live or replayed; start reading here.

    step(state, frame)
      rows    -> models/kernels/fold/fold.py walks them; each crossing -> policy.decide -> Finding -> events.events
                 each client whose inputs have moved -> client_drift.event
      control -> an allowance or a lift, in force from its offset on
      shift   -> how far the population has moved, taken off from its offset on
      result  -> fields that are news about the population, taken out of the evidence from its offset on
      breaker -> what is enforced from its offset on; decided -> counted by the fuses in partition 0 (detector/breaker)

State is cut into blocks by client. A block carries its own marks: the `requests` offset it has reached, and per source
the position it has applied. Whatever comes again, doubled or late, lies below a mark and changes nothing. What the log
itself holds twice stands at another position: for that, clients keep receipts of their latest rows.
"""

import struct
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Annotated, NamedTuple, Protocol

import msgspec
import numpy as np
import zstandard

from detector import __version__, evidence, orders, policy
from detector.breaker import held
from detector.breaker.fuse import Scale
from detector.drift import client as client_drift
from detector.events import build
from detector.events.encode import events
from detector.events.finding import Event, Finding, Provenance
from detector.frame import (
    BreakerFrame,
    CloseFrame,
    ControlFrame,
    DecidedFrame,
    Frame,
    ResetFrame,
    ResultFrame,
    RowFrame,
    ShiftFrame,
)
from detector.schema_drift.news import news_of
from detector.settings import DetectionSettings
from detector.state.packing import BODY_BYTES_MIN, pack, unpack
from models.artefacts.store import Artefacts, ModelArtefact
from models.client_table import ClientTable, by_name, no_tally
from models.kernels.layout import (
    CROSSED,
    DONE,
    MOVED,
    RAISED_LEVEL,
    SLOT,
    STATISTIC,
    VERDICT,
    Nulls,
    Tally,
    block_of,
)
from models.pseudonym import client_of
from models.reorder import joined
from models.rows import I64, class_of

BLOCK_MAGIC = b"PWBK"
BLOCK_LAYOUT = 2
"""Raise it when the body of a block or a record of the client table changes: other layouts are refused, with a way out.
Detectors need no new one: columns with a part for each process carry the processes' names."""

_BLOCK_HEAD = struct.Struct(">4sIIIIq")
"""Magic, CRC-32 of all that follows, layout, partition, block, offset. These never move: every version can tell a block
of another layout from a damaged one."""

BLOCK_HEAD_BYTES = _BLOCK_HEAD.size
_CHECKED_FROM = 8

BODY_BYTES_MAX = 2**30

_CROSSING = (SLOT, RAISED_LEVEL, STATISTIC)

_Natural = Annotated[int, msgspec.Meta(ge=0)]
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), lt=2**63 - 1)]
_Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]
_UInt32 = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]


class _Body(msgspec.Struct):
    """A block without its head.

    processes : names, by column with a part for each. spaces : columns of the pools as bytes, and `marks`: source,
    offset, index.
    """

    blocks: int
    processes: dict[str, tuple[str, ...]]
    spaces: dict[str, dict[str, bytes | list[tuple[_UInt32, _Int64, _Int32]]]]
    allowed: list[tuple[_Natural, str, _Int64]]
    shift: list[tuple[str, _Int64, tuple[_Int32, ...]]] = []
    blocked: list[tuple[_Natural, str, _Natural, _Int64]] = []
    breaker: held.Stored = msgspec.field(default_factory=held.Stored)


Shift = tuple[int, tuple[int, ...]]
SHIFT_GAP_MS = 7 * 86_400_000
"""Between shifts further apart than this nobody knows how clients went along."""


SHARED_QUIET_MS = 3_600_000
"""A shared client is asked about again after so long, and may be decided on then if the configuration has changed."""


class BlockError(Exception):
    """A stored block that cannot be read here; the text says what to do."""


class DamagedBlockError(BlockError):
    """Bytes that are no block, or not all of those that were written. An older record of the block may be whole."""


class BlockMark(NamedTuple):
    """Which block, and how far it has come. offset : next `requests` offset it has yet to apply."""

    partition: int
    block: int
    offset: int


@dataclass(frozen=True, slots=True)
class Space:
    """One model under one fitted encoder, ready for the fold."""

    artefact: ModelArtefact
    nulls: Nulls


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What decisions depend on besides the rows. Immutable; every event carries its hashes.

    off : detectors that decide nothing until the next calibration, since the artefacts of a model lack their tables.
    shared : clients that are many people, by the configuration: nothing is decided on them.
    Raises ArtefactError for artefacts that were fitted with other kernels.
    """

    config: DetectionSettings
    artefacts: Artefacts
    spaces: dict[str, Space] = field(init=False)
    scales: dict[str, Scale] = field(init=False)
    provenance: Provenance = field(init=False)
    off: frozenset[str] = field(init=False)
    shared: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        spaces = {}
        for artefact in self.artefacts.models.values():
            configured = self.config.models.get(artefact.model)
            threshold = configured.decision_threshold if configured else None
            threshold = artefact.decision_threshold if threshold is None else threshold
            encoder = artefact.encoder
            nulls = evidence.nulls(artefact.reference, encoder.reach, encoder.agreement_min, threshold)
            spaces[artefact.space] = Space(artefact, nulls)
        object.__setattr__(self, "spaces", spaces)
        policy, blocks = self.config.policy, self.config.state.blocks * self.config.request_partitions
        counted = policy.breaker, held.rungs(policy), blocks
        scales = {name: Scale(space.artefact.reference.promised, *counted) for name, space in spaces.items()}
        object.__setattr__(self, "scales", scales)
        off = (name for space in spaces.values() for name in evidence.not_fitted(space.artefact.reference))
        object.__setattr__(self, "off", frozenset(off))
        object.__setattr__(self, "shared", frozenset(map(client_of, self.config.policy.shared_clients)))
        object.__setattr__(self, "provenance", Provenance(self.config.hash, self.artefacts.hash, __version__))


@dataclass(slots=True)
class PartitionState:
    """All clients of one partition of `requests`.

    block_offset : (blocks,) next `requests` offset that each block has yet to apply. dirty : blocks changed since
    they were last dumped. allowed : (client, model or "" for all) -> end on the client's own clock, ms.
    blocked : likewise -> whom people blocked.
    shift : (block, space) -> the newest (until_ms, vector) of a ShiftFrame that the block has applied.
    breakers : which decisions are enforced; its outbox is for who writes to `requests`.
    """

    partition: int
    settings: EngineSettings
    block_offset: I64
    tables: dict[str, ClientTable] = field(default_factory=dict)
    dirty: set[int] = field(default_factory=set)
    allowed: dict[tuple[int, str], int] = field(default_factory=dict)
    blocked: orders.Held = field(default_factory=dict)
    shift: dict[tuple[int, str], Shift] = field(default_factory=dict)
    breakers: held.Breakers = field(default_factory=held.Breakers)
    unjudged: int = 0

    @property
    def known(self) -> held.Known:
        made_with = self.settings
        return held.Known(made_with.config.policy, made_with.provenance, self.tables, made_with.scales)

    @property
    def clients(self) -> int:
        return sum(table.count for table in self.tables.values())

    @property
    def skipped(self) -> int:
        return sum(table.skipped for table in self.tables.values())

    @property
    def redelivered(self) -> int:
        return sum(table.redelivered for table in self.tables.values())

    @property
    def back(self) -> int:
        return sum(table.back for table in self.tables.values())

    @property
    def evicted(self) -> int:
        return sum(table.evicted for table in self.tables.values())

    def table(self, name: str) -> ClientTable:
        """The client table of a space that the settings know."""
        if name not in self.tables:
            encoder = self.settings.spaces[name].artefact.encoder
            state = self.settings.config.state
            self.tables[name] = ClientTable(
                encoder.dim, len(encoder.field_names), evidence.FAMILY_PROCESSES, evidence.JOINT,
                state.blocks, state.block_bytes,
            )  # fmt: skip
        return self.tables[name]


def open_partition(settings: EngineSettings, partition: int) -> PartitionState:
    """An empty state; `load_block` fills it."""
    return PartitionState(partition, settings, np.zeros(settings.config.state.blocks, np.int64))


class Tracer(Protocol):
    """Who looks on while a frame is folded; nothing of it changes what falls. See story.py."""

    def tally(self, frame: RowFrame, table: ClientTable, nothing: Tally) -> Tally:
        """What is to be traced of a frame's rows, before the first of them. nothing : a tally that traces nothing."""
        ...

    def on_decision(self, frame: RowFrame | ControlFrame, row: int, finding: Finding, events: list[Event]) -> None:
        """A decision at a frame's row, or by a person's order, for which `row` is -1."""
        ...


def step(state: PartitionState, frame: Frame, watch: Tracer | None = None) -> list[Event]:
    """Apply one frame; a frame below all marks changes nothing. Rows of unknown spaces are counted, not judged."""
    closed = (state.block_offset > frame.offset).astype(np.int64)
    found: list[Event] = []
    if isinstance(frame, CloseFrame):
        pass
    elif isinstance(frame, ResultFrame):
        _take_news(state, frame, closed)
    elif isinstance(frame, ShiftFrame):
        found = _shift(state, frame, closed)
    elif isinstance(frame, ControlFrame):
        found = [] if closed[block_of(frame.client, len(closed))] else _control(state, frame, watch)
    elif isinstance(frame, DecidedFrame | ResetFrame | BreakerFrame):
        found = _breaker(state, frame, closed)
    elif is_known(state.settings, frame):
        found = walk(state, [frame], closed, watch)
    else:
        state.unjudged += frame.rows.count
    np.maximum(state.block_offset, frame.offset + 1, out=state.block_offset)
    return found


def is_known(settings: EngineSettings, frame: RowFrame) -> bool:
    """Whether rows are judged. A forged frame may name a known space and have rows of another width."""
    space = settings.spaces.get(frame.space)
    if space is None or frame.model != space.artefact.model:
        return False
    encoder = space.artefact.encoder
    widths = frame.rows.values.shape[1], frame.rows.fields.shape[1], frame.rows.surprisal.shape[1]
    return widths == (encoder.dim, len(encoder.field_names), len(encoder.field_names))


def walk(state: PartitionState, frames: Sequence[RowFrame], closed: I64, watch: Tracer | None = None) -> list[Event]:
    """The rows of frames of one known space. closed : (blocks,) 1 where all of them lie below the block's mark.

    watch : looks on at a single frame.
    """
    frame, ends = frames[0], list(accumulate(frame.rows.count for frame in frames))
    space, table = state.settings.spaces[frame.space], state.table(frame.space)
    rows = frame.rows if len(frames) == 1 else joined([frame.rows for frame in frames])
    batch = table.batch(rows)
    tally = no_tally(batch.fields.shape[1], space.nulls.tail.shape[1])
    if watch is not None:
        tally = watch.tally(frame, table, tally)
    verdict = np.zeros(VERDICT, np.int64)
    found: list[Event] = []
    row, status = table.fold(space.nulls, batch, closed, 0, tally, verdict)
    while status != DONE:
        number = bisect_right(ends, row - 1)
        frame, place = frames[number], row - 1 - (ends[number - 1] if number else 0)
        if status & CROSSED:
            found += _decide(state, frame, place, verdict, watch)
        if status & MOVED:
            made_with = state.settings.provenance
            found.append(client_drift.event(made_with, space.artefact, table, frame, place, verdict))
        row, status = table.fold(space.nulls, batch, closed, row, tally, verdict)
    blocks = block_of(rows.client, np.uint64(len(closed))).astype(np.int64)
    state.dirty.update(np.flatnonzero(np.bincount(blocks)).tolist())
    return found


def _decide(state: PartitionState, frame: RowFrame, row: int, verdict: I64, watch: Tracer | None) -> list[Event]:
    key = int(frame.rows.client[row])
    space, table = state.settings.spaces[frame.space], state.tables[frame.space]
    allowed = max(state.allowed.get((key, ""), 0), state.allowed.get((key, frame.model), 0))
    client = table.table.clients[int(verdict[SLOT])]
    now_ms = policy.begins_ms(int(client["clock_ms"]), int(frame.rows.append_ms[row]))
    if key in state.settings.shared:
        allowed = now_ms + SHARED_QUIET_MS
    if now_ms < allowed:
        client["quiet_until_ms"] = allowed
        return []
    made_with = state.settings.provenance
    block, slot, level, excess = block_of(key, len(state.block_offset)), *(int(verdict[n]) for n in _CROSSING)
    kept_back = state.breakers.keeps_back(block, frame.space, client, level, excess, state.known)
    settings = state.settings.config.policy
    finding = build.decided(settings, made_with, space.artefact, space.nulls, table, frame, row, verdict, kept_back)
    found = events(finding)
    state.breakers.decided(finding, class_of(frame.rows.client_class[row]), slot, found[0].value, state.known)
    if watch is not None:
        watch.on_decision(frame, row, finding, found)
    return found


def _shift(state: PartitionState, frame: ShiftFrame, closed: I64) -> list[Event]:
    """By block, as everything: each applies it at its offset, whatever the marks of the others are.

    What counts for clients is by how much it differs from the one before: they too are held against their own past.
    """
    space = state.settings.spaces.get(frame.space)
    if space is not None and len(frame.vector) == space.artefact.encoder.dim:
        for block in np.flatnonzero(closed == 0).tolist():
            until_ms, before = state.shift.get((block, frame.space), (frame.until_ms, frame.vector))
            if frame.until_ms >= until_ms:
                if frame.until_ms - until_ms <= SHIFT_GAP_MS:
                    state.table(frame.space).push(block, np.array(frame.vector) - np.array(before))
                state.shift[(block, frame.space)] = (frame.until_ms, frame.vector)
                state.dirty.add(block)
    return []


def _take_news(state: PartitionState, frame: ResultFrame, closed: I64) -> None:
    """By block, as everything. The same news again changes nothing."""
    news = news_of(frame)
    if news is not None and news.space in state.settings.spaces:
        table = state.table(news.space)
        for block in np.flatnonzero(closed == 0).tolist():
            if table.mute(block, news.masks):
                state.dirty.add(block)


def _breaker(state: PartitionState, frame: DecidedFrame | ResetFrame | BreakerFrame, closed: I64) -> list[Event]:
    """The fuses are part of block 0 of partition 0, where everything that they count stands in one order."""
    if isinstance(frame, BreakerFrame):
        state.dirty.update(np.flatnonzero(closed == 0).tolist())
        return state.breakers.apply(frame, len(closed), np.flatnonzero(closed).tolist(), state.known)
    if frame.partition == 0 and not closed[0] and state.breakers.count(frame, state.known):
        state.dirty.add(0)
    return []


def _control(state: PartitionState, frame: ControlFrame, watch: Tracer | None) -> list[Event]:
    """An allowance silences decisions until its end; a lift also forgets the evidence behind the present one.

    Both end what a block began. A block changes nothing else: evidence goes on under it.
    """
    if frame.action not in orders.ACTIONS:
        return []
    state.dirty.add(block_of(frame.client, len(state.block_offset)))
    made = orders.apply(state.blocked, frame, state.settings.provenance, state.settings.artefacts, state.tables)
    found = [event for finding in made for event in events(finding)]
    if frame.action == "block":
        return found
    if frame.action == "allow":
        state.allowed[(frame.client, frame.model)] = frame.until_ms
    for name, table in sorted(state.tables.items()):
        space = state.settings.spaces.get(name)
        slot = table.find(frame.client)
        if space is None or slot < 0 or frame.model not in ("", space.artefact.model):
            continue
        table.table.clients[slot]["quiet_until_ms"] = frame.until_ms if frame.action == "allow" else 0
        if frame.action == "lift":
            table.forget_evidence(slot)
            finding = build.lifted(state.settings.provenance, space.artefact, table, frame, slot)
            if finding is not None:
                lifted = events(finding)
                found += lifted
                if watch is not None:
                    watch.on_decision(frame, -1, finding, lifted)
    return found


def block_offset(state: PartitionState, block: int) -> int:
    """Next `requests` offset the block has yet to apply."""
    return int(state.block_offset[block])


def dump_block(state: PartitionState, block: int) -> bytes:
    """A block and its marks as one value; clears its dirty mark."""
    spaces = {name: table.dump(block) for name, table in sorted(state.tables.items())}
    blocks = len(state.block_offset)
    allowed = sorted(
        (key, model, until) for (key, model), until in state.allowed.items() if block_of(key, blocks) == block
    )
    shift = sorted((space, *moved) for (at, space), moved in state.shift.items() if at == block)
    blocked = sorted((*about, *kept) for about, kept in state.blocked.items() if block_of(about[0], blocks) == block)
    opened = state.breakers.dump(state.partition, block, blocks, state.tables)
    body = msgspec.msgpack.encode(_Body(blocks, evidence.COLUMNS, spaces, allowed, shift, blocked, opened))
    state.dirty.discard(block)
    return seal(body, state.partition, block, int(state.block_offset[block]))


def seal(body: bytes, partition: int, block: int, offset: int) -> bytes:
    """A block's body packed, behind its head."""
    packed = pack(body, level=1)
    head = _BLOCK_HEAD.pack(BLOCK_MAGIC, 0, BLOCK_LAYOUT, partition, block, offset)[_CHECKED_FROM:]
    return b"".join((BLOCK_MAGIC, zlib.crc32(packed, zlib.crc32(head)).to_bytes(4), head, packed))


def block_mark(value: bytes) -> BlockMark:
    """The mark of a dumped block, found to be whole without unpacking it.

    Raises DamagedBlockError if it is not, BlockError if a version wrote it whose layout is not known here.
    """
    if len(value) < BLOCK_HEAD_BYTES or value[:4] != BLOCK_MAGIC:
        raise DamagedBlockError("not a block")
    _, checksum, layout, partition, block, offset = _BLOCK_HEAD.unpack_from(value)
    if zlib.crc32(memoryview(value)[_CHECKED_FROM:]) != checksum:
        raise DamagedBlockError("damaged block: checksum mismatch")
    if layout != BLOCK_LAYOUT:
        raise BlockError(
            f"block {block} of partition {partition} has layout {layout}, this version reads layout {BLOCK_LAYOUT}:"
            " use the version that wrote it, or name a new topics.judge_state and reset the judge's offsets"
        )
    return BlockMark(partition, block, offset)


def body_of(value: bytes, bytes_max: int = BODY_BYTES_MAX) -> _Body:
    """A block without its head. Raises DamagedBlockError."""
    try:
        return msgspec.msgpack.decode(unpack(value[BLOCK_HEAD_BYTES:], bytes_max), type=_Body)
    except (zstandard.ZstdError, msgspec.MsgspecError, ValueError) as error:
        raise DamagedBlockError(f"damaged block: {type(error).__name__}") from error


def load_block(state: PartitionState, value: bytes) -> None:
    """Put a dumped block in place, whatever detectors it was written with: processes are mapped by name.

    Spaces whose artefacts are gone are dropped: a new encoder is a new state.

    Raises BlockError if it belongs to another partition or another number of blocks, DamagedBlockError.
    """
    partition, block, offset = block_mark(value)
    if partition != state.partition or block >= len(state.block_offset):
        raise BlockError(f"block {block} of partition {partition} does not belong to partition {state.partition}")
    capacity = state.settings.config.state.block_bytes * len(state.settings.spaces)
    body = body_of(value, max(BODY_BYTES_MIN, 2 * capacity))
    blocks = len(state.block_offset)
    if body.blocks != blocks:
        raise BlockError(f"state.blocks is {blocks}, the stored state has {body.blocks}")
    for table in state.tables.values():
        table.clear(block)
    try:
        for name, saved in body.spaces.items():
            if name in state.settings.spaces:
                state.table(name).load(block, by_name(saved, body.processes, evidence.COLUMNS))
    except (KeyError, ValueError, TypeError) as error:
        for table in state.tables.values():
            table.clear(block)
        raise DamagedBlockError(f"block {block} of partition {partition}: {type(error).__name__}") from error
    others = {about: until for about, until in state.allowed.items() if block_of(about[0], blocks) != block}
    stored = {(key, model): until for key, model, until in body.allowed if block_of(key, blocks) == block}
    state.allowed = others | stored
    mine = {(key, model): orders.Blocked(*kept) for key, model, *kept in body.blocked if block_of(key, blocks) == block}
    state.blocked = {about: kept for about, kept in state.blocked.items() if block_of(about[0], blocks) != block} | mine
    moved = {(block, space): (until, vector) for space, until, vector in body.shift}
    state.shift = {about: shift for about, shift in state.shift.items() if about[0] != block} | moved
    state.breakers.load(partition, block, blocks, body.breaker)
    state.block_offset[block] = offset
    state.dirty.discard(block)
