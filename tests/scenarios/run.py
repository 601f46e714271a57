"""Runs scenarios as the commands `calibrate` and `replay` would: files in, events out.

python -m tests.scenarios.run            prints what each scenario comes to
python -m tests.scenarios.run accept     writes it to expected.json, printing the difference
"""

import difflib
import importlib
import json
import sys
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from detector.detectors import REGISTRY
from detector.events.finding import Event
from models.artefacts.store import Artefacts, load_artefacts
from streams import replay
from streams.config.config import Config
from streams.fit import calibrate, training_set
from streams.history.sources import open_sources
from streams.progress import Silent
from streams.secrets.load import Secrets
from tests.scenarios import world

FOLDER = Path(__file__).parent
KINDS = ("attack", "lookalike")
SECRETS = Secrets(bytes(range(32)), "k1", bytes(range(32, 64)))
"""Fixed, so that the same clients fit and certify in every run."""
CLIENTS = 2_400
OTHERS = 180
"""Brokers, and jobs: enough of each for thresholds of their own."""


@cache
def artefacts() -> Artefacts:
    """Fitted on three benign days, and told what the model was trained on."""
    config = Config()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        history = world.write(
            folder / "history.jsonl", world.benign(CLIENTS, seed=1), world.returning(120, seed=3),
            world.brokers(OTHERS, seed=4), world.jobs(OTHERS, seed=5), world.retrying(60, seed=6),
        )  # fmt: skip
        trained = folder / "training-set.npz"
        rows = world.write_rows(folder / "training.jsonl", world.training_set())
        training_set.make_set(rows, trained, SECRETS.projection_seed, Silent(), "", ())
        calibrate.calibrate(
            open_sources([str(history)], config), folder, config, SECRETS, Silent(), training_sets=[trained]
        )
        return load_artefacts(folder, SECRETS.projection_seed)


def records(detector: str, kind: str) -> list[world.Record]:
    """The input of one scenario."""
    made: list[world.Record] = importlib.import_module(f"tests.scenarios.{detector}.{kind}.input").records()
    return made


def replayed(lines: list[world.Record]) -> replay.Outcome:
    config = Config()
    with tempfile.TemporaryDirectory() as name:
        path = world.write(Path(name) / "input.jsonl", lines)
        return replay.replay(
            replay.Plan(open_sources([str(path)], config), config, artefacts(), SECRETS, plain_clients=True)
        )


def told(events: Iterable[Event]) -> list[dict[str, Any]]:
    """What matters of each decision, in the order of events."""
    decided = [json.loads(event.value) for event in events if event.kind == "throttle"]
    return [
        {"client": one["client"], "level": one["level"], "reason": one["reason"], "rows": one["trigger"]["rows_seen"]}
        for one in decided
    ]


def as_text(found: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(one) + "\n" for one in found)


def expected(detector: str, kind: str) -> Path:
    return FOLDER / detector / kind / "expected.jsonl"


def main(accept: bool) -> None:
    for detector in REGISTRY:
        for kind in KINDS:
            path = expected(detector.name, kind)
            now = as_text(told(replayed(records(detector.name, kind)).events))
            before = path.read_text() if path.exists() else ""
            print(f"== {detector.name}/{kind}")
            sys.stdout.writelines(difflib.unified_diff(before.splitlines(True), now.splitlines(True), "was", "is"))
            if accept:
                path.write_text(now)


if __name__ == "__main__":
    main("accept" in sys.argv[1:])
