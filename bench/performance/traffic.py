"""What gateways write while the service is measured: half tables, half embeddings; few clients probe.

Inputs are drawn from a pool that is rendered once, so that whoever feeds the log is cheap beside those who read it.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.fixtures import FEATURES, NUMBERS, an_input
from bench.performance.common import Run
from streams.config.config import Config
from streams.fit.calibrate import calibrate
from streams.history.sources import open_sources
from streams.progress import Silent
from streams.secrets.load import create_secrets, load_secrets

POOL = 4_000
"""Different inputs of each kind."""

DRAWN = 65_536
PROBING_SHARE = 0.02
"""Of all records: sweeps over one field of a table, in small steps about the decision's threshold."""

SWEEP = 60
"""Requests of one such client; then comes the next."""

BEGIN_S = 1_760_000_000.0
HISTORY_RECORDS, HISTORY_CLIENTS = 160_000, 4_000
"""Forty rows a client, more than most ask while they are judged: with ten, a row in six became an event in the end."""


class Traffic:
    """Records of `clients` clients without end; the same ones for the same seed. Another seed has other probers."""

    def __init__(self, clients: int, seed: int, *, probing: bool = True) -> None:
        rng = np.random.default_rng(seed)
        self._made = self._swept = 0
        self._pool = [_text(an_input(FEATURES, rng)) for _ in range(POOL // 2)]
        self._pool += [_text(an_input(NUMBERS, rng)) for _ in range(POOL // 2)]
        self._models = [FEATURES.model] * (POOL // 2) + [NUMBERS.model] * (POOL // 2)
        self._client: list[int] = []
        self._input = rng.integers(0, POOL, DRAWN).tolist()
        self._score = [f"{score:.6f}" for score in rng.random(DRAWN).tolist()]
        self._probing = (rng.random(DRAWN) < (PROBING_SHARE if probing else 0)).tolist()
        self._rng, self._clients, self._name = rng, clients, seed
        self._base = an_input(FEATURES, rng)["features"]

    def record(self, ts: float) -> bytes:
        """The next record, of a time in s since 1970."""
        return self.next(ts)[1]

    def next(self, ts: float) -> tuple[int, bytes]:
        """The next record, behind a number of its client: all of a client's records belong in one raw partition."""
        number = self._made
        self._made += 1
        place = number % DRAWN
        if place == 0:
            self._client = self._rng.integers(0, self._clients, DRAWN).tolist()
        if self._probing[place]:
            return self._probe(ts, number)
        owner, content = self._client[place], self._input[place]
        about = f"account-{owner:08d}", self._models[content], self._pool[content], self._score[place]
        return owner, _record(ts, number, *about)

    def _probe(self, ts: float, number: int) -> tuple[int, bytes]:
        prober, step = divmod(self._swept, SWEEP)
        self._swept += 1
        if step == 0:
            self._base = an_input(FEATURES, self._rng)["features"]
        field = f"feature_{prober % FEATURES.fields:02d}"
        content = _text({"features": {**self._base, field: self._base[field] + step}})
        about = f"prober-{self._name}-{prober:06d}", FEATURES.model, content, f"{0.47 + step / 1_000:.6f}"
        return prober, _record(ts, number, *about)


def _text(part: dict[str, object]) -> str:
    return json.dumps(part, separators=(",", ":"))[1:-1]


def _record(ts: float, number: int, client: str, model: str, content: str, score: str) -> bytes:
    label = "accept" if score > "0.5" else "decline"
    return (
        f'{{"ts":{ts:.3f},"request_id":"5f0c2b1e-0000-4000-8000-{number:012x}","client_id":"{client}","model":"{model}",'
        f'{content},"output":{{"label":"{label}","score":{score}}},"status":200,"latency_ms":12.5}}'
    ).encode()


def history() -> Iterator[bytes]:
    """A benign day of clients who ask as often as those who are judged."""
    traffic = Traffic(HISTORY_CLIENTS, seed=5, probing=False)
    for number in range(HISTORY_RECORDS):
        yield traffic.record(BEGIN_S + number / 1_000)


def fitted(run: Run) -> Path:
    """Folder with artefacts for this traffic, and secrets; made once a run."""
    folder = run.folder / "service"
    if not folder.is_dir():
        folder.mkdir()
        config, log = Config(), run.folder / "history.jsonl"
        create_secrets(folder)
        log.write_bytes(b"\n".join(history()))
        calibrate(open_sources([str(log)], config), folder, config, load_secrets(config, folder), Silent())
    return folder
