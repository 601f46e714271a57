"""A replay from its sources to its outcome."""

import time
from collections.abc import Sequence

from detector import engine
from detector.config import Config
from models.artefacts import Artefacts
from streams.progress import Reporter
from streams.replay.fold import Fold
from streams.replay.outcome import Outcome, outcome
from streams.replay.records import Records
from streams.replay.selection import EVERYTHING, Selection
from streams.secrets import Secrets
from streams.sources import FrameBatch, RawBatch, Source, SourceError


def replay(
    sources: Sequence[Source],
    config: Config,
    artefacts: Artefacts,
    secrets: Secrets,
    reporter: Reporter,
    *,
    plain_clients: bool = False,
    selection: Selection = EVERYTHING,
) -> Outcome:
    """Read every source to its end and judge it. Raises SourceError."""
    begun = time.perf_counter()
    fold = Fold(engine.EngineSettings(config, artefacts), selection)
    records = Records(config, artefacts, secrets, fold, plain_clients)
    kinds: set[type] = set()
    for source in sources:
        for batch in source.batches(reporter.task(source.name, source.size)):
            kinds.add(type(batch))
            if len(kinds) > 1:
                raise SourceError(
                    f"{source.name}: records and frames cannot be replayed together; their positions differ"
                )
            if isinstance(batch, RawBatch):
                records.add(batch)
                if len(sources) == 1 and batch.topic == source.name:
                    records.close_windows()  # one file in order of time is followed as `link` would
            elif plain_clients:
                raise SourceError(f"{source.name}: frames hold no client ids; --plain-clients needs the raw records")
            else:
                _add(fold, batch)
    records.close_windows() if RawBatch in kinds else fold.close_windows()
    return outcome(fold.finish(), config, artefacts, time.perf_counter() - begun)


def _add(fold: Fold, batch: FrameBatch) -> None:
    fold.part.records += len(batch.frames) + len(batch.rejects)
    fold.part.rejects += batch.rejects
    fold.step(batch.frames)
