"""What becomes of a probe under each trick of `tests/tricks.py`: judged, counted against its client, or unseen.

`make hostile` tries all of them and prints a table; tests try some.
"""

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from detector import engine
from detector.engine import EngineSettings
from models import rows as row_columns
from streams.config.config import Config
from streams.sketch.identity import Identity
from streams.sketch.sketcher import RawRecord, Sketcher
from streams.wire import frames
from tests.history import Row, benign, sweeps
from tests.pipeline import Calibrated, calibrated
from tests.tricks import Trick, tricks, written

UNJUDGED = getattr(row_columns, "FLAG_UNJUDGED", 0)
ROWS_MAX = 120
LATER = 1.5
"""A probe must be found within so many times the rows of one without a trick."""
COUNTED_ROWS = 16
"""And one whose requests have no input within so many: such a row says little (docs/detectors/unreadable.md)."""
LEVEL = 3
"""`hard`: an alert, and a request a minute."""
PROBER = "evil-0"
CONFIG = Config()
BEGIN_MS = 1_700_000_000_000


class Seen(NamedTuple):
    """What became of a probe's requests until it was found, None if it was not within `rows`."""

    rows: int
    judged: int
    counted: int
    found: int | None

    @property
    def unseen(self) -> int:
        return self.rows - self.judged - self.counted

    def in_time(self, plain: int) -> bool:
        """plain : the request at which a probe without a trick is found."""
        return self.found is not None and self.found <= max(LATER * plain, COUNTED_ROWS if self.counted else 0)


def probe(count: int) -> list[Row]:
    """One client that sweeps a field."""
    extra = {"tokens_in": 10, "prompt": "what is my limit?"}
    return [row | extra | {"request_id": f"p{number}"} for number, row in enumerate(sweeps(1, count, seed=4))]


def near(number: int, rows: list[Row]) -> tuple[bytes, bytes]:
    """Records of two ordinary clients."""
    one, other = (rows[(2 * number + place) % len(rows)] | {"request_id": f"n{number}/{place}"} for place in (0, 1))
    return written(one), written(other)


class Trial:
    """Sketch and judge over fitted artefacts, from an empty state for each probe."""

    def __init__(self, fitted: Calibrated) -> None:
        secrets = fitted.secrets
        identity = Identity(secrets.pseudonym_key, secrets.key_id, secrets.projection_seed)
        self._client = identity.client(PROBER)[0]
        self._sketcher = Sketcher(fitted.artefacts, identity, CONFIG)
        self._settings = EngineSettings(CONFIG, fitted.artefacts)
        self._near = benign(60, seed=9)

    def run(self, trick: Trick | None, most: int = ROWS_MAX) -> Seen:
        """trick : None for a probe without one."""
        state = engine.open_partition(self._settings, 0)
        judged = counted = written_frames = 0
        for number, row in enumerate(probe(most)):
            message = trick.message(row, number, near(number, self._near)) if trick else written(row)
            record = RawRecord(number, message, None, (), BEGIN_MS + 43_200_000 + 1_000 * number)
            found = False
            for frame in self._sketcher.frames("gw", 0, "0", [record], 1).frames:
                flags = frame.rows.flags[frame.rows.client == self._client]
                idle = int((flags & UNJUDGED > 0).sum())
                judged, counted = judged + len(flags) - idle, counted + idle
                events = engine.step(state, frames.decode(frames.encode(frame), 0, written_frames))
                written_frames += 1
                found |= any(
                    event.kind == "throttle" and event.client_key == self._client and event.level >= LEVEL
                    for event in events
                )
            if found:
                return Seen(number + 1, judged, counted, number + 1)
        return Seen(most, judged, counted, None)


def results(trial: Trial, family: Iterator[Trick]) -> Iterator[tuple[Trick, Seen]]:
    for trick in family:
        yield trick, trial.run(trick)


def table(found: list[tuple[Trick, Seen]], plain: int) -> Iterator[str]:
    """Markdown: how many tricks of each kind were tried, and what became of the requests under them."""
    yield "| kind | tried | judged | counted | unseen | found in time | last found at request |"
    yield "|---|---|---|---|---|---|---|"
    kinds: dict[str, list[Seen]] = {}
    for trick, seen in found:
        kinds.setdefault(trick.kind, []).append(seen)
    for kind, those in [*kinds.items(), ("all", [seen for _, seen in found])]:
        ends = Counter("unseen" if one.unseen else "counted" if one.counted else "judged" for one in those)
        in_time = sum(one.in_time(plain) for one in those)
        last = "never" if any(one.found is None for one in those) else str(max(one.found or 0 for one in those))
        cells = kind, len(those), ends["judged"], ends["counted"], ends["unseen"], in_time, last
        yield f"| {' | '.join(map(str, cells))} |"


def main(arguments: list[str]) -> int:
    most = int(arguments[0]) if arguments else None
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(calibrated(Path(folder)))
        plain = trial.run(None)
        assert plain.found is not None, "a plain probe is found"
        found: list[tuple[Trick, Any]] = list(results(trial, islice(tricks(), most)))
    print(f"A probe without a trick is found at its request {plain.found}.\n")
    print("\n".join(table(found, plain.found)))
    late = [(t, s) for t, s in found if s.unseen or not s.in_time(plain.found)]
    for trick, seen in late:
        print(json.dumps({"trick": trick.label, **seen._asdict()}))
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
