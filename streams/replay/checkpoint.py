"""A replay that was stopped goes on: what its folds held, and how far they had come."""

import hashlib
import time
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from detector.drift.fold import StateError
from detector.engine import BlockError
from detector.events.finding import Event
from streams.history.base import SourceError
from streams.replay.link import KeptLink
from streams.replay.survey import KeptSpace
from streams.wire.rejects import Reject

FOLDER = "unfinished"
FIRST_S = 120.0
SHARE = 20
"""A checkpoint is due when this many times the last one's cost has passed: they take at most a twentieth."""


class CheckpointError(SourceError):
    """What a stopped replay left cannot be gone on with. Says why."""


class KeptCensus(msgspec.Struct):
    """A Census; arrays as bytes."""

    rows: int
    rows_by_class: list[int]
    clients: bytes
    classes: bytes
    of_day: dict[int, bytes]
    of_source: dict[int, bytes]
    survey: dict[str, KeptSpace]


class KeptPart(msgspec.Struct):
    """A Part."""

    told: list[tuple[Event, bool]]
    rejects: list[Reject]
    unjudged: dict[str, int]
    census: KeptCensus
    counts: dict[str, int]
    clock_ms: int | None


class KeptFold(msgspec.Struct):
    """A Fold. blocks : partition -> all of its blocks."""

    part: KeptPart
    blocks: dict[int, list[bytes]]
    link: KeptLink | None
    cold: list[int]
    eras: dict[int, int]
    link_cold: bool


class Kept(msgspec.Struct):
    """One file. run : what it is a part of. reached : by stretch, offset or number of records that come next.
    written : frames made of raw records, by partition. done : nothing is left to read.
    """

    run: str
    reached: dict[str, int]
    written: dict[int, int]
    done: bool
    fold: KeptFold


class Keeper:
    """Checkpoints of one fold of a run."""

    def __init__(self, folder: Path, name: str, run: str) -> None:
        self._path = folder / FOLDER / f"{name}.zst"
        self.run = run
        self._next = time.monotonic() + FIRST_S

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._next

    def keep(self, kept: Kept) -> None:
        """All of it or none."""
        begun = time.monotonic()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".unfinished")
        unfinished.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(msgspec.msgpack.encode(kept)))
        unfinished.replace(self._path)
        now = time.monotonic()
        self._next = now + max(FIRST_S, SHARE * (now - begun))

    def load(self) -> Kept | None:
        """None if nothing was kept. Raises CheckpointError."""
        try:
            packed = self._path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            kept = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(packed), type=Kept)
        except (zstandard.ZstdError, msgspec.MsgspecError) as error:
            raise CheckpointError(f"{self._path}: damaged; replay without --resume") from error
        if kept.run != self.run:
            raise CheckpointError(
                f"{self._path}: left by another replay (sources, configuration, artefacts or options differ);"
                " give the same ones, or replay without --resume"
            )
        return kept

    def refuse(self, error: Exception) -> CheckpointError:
        return CheckpointError(f"{self._path}: {error}; replay without --resume")


UNUSABLE = (BlockError, StateError)


def forget(folder: Path) -> None:
    """Remove every checkpoint of a folder."""
    for path in sorted((folder / FOLDER).glob("*")):
        path.unlink()
    if (folder / FOLDER).is_dir():
        (folder / FOLDER).rmdir()


def is_unfinished(folder: Path) -> bool:
    return any((folder / FOLDER).glob("*.zst"))


def fingerprint(*parts: Any) -> str:
    """Of everything that the bytes of a replay depend on."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
