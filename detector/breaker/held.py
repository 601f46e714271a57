"""What the judge of a partition knows of breakers: what it enforces, what opened, and, for partition 0, the fuses.

    decided   a decision was made           -> a DecidedFrame for partition 0
    count     a DecidedFrame, in partition 0 -> a BreakerFrame for every partition, once a fuse blows
    apply     a BreakerFrame                 -> decisions in force fall back to shadow, or return to be enforced

Nothing else is shared between clients. Each block applies a BreakerFrame at its offset, like everything in the log.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from detector import policy
from detector.breaker import alert
from detector.breaker.fuse import Fuse, Scale, rank
from detector.events.build import remember, standing
from detector.events.encode import id_of, moment
from detector.events.escape import json_bytes
from detector.events.finding import LEVELS, Event, Finding, Provenance
from detector.frame import BreakerFrame, DecidedFrame, JudgeFrame, ResetFrame
from detector.settings import Policy
from models.client_table import ClientTable
from models.kernels.layout import block_of
from probewatch_door.record import Throttle

PAST_ROWS = 16
"""A client has a past that sent so many rows on earlier days: an account made for the purpose must wait and work."""

NO_FLOOR = -(2**62)

_throttle = msgspec.json.Decoder(Throttle)


class Held(NamedTuple):
    """A decision in force. excess_milli : the most evidence told of it. record : its throttle record, JSON."""

    excess_milli: int
    record: bytes


class Stored(msgspec.Struct, array_like=True):
    """The part of one block. fuses : by space, in block 0 of partition 0 only."""

    opened: list[BreakerFrame] = []
    held: list[tuple[int, str, int, bytes]] = []
    fuses: dict[str, Fuse] = {}


class Known(NamedTuple):
    """What the fold knows besides. tables : by space. scales : by space, what its decisions are counted against."""

    policy: Policy
    provenance: Provenance
    tables: Mapping[str, ClientTable]
    scales: Mapping[str, Scale]


def acts(policy: Policy) -> bool:
    return policy.mode == "enforce" and policy.breaker.enabled


def rungs(policy: Policy) -> tuple[int, ...]:
    """Levels that hold clients back."""
    return tuple(level for level in range(1, len(LEVELS)) if getattr(policy, LEVELS[level]).action != "observe")


def has_past(client: Any) -> bool:
    """client : a record of the client table."""
    return int(client["rows"]) - int(client["rows_today"]) >= PAST_ROWS


@dataclass(slots=True)
class Breakers:
    """Of one partition. opened : (block, space) -> the newest BreakerFrame that the block has applied.

    held : (client, space) -> its decision in force. outbox : frames to be written into `requests`; whoever steps takes
    them, or drops them where the log holds them already.
    """

    opened: dict[tuple[int, str], BreakerFrame] = field(default_factory=dict)
    held: dict[tuple[int, str], Held] = field(default_factory=dict)
    fuses: dict[str, Fuse] = field(default_factory=dict)
    outbox: list[JudgeFrame] = field(default_factory=list)

    def take(self) -> list[JudgeFrame]:
        taken, self.outbox = self.outbox, []
        return taken

    def keeps_back(self, block: int, space: str, client: Any, level: int, excess_milli: int, known: Known) -> bool:
        """Whether a decision stays in shadow: the breaker is open, and others have more evidence against them."""
        frame = self.opened.get((block, space))
        if frame is None or not acts(known.policy) or frame.artefact_hash != known.provenance.artefact_hash:
            return False
        return rank(excess_milli, int(client["key"])) < _floor(frame, level, client)

    def decided(self, finding: Finding, client_class: int, slot: int, record: bytes, known: Known) -> None:
        """Remember a decision, and tell partition 0 of it. slot : of the client in its table."""
        if not acts(known.policy):
            return
        key = finding.client_key, finding.space
        level = finding.decision.level
        if level not in rungs(known.policy) or finding.reason in known.policy.shadow_detectors:
            self.held.pop(key, None)
            return
        self.held[key] = Held(finding.excess_milli, record)
        self.outbox.append(
            DecidedFrame(
                partition=0,
                offset=-1,
                model=finding.model,
                space=finding.space,
                artefact_hash=finding.artefact_hash,
                client=finding.client_key,
                name=finding.client,
                client_class=client_class,
                level=level,
                excess_milli=finding.excess_milli,
                known=has_past(known.tables[finding.space].table.clients[slot]),
                others=_others(known.tables[finding.space], slot),
                decided_ms=finding.decision.issued_ms,
            )
        )

    def count(self, frame: DecidedFrame | ResetFrame, known: Known) -> bool:
        """In partition 0, for block 0. Whether anything changed."""
        if isinstance(frame, ResetFrame):
            return self._reset(frame)
        scale = known.scales.get(frame.space)
        if scale is None or frame.artefact_hash != known.provenance.artefact_hash or not acts(known.policy):
            return False
        fuse = self.fuses.get(frame.space)
        if fuse is None or fuse.artefact_hash != frame.artefact_hash:
            fuse = self.fuses[frame.space] = Fuse(frame.artefact_hash)
        told = fuse.add(frame, scale)
        if told is not None:
            self.outbox.append(told)
        return True

    def _reset(self, frame: ResetFrame) -> bool:
        changed = False
        for space, fuse in sorted(self.fuses.items()):
            opened = fuse.opened
            if opened is not None and frame.model in ("", opened.model):
                self.outbox.append(replace(opened, revision=frame.offset, floors=(), opens=False))
                self.fuses[space] = Fuse(fuse.artefact_hash)
                changed = True
        return changed

    def apply(self, frame: BreakerFrame, blocks: int, closed: Collection[int], known: Known) -> list[Event]:
        """In the blocks that have yet to come to it. blocks : of the partition. closed : those that have.

        The alert is the frame's own, so that it is the same whoever counted, and is told once, by block 0 of partition
        0. Returns events; `outbox` gains what is known by now of clients that stay enforced.
        """
        reached = [block for block in range(blocks) if block not in closed and self._is_news(block, frame)]
        for block in reached:
            self.opened[block, frame.space] = frame
        ours = frame.artefact_hash == known.provenance.artefact_hash and acts(known.policy)
        if not ours:
            return []
        tells = frame.opens and frame.partition == 0 and 0 in reached
        found = [alert.event(known.provenance, frame)] if tells else []
        among = set(reached)
        for key in sorted(key for key in self.held if key[1] == frame.space and block_of(key[0], blocks) in among):
            event = self._adjust(key, frame, known)
            found += [] if event is None else [event]
        return found

    def _is_news(self, block: int, frame: BreakerFrame) -> bool:
        before = self.opened.get((block, frame.space))
        return before is None or frame.revision > before.revision or frame.artefact_hash != before.artefact_hash

    def _adjust(self, key: tuple[int, str], frame: BreakerFrame, known: Known) -> Event | None:
        """A client's decision in force, again in the mode that it has now; None if that is the one it has."""
        client = _client(known.tables, key)
        if not _in_force(client) or int(client["expires_ms"]) <= frame.until_ms:
            del self.held[key]
            return None
        held, record = self.held[key], _throttle.decode(self.held[key].record)
        excess = max(held.excess_milli, int(client["statistic"]))
        mode: Literal["shadow", "enforce"] = "enforce"
        if rank(excess, key[0]) < _floor(frame, record.level, client):
            mode = "shadow"
        if mode == "enforce" and frame.floors and excess != held.excess_milli:
            self.held[key] = held._replace(excess_milli=excess)
            self.outbox.append(_again(key[0], record, client, excess, frame))
        return None if mode == record.mode else self._restated(key, record, client, mode, known.provenance)

    def _restated(
        self, key: tuple[int, str], record: Throttle, client: Any, mode: Literal["shadow", "enforce"], made: Provenance
    ) -> Event:
        """The same decision in another mode, from now on. client : its record of the table, which learns of it.

        In shadow for an hour at most: whoever goes on is decided on again, by the evidence of then.
        """
        before = standing(client)
        now_ms = max(int(client["clock_ms"]), before.decided_ms)
        expires_ms = before.expires_ms if mode == "enforce" else min(before.expires_ms, now_ms + policy.HOUR_MS)
        after = replace(before, revision=before.revision + 1, expires_ms=expires_ms)
        remember(client, after)
        changed = msgspec.structs.replace(
            record,
            decision_id=id_of("restated", key[1], key[0], after.revision, now_ms, mode),
            revision=after.revision,
            mode=mode,
            issued_at=moment(now_ms),
            effective_at=moment(now_ms),
            expires_at=moment(expires_ms),
            **made._asdict(),
        )
        value = json_bytes(changed)
        self.held[key] = self.held[key]._replace(record=value)
        facts = changed.model, changed.reason, changed.level, changed.certified, changed.finding_uid, changed.trigger
        return Event("throttle", changed.decision_id, changed.key.encode(), value, (), key[0], now_ms, *facts)

    def dump(self, partition: int, block: int, blocks: int, tables: Mapping[str, ClientTable]) -> Stored:
        """The part of a block; decisions that have run out are left out."""
        mine = sorted(key for key in self.held if block_of(key[0], blocks) == block)
        kept = [(*key, *self.held[key]) for key in mine if _in_force(_client(tables, key))]
        opened = [frame for (at, _), frame in sorted(self.opened.items(), key=lambda one: one[0]) if at == block]
        return Stored(opened, kept, self.fuses if partition == block == 0 else {})

    def load(self, partition: int, block: int, blocks: int, stored: Stored) -> None:
        """Put a dumped part in place of what there is of the block."""
        self.held = {key: held for key, held in self.held.items() if block_of(key[0], blocks) != block}
        self.held |= {(client, space): Held(excess, record) for client, space, excess, record in stored.held}
        self.opened = {about: frame for about, frame in self.opened.items() if about[0] != block}
        self.opened |= {(block, frame.space): frame for frame in stored.opened}
        if partition == block == 0:
            self.fuses = stored.fuses


