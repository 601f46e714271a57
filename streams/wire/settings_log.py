"""Settings log: a record in the state topic whenever the settings change with which a partition is judged.

A replay switches configurations at the same offsets. The log has keys of its own in the topic of the blocks, which a
judge reads anyway when it takes a partition over.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec

from detector.events.finding import Provenance
from streams import files

SCHEMA = "probewatch.settings/1"
KEY = b"settings/"
FILE = "settings.jsonl"


class JudgedWith(msgspec.Struct, frozen=True, order=True):
    """The settings of a partition from `offset` on, until the partition's next record."""

    partition: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
    offset: Annotated[int, msgspec.Meta(ge=0, lt=2**63 - 1)]
    config_hash: str
    artefact_hash: str
    engine_version: str
    schema: str = SCHEMA

    @property
    def made_with(self) -> Provenance:
        return Provenance(self.config_hash, self.artefact_hash, self.engine_version)

    @property
    def key(self) -> bytes:
        return KEY + b"%d/%d" % (self.partition, self.offset)


_record = msgspec.json.Decoder(JudgedWith)


def encode(one: JudgedWith) -> bytes:
    return msgspec.json.encode(one)


def decode(key: bytes | None, value: bytes | None, partition: int) -> JudgedWith | None:
    """The record, if it is one of this partition."""
    if not (key or b"").startswith(KEY):
        return None
    try:
        found = _record.decode(value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return found if found.partition == partition and found.key == key and found.schema == SCHEMA else None


def due(known: Iterable[JudgedWith], partition: int, offset: int, made_with: Provenance) -> JudgedWith | None:
    """The record to write before frames from this offset on are judged; None if the log has it already."""
    before = max((one for one in known if one.offset <= offset), default=None, key=lambda one: one.offset)
    if before is not None and before.made_with == made_with:
        return None
    return JudgedWith(partition, offset, *made_with)


def keep(folder: Path, entries: Iterable[JudgedWith]) -> None:
    """Add entries to the log of an archive, atomically."""
    path = folder / FILE
    merged = sorted({(entry.partition, entry.offset): entry for entry in [*read(folder), *entries]}.values())
    files.write_lines(path, map(encode, merged))


def read(folder: Path) -> list[JudgedWith]:
    """The log of an archive, empty if it has none. Raises msgspec.MsgspecError if it is damaged."""
    path = folder / FILE
    return [_record.decode(line) for line in path.read_bytes().splitlines()] if path.is_file() else []
