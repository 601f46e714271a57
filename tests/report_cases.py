"""A report on a day with every kind of attack among ordinary people, and with names in its log that mean harm."""

from pathlib import Path
from typing import NamedTuple

from detector.detectors import REGISTRY
from streams import replay
from streams.config.config import Config
from streams.history.base import Source
from streams.history.sources import open_sources
from streams.replay import Outcome, Plan
from streams.report import Replayed, write_report
from tests.scenarios import run, world

HARM = '<img src="http://192.0.2.1/x" onerror="document.title=1"></script><script>document.title=2</script>'
REVERSED = "\u202eevil\x1b[31m"
CONFIG = Config.model_validate({"policy": {"mode": "enforce"}})


class Reported(NamedTuple):
    """The file's text, and what it is about."""

    text: str
    replayed: Replayed

    @property
    def outcome(self) -> Outcome:
        return self.replayed.outcome


def day() -> list[world.Record]:
    """All with inputs; the boundary's attacker has a name that would run as a script, the sweep's one that hides
    letters."""
    lines = world.benign(300, seed=9, days=1)
    for name in sorted({detector.name for detector in REGISTRY} - {"unreadable"}):
        lines += run.records(name, "attack")
    names = {one["client_id"]: HARM for one in run.records("boundary", "attack")}
    names |= {one["client_id"]: REVERSED for one in run.records("sweep", "attack")}
    return [line | {"client_id": names.get(line["client_id"], line["client_id"])} for line in lines]


def replayed(folder: Path) -> Replayed:
    path = world.write(folder / "<i>day.jsonl", day())
    sources: list[Source] = open_sources([str(path)], CONFIG)
    plan = Plan(sources, CONFIG, run.artefacts(), run.SECRETS, plain_clients=True)
    outcome = replay.replay(plan)
    return Replayed(plan, outcome._replace(summary=outcome.summary | {"cold": False}))


def reported(folder: Path, detailed: int = 24) -> Reported:
    found = replayed(folder)._replace(detailed=detailed)
    write_report(folder / "report.html", found)
    return Reported((folder / "report.html").read_text(), found)
