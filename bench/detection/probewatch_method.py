"""This project's engine in the benchmark: the same calls that `calibrate`, `sketch` and `judge` make.

A log becomes native records, records become artefacts or rows, rows become the statistic after each of them.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from time import process_time
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.detection.datasets import Dataset
from bench.detection.evaluate import EVERYBODY, Limits, limits
from bench.detection.log import Log, records
from detector import engine
from detector.calibrate import fit as calibration
from detector.evidence import PROCESSES
from detector.frame import RowFrame
from models.artefacts.certificate import BUDGETS
from models.artefacts.reference import Reference
from models.artefacts.store import Artefacts, ModelArtefact, load_artefacts
from models.kernels.layout import FEATURES
from models.rows import CLASSES, F64, I64, Rows
from streams.config.config import Config
from streams.fit.calibrate import calibrate
from streams.history.base import BATCH_RECORDS, RawBatch
from streams.progress import Reporter
from streams.secrets.load import Secrets
from streams.sketch.identity import Identity
from streams.sketch.sketcher import RawRecord, Sketcher

SECRETS = Secrets(bytes(range(32)), "bench", bytes(range(32, 64)))
HISTORY, JUDGED = "h", "j"
LEVELS = slice(1, 4)
"""Of the ladder: watch, soft, hard, whose budgets are evaluate.BUDGETS."""
TOPIC = "bench"
TAIL_MILLI = 1000.0
COUNTS = ("unique", "rate", "tokens", "family_size")
"""Processes that count instead of betting."""


@dataclass(frozen=True)
class InMemory:
    """A log as a source of history. size : unknown, since it is never written."""

    log: Log
    dataset: Dataset
    prefix: str
    name: str = TOPIC
    size: int | None = None

    def batches(self, advance: Callable[[int], None] = lambda _: None) -> Iterator[RawBatch]:
        numbered = enumerate(records(self.log, self.dataset, self.prefix))
        while batch := list(islice(numbered, BATCH_RECORDS)):
            yield RawBatch(TOPIC, 0, [RawRecord(offset, value, None, (), -1) for offset, value in batch])
            advance(len(batch))


class Sketched(NamedTuple):
    """A log's rows in order of time. row : (n,) each one's place in the log. seconds : of processor time it took."""

    log: Log
    rows: list[Rows]
    row: I64
    client: I64  # (c,) uint64 keys as the engine knows them
    seconds: float


class Fitted(NamedTuple):
    dataset: Dataset
    artefacts: Artefacts
    seconds: float

    @property
    def model(self) -> ModelArtefact:
        return self.artefacts.models[self.dataset.name]


def identity() -> Identity:
    return Identity(SECRETS.pseudonym_key, SECRETS.key_id, SECRETS.projection_seed)


def keys(log: Log, prefix: str) -> I64:
    """(c,) uint64 of each client."""
    return identity().clients([f"{prefix}{client}" for client in range(log.clients)])[0]  # type: ignore[return-value]


def is_certifying(history: Log) -> NDArray[np.bool_]:
    """(c,) clients whose maxima give the limits; every method has the same ones, and fits on the others."""
    return ~calibration.is_fitting(keys(history, HISTORY))  # type: ignore[arg-type]


def fit(history: Log, dataset: Dataset, reporter: Reporter) -> Fitted:
    """`probewatch calibrate` on the history."""
    begun = process_time()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "artefacts"
        calibrate([InMemory(history, dataset, HISTORY)], out, Config(), SECRETS, reporter)
        artefacts = load_artefacts(out, SECRETS.projection_seed)
    return Fitted(dataset, artefacts, process_time() - begun)


def sketch(fitted: Fitted, log: Log, prefix: str) -> Sketched:
    """Every record through the product's sketch; none may be lost."""
    sketcher, config = Sketcher(fitted.artefacts, identity(), Config()), Config()
    rows: list[Rows] = []
    spent = 0.0
    for batch in InMemory(log, fitted.dataset, prefix).batches():
        begun = process_time()
        result = sketcher.frames(TOPIC, 0, config.input.incarnation, batch.records, 1)
        spent += process_time() - begun
        rows += [frame.rows for frame in result.frames]
    row = np.array([int(part.request_id(i)) for part in rows for i in range(part.count)], np.int64)
    if len(row) != log.rows:
        raise ValueError(f"{log.rows - len(row)} of {log.rows} records were rejected")
    return Sketched(log, rows, row, keys(log, prefix), spent)


def statistic(fitted: Fitted, reference: Reference, at: Sketched) -> F64:
    """(n,) the fused statistic after each row of the log, in lengths of the benign tail."""
    model = fitted.model
    traced = calibration.trace(model.encoder, model.decision_threshold, reference, at.rows)
    return _in_order(at, np.concatenate(traced) / TAIL_MILLI)


def evidence(fitted: Fitted, reference: Reference, at: Sketched) -> F64:
    """(n, processes) log M of each process after each row, nats."""
    model = fitted.model
    traced = calibration.tallies(model.encoder, model.decision_threshold, reference, at.rows)
    return _in_order(at, np.concatenate([tally.evidence for tally in traced]) / 1000.0)


def _in_order(at: Sketched, values: F64) -> F64:
    ordered = np.empty_like(values)
    ordered[at.row] = values
    return ordered


def handicap(at: Sketched) -> F64:
    """(c,) what the fold adds to every threshold of this client, tail lengths (docs/engine.md, "A decision is due")."""
    return ((at.client.astype(np.uint64) >> np.uint64(17)) % np.uint64(501)).astype(float) / TAIL_MILLI


