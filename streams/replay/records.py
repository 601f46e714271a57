"""Raw records on their way into the fold: sketched, and placed as if they had been written to `requests`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace as with_fields

from detector.frame import CloseFrame, RowFrame, ShiftFrame
from models.artefacts.store import Artefacts
from models.rows import U8, U64
from streams.config.config import Config
from streams.history.base import RawBatch
from streams.replay.fold import Fold
from streams.secrets.load import Secrets
from streams.sketch.identity import Identity, former_of
from streams.sketch.sketcher import Sketcher


class NamingIdentity(Identity):
    """Keeps the name behind every client key, for `--plain-clients`."""

    def __init__(self, secrets: Secrets, registry: Iterable[str]) -> None:
        former = former_of(secrets, registry)
        super().__init__(secrets.pseudonym_key, secrets.key_id, secrets.projection_seed, former=former)
        self.names: dict[int, str] = {}

    def clients_of_utf8(self, client_ids: Sequence[bytes]) -> tuple[U64, U8]:
        keys, tails = super().clients_of_utf8(client_ids)
        self.names.update(zip(keys.tolist(), map(bytes.decode, client_ids), strict=True))
        return keys, tails


class Records:
    """What `sketch` makes of raw batches, in order, into one fold."""

    def __init__(self, config: Config, artefacts: Artefacts, secrets: Secrets, fold: Fold, plain_clients: bool) -> None:
        self.written: Counter[int] = Counter()
        self._incarnation = config.input.incarnation
        self._partitions = config.topics.partitions
        self._identity = NamingIdentity(secrets, config.input.registry)
        self._sketcher = Sketcher(artefacts, self._identity, config)
        self._names = self._identity.names if plain_clients else {}
        self._fold = fold

    def add(self, batch: RawBatch) -> None:
        result = self._sketcher.frames(batch.topic, batch.partition, self._incarnation, batch.records, self._partitions)
        part = self._fold.part
        part.records += len(batch.records)
        part.rejects += result.rejects
        part.unjudged.update(result.unjudged)
        self._fold.step([self._placed(with_fields(frame, names=self._names)) for frame in result.frames])

    def close_windows(self) -> None:
        """As `link` does it: where windows close, then the shift of each space, goes into every partition."""
        if (until_ms := self._fold.due_ms) is not None:
            self._spread(CloseFrame(-1, -1, until_ms))
        for shift in self._fold.close_windows():
            self._spread(shift)

    def _spread(self, frame: ShiftFrame | CloseFrame) -> None:
        for partition in range(self._partitions):
            self._fold.step([self._placed(with_fields(frame, partition=partition))])

    def _placed(self, frame: RowFrame | ShiftFrame | CloseFrame) -> RowFrame | ShiftFrame | CloseFrame:
        offset = self.written[frame.partition]
        self.written[frame.partition] += 1
        return with_fields(frame, offset=offset)