def without(stored: Stored, clients: Collection[int]) -> Stored:
    """A block's part without some clients: their decisions, and, in the fuses, that they were counted."""
    held = [one for one in stored.held if one[0] not in clients]
    fuses = {
        space: msgspec.structs.replace(
            fuse, decided={client: one for client, one in fuse.decided.items() if client not in clients}
        )
        for space, fuse in stored.fuses.items()
    }
    return Stored(stored.opened, held, fuses)


def _again(key: int, record: Throttle, client: Any, excess_milli: int, frame: BreakerFrame) -> DecidedFrame:
    """The decision in force, with the evidence of today."""
    return DecidedFrame(
        partition=0,
        offset=-1,
        model=frame.model,
        space=frame.space,
        artefact_hash=frame.artefact_hash,
        client=key,
        name=record.client,
        client_class=0,
        level=record.level,
        excess_milli=excess_milli,
        known=has_past(client),
        others=(0, 0),
        decided_ms=int(client["decided_ms"]),
        again=True,
    )


def _client(tables: Mapping[str, ClientTable], key: tuple[int, str]) -> Any:
    table = tables.get(key[1])
    slot = -1 if table is None else table.find(key[0])
    return None if table is None or slot < 0 else table.table.clients[slot]


def _in_force(client: Any) -> bool:
    """By the client's own clock. client : None if it is unknown."""
    return client is not None and int(client["level"]) > 0 and int(client["expires_ms"]) > int(client["clock_ms"])


def _floor(frame: BreakerFrame, level: int, client: Any) -> int:
    """The least rank with which a decision on the client is enforced."""
    past = has_past(client)
    return next((floor for rung, known, floor in frame.floors if (rung, known) == (level, past)), NO_FLOOR)


def _others(table: ClientTable, slot: int) -> tuple[int, int]:
    """Other clients of the same block, seen within a day of this one: without a past, and with one."""
    clients = table.table.clients
    own = clients[slot]
    block = table.of_block(block_of(int(own["key"]), len(table.table.block_head)))
    seen = block[block["clock_ms"] >= int(own["clock_ms"]) - policy.DAY_MS]
    past = int(np.count_nonzero(seen["rows"] - seen["rows_today"] >= PAST_ROWS))
    new = len(seen) - past
    return (new, past - 1) if has_past(own) else (new - 1, past)