def product_limits(fitted: Fitted, maxima: F64, client_class: NDArray[np.uint8]) -> Limits:
    """The certified thresholds by class; for everybody together what the same rule gives.

    maxima, client_class : of certifying clients. A statistic of whole thousandths reaches t where it exceeds t - 1/2.
    """
    found = limits(maxima, client_class)
    reference = fitted.model.reference
    found.above[:EVERYBODY] = (reference.thresholds[:, LEVELS] - 0.5) / TAIL_MILLI
    found.rank[:EVERYBODY][~reference.certified[:, LEVELS]] = 0
    return found


class Cost(NamedTuple):
    """Processor time a row and state a client, as the worker has them."""

    sketch_us: float
    fold_us: float
    bytes_per_client: float


def cost(fitted: Fitted, at: Sketched) -> Cost:
    """Judge the rows with the engine itself."""
    state = engine.open_partition(engine.EngineSettings(Config(), fitted.artefacts), 0)
    begun = process_time()
    for offset, rows in enumerate(at.rows):
        engine.step(state, _frame(fitted, rows, offset))
    spent = process_time() - begun
    held = sum(int(table.table.block_bytes.sum()) for table in state.tables.values())
    return Cost(1e6 * at.seconds / at.log.rows, 1e6 * spent / at.log.rows, held / max(1, state.clients))


def live(fitted: Fitted, client_id: str) -> Callable[[F64, float, int], int]:
    """One client in front of the running engine: (input, score, label) to the level that stands after it."""
    state = engine.open_partition(engine.EngineSettings(Config(), fitted.artefacts), 0)
    sketcher, dataset = Sketcher(fitted.artefacts, identity(), Config()), fitted.dataset
    sent = 0

    def judge(values: F64, score: float, label: int) -> int:
        nonlocal sent
        one = _one_row(values, score, label, sent)
        record = next(records(one, dataset, ""))
        record = msgspec.json.encode(msgspec.json.decode(record) | {"client_id": client_id, "request_id": str(sent)})
        frames = sketcher.frames(TOPIC, 0, "0", [RawRecord(sent, record, None, (), -1)], 1).frames
        for frame in frames:
            engine.step(state, replace(frame, offset=sent))
        sent += 1
        table = next(iter(state.tables.values()))
        return int(table.table.clients[table.find(int(frames[0].rows.client[0]))]["level"])

    return judge


def _one_row(values: F64, score: float, label: int, number: int) -> Log:
    zero = np.zeros(1, np.int64)
    return Log(
        client=zero, starts=np.array([0, 1]), client_class=np.zeros(1, np.uint8), kind=np.zeros(1, np.uint8),
        kinds=("live",),
        time_ms=zero + 1_767_225_600_000 + 2_000 * number, inputs=values[None], score=np.array([score]),
        label=np.array([label]), probe=np.ones(1, bool),
    )  # fmt: skip


def _frame(fitted: Fitted, rows: Rows, offset: int) -> RowFrame:
    return RowFrame(0, offset, fitted.model.model, fitted.model.space, f"{TOPIC}[0]", SECRETS.key_id, rows)


class Variant(NamedTuple):
    """Another way to build or to use the engine. score : (n,) on a sketched log.

    model_limits : alarm above log(1 / budget) instead of an order statistic.
    """

    name: str
    score: Callable[[Sketched], F64]
    model_limits: bool = False


def ablations(fitted: Fitted, history: Sketched) -> Iterator[Variant]:
    """Fusion by averaging, thresholds from the model; each feature and each detector left out.

    What is left out stays out of everything fitted later: tails and growth are measured without it.
    """
    reference = fitted.model.reference

    def averaged(at: Sketched) -> F64:
        return _average(evidence(fitted, reference, at))

    yield Variant("averaged fusion", averaged)
    yield Variant("averaged, log(1/budget)", averaged, model_limits=True)
    for feature in FEATURES:
        lacking = _refitted(fitted, history, partial(without_feature, feature))
        yield Variant(f"without {feature}", partial(statistic, fitted, lacking))
    for name in dict.fromkeys(process.detector for process in PROCESSES):
        yield Variant(f"without {name}", partial(statistic, fitted, without_detector(name, reference)))


def _average(nats: F64) -> F64:
    """log of the mean of all processes' M; the counts are no evidence and stay out."""
    bets = nats[:, [process.name not in COUNTS for process in PROCESSES]]
    averaged: F64 = np.logaddexp.reduce(bets, axis=1) - np.log(bets.shape[1])
    return averaged


def without_feature(feature: str, tables: Reference) -> Reference:
    """Bets on the other features only."""
    if feature == "field":
        return replace(tables, field=np.zeros_like(tables.field))
    family = tables.family.copy()
    family[:, :, FEATURES.index(feature)] = 0
    return replace(tables, family=family)


def without_detector(name: str, reference: Reference) -> Reference:
    """A detector's processes switched off; growth stays as it was measured with them."""
    scale = reference.tail_scale.copy()
    scale[:, [process.detector == name for process in PROCESSES]] = 0
    return replace(reference, tail_scale=scale)


def _refitted(fitted: Fitted, history: Sketched, prune: Callable[[Reference], Reference]) -> Reference:
    model = fitted.model
    return calibration.fit_reference(model.encoder, model.decision_threshold, history.rows, prune=prune)


def describe(fitted: Fitted) -> list[dict[str, float | str | bool]]:
    """The certificate's table: one line a class and level."""
    reference = fitted.model.reference
    return [
        {
            "class": name, "budget": BUDGETS[level], "threshold": float(reference.thresholds[k, level]) / TAIL_MILLI,
            "certified": bool(reference.certified[k, level]), "clients": int(reference.certifying_clients[k]),
        }
        for k, name in enumerate(CLASSES) for level in range(1, 4)
    ]  # fmt: skip
