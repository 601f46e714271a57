"""A history as rows, for `calibrate` and `certify-check`."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from detector.calibrate.client_days import once, select
from detector.events.encode import moment, rfc3339
from models.rows import Rows, distinct
from streams.config.config import Config
from streams.history.base import FrameBatch, RawBatch, Source, SourceError, together
from streams.history.order import LogOrder, measured
from streams.progress import Reporter
from streams.sketch.identity import Identity
from streams.sketch.sketcher import SketchedModels, Sketcher, raw_range
from streams.wire.rejects import Reject, told

DAY_S = 86_400


class History(NamedTuple):
    """rows : of each model, batch after batch, in the order in which they are folded. unjudged : rows by reason."""

    rows: dict[str, list[Rows]]
    rejects: list[Reject]
    unjudged: Counter[str]
    records: int
    sha256: str
    order: LogOrder = LogOrder(0, 0, 0, 0)

    @property
    def row_count(self) -> int:
        return sum(part.count for parts in self.rows.values() for part in parts)

    @property
    def told(self) -> str:
        """What could not be read, in a sentence; "" if everything was."""
        return told(self.records, self.rejects, self.unjudged)

    def period(self) -> tuple[str, str]:
        """Times of the first and the last row, RFC 3339; "" without rows."""
        times = [part.time_ms for parts in self.rows.values() for part in parts if part.count]
        if not times:
            return "", ""
        first, last = min(int(part.min()) for part in times), max(int(part.max()) for part in times)
        return rfc3339(moment(first)), rfc3339(moment(last))

    def clients(self) -> "np.ndarray[Any, np.dtype[np.uint64]]":
        """Every client once."""
        keys = [part.client for parts in self.rows.values() for part in parts]
        return distinct(np.concatenate(keys or [np.zeros(0, np.uint64)]))

    def without(self, clients: Iterable[int]) -> "History":
        gone = np.fromiter(clients, np.uint64)
        if not len(gone):
            return self
        kept = {
            name: [select(part, ~np.isin(part.client, gone)) for part in parts] for name, parts in self.rows.items()
        }
        return self._replace(rows=kept)


def raw_batches(sources: Sequence[Source], reporter: Reporter, doing: str) -> Iterable[RawBatch]:
    """Every batch of every source. Raises SourceError if one holds frames."""
    for source in sources:
        for batch in source.batches(reporter.task(f"{doing} {source.name}", source.size)):
            if not isinstance(batch, RawBatch):
                raise SourceError(f"{source.name}: frames hold no inputs; raw records are needed")
            yield batch


def read(
    sources: Sequence[Source], config: Config, identity: Identity, models: SketchedModels, reporter: Reporter
) -> History:
    """Read history through the same sketch that runs live. Rows that it holds more than once count once, as there."""
    sketcher = Sketcher(models, identity, config)
    rows: dict[str, list[Rows]] = {name: [] for name in models.models}
    rejects: list[Reject] = []
    unjudged: Counter[str] = Counter()
    digest, records, topics = hashlib.sha256(), 0, dict[int, str]()
    for batches in together(raw_batches(sources, reporter, "sketching")):
        assert not isinstance(batches, FrameBatch)
        for record in (record for batch in batches for record in batch.records):
            records += 1
            digest.update(record.value or b"")
        stretches = [raw_range(b.topic, b.partition, config.input.incarnation, b.records) for b in batches]
        topics |= {one.source: one.topic for one in stretches}
        result = sketcher.frames_of(stretches, 1)
        rejects += result.rejects
        unjudged += result.unjudged
        for frame in result.frames:
            rows[frame.model].append(frame.rows)
    once_only = {name: once(parts) for name, parts in rows.items()}
    return History(once_only, rejects, unjudged, records, digest.hexdigest(), measured(once_only, topics))


def date(day: int) -> str:
    """day : since 1970."""
    return datetime.fromtimestamp(day * DAY_S, UTC).date().isoformat()


def code_sha256() -> str:
    """Hash of the sources of `detector` and `models`, which certificates and events depend on."""
    digest = hashlib.sha256()
    for package in ("detector", "models"):
        for name, content in sorted(_sources(package).items()):
            digest.update(f"{package}/{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _sources(package: str) -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    waiting = [(files(package), "")]
    while waiting:
        folder, prefix = waiting.pop()
        for entry in folder.iterdir():
            if entry.is_dir():
                waiting.append((entry, f"{prefix}{entry.name}/"))
            elif entry.name.endswith(".py"):
                found[prefix + entry.name] = entry.read_bytes()
    return found
