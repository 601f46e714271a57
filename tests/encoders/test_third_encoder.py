"""A third encoder costs one file and a registry line: calibrated, replayed and probed without a change elsewhere."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import encoders
from models.artefacts.store import Artefacts, load_artefacts
from models.rows import FLAG_MEMBER
from streams.config.config import Config
from streams.fit.calibrate import calibrate
from streams.fit.training_set import make_set
from streams.history.sources import RecordFile
from streams.ops.selftest import prober
from streams.progress import Silent
from streams.replay.inputs import Plan
from streams.replay.run import replay
from streams.secrets.load import Secrets
from streams.sketch.identity import identity_of
from streams.sketch.sketcher import RawRecord, Sketcher
from tests.encoders.words import WordsEncoder
from tests.history import BEGIN_S, Row, lines, write_jsonl

SEED = bytes(range(32))
SECRETS = Secrets(SEED, "k1", SEED)
SUBJECTS = ("loan", "limit", "rate", "card", "branch", "advice", "refund", "address")
VERBS = ("show", "explain", "change", "cancel", "compare")


def question(rng: random.Random) -> str:
    return f"{rng.choice(VERBS)} {' '.join(rng.sample(SUBJECTS, 3))} {rng.randrange(1_000)}"


def asked(client: str, text: str, time_s: float) -> Row:
    score = 0.5 + len(text) % 7 / 20 - 0.15
    output = {"label": "yes" if score > 0.5 else "no", "score": score}
    return {"ts": time_s, "client_id": client, "model": "assistant", "operation": text, "output": output}


def questions(clients: int, seed: int) -> list[Row]:
    rng = random.Random(seed)
    return [
        asked(f"user-{seed}-{client}", question(rng), BEGIN_S + 86_400 * rng.random())
        for client in range(clients)
        for _ in range(3)
    ]


@pytest.fixture(scope="module", autouse=True)
def registered() -> Any:
    """The registry line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "ENCODERS", (WordsEncoder, *encoders.ENCODERS))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artefacts of "assistant" that know the questions of twenty clients."""
    at = tmp_path_factory.mktemp("words")
    write_jsonl(at / "log.jsonl", questions(150, 1))
    write_jsonl(at / "known.jsonl", questions(20, 2))
    make_set(at / "known.jsonl", at / "known.set", SEED, Silent(), "", ())
    source = RecordFile(at / "log.jsonl", "log.jsonl")
    calibrate([source], at, Config(), SECRETS, Silent(), training_sets=[at / "known.set"])
    return at


@pytest.fixture
def artefacts(folder: Path) -> Artefacts:
    key = bytes.fromhex((folder / "secrets" / "signing_key.pub").read_text())
    return load_artefacts(folder, SEED, [key])


def test_artefacts_hold_it(artefacts: Artefacts, folder: Path) -> None:
    encoder = artefacts.models["assistant"].encoder
    assert isinstance(encoder, WordsEncoder) and "refund" in encoder.common
    [entry] = json.loads((folder / "artefacts.json").read_text())["models"]
    assert entry["encoder"]["kind"] == "words"


def test_a_replay_judges_its_rows(artefacts: Artefacts, tmp_path: Path) -> None:
    """Sixty edits of one question are variants, and throttle their client; other clients are left alone."""
    rng = random.Random(9)
    [*words, _] = question(rng).split()
    attack = [asked("studious", f"{' '.join(words)} {number}", BEGIN_S + 90_000 + number) for number in range(60)]
    rows = write_jsonl(tmp_path / "log.jsonl", questions(40, 3), attack)
    outcome = replay(Plan([RecordFile(tmp_path / "log.jsonl", "log.jsonl")], Config(), artefacts, SECRETS))
    assert outcome.summary["rows"] == len(rows) and not outcome.rejects
    assert {event.kind for event in outcome.events} >= {"throttle"}
    assert len({event.client_key for event in outcome.events if event.client_key}) <= 2


def test_probes_and_training_rows(artefacts: Artefacts, tmp_path: Path) -> None:
    sketcher = Sketcher(artefacts, identity_of(SECRETS, {}), Config())
    probes = list(prober.records(artefacts.models["assistant"], "probe", 20, 1_700_000_000_000))
    known = [row | {"request_id": "r"} for row in questions(20, 2)]
    raws = [RawRecord(place, line, None, (), -1) for place, line in enumerate(lines([*probes, *known]))]
    result = sketcher.frames("t", 0, "0", raws, 1)
    [frame] = result.frames
    assert not result.rejects and frame.rows.count == len(raws)
    flagged = (frame.rows.flags & FLAG_MEMBER).astype(bool)
    assert flagged[20:].all() and not flagged[:20].any()
    assert np.isfinite(frame.rows.novelty).all()
