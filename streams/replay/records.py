"""Raw records on their way into the fold: sketched, with the offsets that they would have in `requests`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace as with_fields

from detector.frame import LinkFrame, RowFrame
from models.rows import U8, U64
from streams.history.base import RawBatch
from streams.replay.fold import Findings, Fold
from streams.replay.inputs import Plan
from streams.replay.link import ReplayedLink
from streams.secrets.load import Secrets
from streams.sketch.identity import Identity, former_of
from streams.sketch.sketcher import Sketcher, raw_range


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

    def __init__(self, plan: Plan, findings: Findings, fold: Fold, link: ReplayedLink) -> None:
        config = plan.config
        self._findings = findings
        self._fold = fold
        self._link = link
        self._incarnation = config.input.incarnation
        self._partitions = config.topics.partitions
        identity = _NamingIdentity(plan.secrets, config.input.registry)
        self._sketcher = Sketcher(plan.artefacts, identity, config)
        self._names = identity.names if plan.plain_clients else {}
        self._written: Counter[int] = Counter()

    def add(self, batches: Sequence[RawBatch]) -> None:
        """Batches of the same time, of different raw partitions."""
        stretches = [raw_range(b.topic, b.partition, self._incarnation, b.records) for b in batches]
        result = self._sketcher.frames_of(stretches, self._partitions)
        self._findings.summary.records += sum(len(batch.records) for batch in batches)
        self._findings.rejects += result.rejects
        self._findings.summary.unjudged.update(result.unjudged)
        self._step([with_fields(frame, names=self._names) for frame in result.frames])

    def close_windows(self) -> None:
        """As `link` does: close frames, then the results of closed windows, into every partition."""
        for frame in self._link.due():
            self._broadcast(frame)
        for result in self._link.close_windows():
            self._broadcast(result)

    def _broadcast(self, frame: LinkFrame) -> None:
        for partition in range(self._partitions):
            self._step([with_fields(frame, partition=partition)])

    def _step(self, frames: Sequence[RowFrame | LinkFrame]) -> None:
        placed = []
        for frame in frames:
            placed.append(with_fields(frame, offset=self._written[frame.partition]))
            self._written[frame.partition] += 1
        self._link.step(placed)
        self._fold.step(placed)
