"""What the targets work with: one small model, fitted the same everywhere, and thresholds that anything crosses."""

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from detector import engine, link
from detector.engine import EngineSettings
from detector.frame import RowFrame
from models.artefacts.store import Artefacts, load_artefacts
from models.rows import CLASSES
from streams.config.config import Config
from streams.fit.calibrate import calibrate
from streams.history.sources import open_sources
from streams.progress import Silent
from streams.secrets.load import Secrets
from streams.sketch.identity import Identity
from streams.sketch.sketcher import RawRecord, Sketcher
from tests.history import benign, lines, sweeps, write_jsonl

SECRETS = Secrets(bytes(range(32)), "k1", bytes(range(32, 64)))
CONFIG = Config.model_validate(
    {"state": {"blocks": 2, "block_bytes": 65_536}, "input": {"max_record_bytes": 65_536}, "drift": {"min_rows": 1}}
)
THRESHOLDS = (0, -1_000_000, 0, 2_000, 10_000)
"""Of statistics in thousandths: a first row is watched, and whoever goes on climbs to a block."""


@cache
def artefacts() -> Artefacts:
    config = Config()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_jsonl(folder / "benign.jsonl", benign(300, seed=1))
        sources = open_sources([str(folder / "benign.jsonl")], config)
        calibrate(sources, folder, config, SECRETS, Silent())
        fitted = load_artefacts(folder, SECRETS.projection_seed)
    thresholds = np.tile(np.array(THRESHOLDS, np.int64), (len(CLASSES), 1))
    models = {
        name: replace(
            model, reference=replace(model.reference, thresholds=thresholds, drift=np.ones(len(CLASSES), np.int64))
        )
        for name, model in fitted.models.items()
    }
    return replace(fitted, models=models)


@cache
def settings() -> EngineSettings:
    return EngineSettings(CONFIG, artefacts())


def identity(secrets: Secrets = SECRETS) -> Identity:
    return Identity(secrets.pseudonym_key, secrets.key_id, secrets.projection_seed)


@cache
def sketcher() -> Sketcher:
    return Sketcher(artefacts(), identity(), CONFIG)


@cache
def probing() -> RowFrame:
    """Two clients in turn walk up one field, so that each has a ring, families and averages."""
    texts = [line.rstrip() for line in lines([row | {"request_id": "r"} for row in sweeps(2, 20, seed=6)])]
    records = [RawRecord(offset, text, None, (), -1) for offset, text in enumerate(texts)]
    (frame,) = sketcher().frames("gateway-logs", 0, "0", records, 1).frames
    return replace(frame, offset=0)


def placed(frame: RowFrame, offset: int) -> RowFrame:
    """The frame where `requests` would have it."""
    return replace(frame, partition=0, offset=offset)


def ready() -> None:
    """Fit and compile all that any target uses."""
    state = engine.open_partition(settings(), 0)
    engine.step(state, probing())
    engine.load_block(state, engine.dump_block(state, 0))
    models = link.LinkState.of(CONFIG, artefacts())
    models.step([probing()])
    models.close_due()
