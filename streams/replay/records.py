"""Raw records on their way into the fold: sketched, with the offsets that they would have in `requests`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace as with_fields

from detector.frame import CloseFrame, RowFrame, ShiftFrame
from models.rows import U8, U64
from streams.history.base import RawBatch
from streams.replay.drift import DriftFold
from streams.replay.fold import Findings, Fold
from streams.replay.inputs import Plan
from streams.secrets.load import Secrets
from streams.sketch.identity import Identity, former_of
from streams.sketch.sketcher import Sketcher


class _NamingIdentity(Identity):
    """Keeps the client id of each key, for `--plain-clients`."""

    def __init__(self, secrets: Secrets, registry: Iterable[str]) -> None:
        former = former_of(secrets, registry)
        super().__init__(secrets.pseudonym_key, secrets.key_id, secrets.projection_seed, former=former)
        self.names: dict[int, str] = {}

    def clients_of_utf8(self, client_ids: Sequence[bytes]) -> tuple[U64, U8]:
        keys, tails = super().clients_of_utf8(client_ids)
        self.names.update(zip(keys.tolist(), map(bytes.decode, client_ids), strict=True))
        return keys, tails


class Records:
    """Sketches raw batches in order, as `sketch` does, and feeds the frames to both folds."""

    def __init__(self, plan: Plan, findings: Findings, fold: Fold, drift: DriftFold) -> None:
        config = plan.config
        self._findings = findings
        self._fold = fold
        self._drift = drift
        self._incarnation = config.input.incarnation
        self._partitions = config.topics.partitions
        identity = _NamingIdentity(plan.secrets, config.input.registry)
        self._sketcher = Sketcher(plan.artefacts, identity, config)
        self._names = identity.names if plan.plain_clients else {}
        self._written: Counter[int] = Counter()

    def add(self, batch: RawBatch) -> None:
        result = self._sketcher.frames(batch.topic, batch.partition, self._incarnation, batch.records, self._partitions)
        self._findings.summary.records += len(batch.records)
        self._findings.rejects += result.rejects
        self._findings.summary.unjudged.update(result.unjudged)
        self._step([with_fields(frame, names=self._names) for frame in result.frames])

    def close_windows(self) -> None:
        """As `link` does: a close frame, then the shift of each space, into every partition."""
        if (until_ms := self._drift.due_ms) is not None:
            self._broadcast(CloseFrame(-1, -1, until_ms))
        for shift in self._drift.close_windows():
            self._broadcast(shift)

    def _broadcast(self, frame: ShiftFrame | CloseFrame) -> None:
        for partition in range(self._partitions):
            self._step([with_fields(frame, partition=partition)])

    def _step(self, frames: Sequence[RowFrame | ShiftFrame | CloseFrame]) -> None:
        placed = []
        for frame in frames:
            placed.append(with_fields(frame, offset=self._written[frame.partition]))
            self._written[frame.partition] += 1
        self._drift.step(placed)
        self._fold.step(placed)
