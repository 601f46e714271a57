"""History through the live functions: the same sketcher, the same fold, the same events, without a broker.

    replay(Plan(sources, config, artefacts, secrets)) -> Outcome -> write(outcome, folder)

The core, in reading order:
  run.py        the main loop
  inputs.py     a Plan; from where each partition of frames is read
  records.py    raw records, sketched as if they had been written to `requests`
  fold.py       frames through `judge`; link.py: through `link`
  selection.py  which events are reported
  outcome.py    events in order and their files; summary.py: what is counted

Options, one file each: jobs.py (several processes), settings_changes.py (--earlier-config), evidence.py, publish.py,
verify.py.

Order inside a raw partition (a file, if records carry no Kafka position) is the order of the log. Clients with records
in several raw partitions are replayed in the order of the sources. Live that order was a race, so the summary counts
these clients.
"""

from streams.replay.inputs import Plan
from streams.replay.outcome import FILES, SUMMARY_FILE, Outcome, write
from streams.replay.run import StoppedError, replay
from streams.replay.selection import Selection
from streams.wire.rejects import REJECTS_FILE

__all__ = [
    "FILES",
    "REJECTS_FILE",
    "SUMMARY_FILE",
    "Outcome",
    "Plan",
    "Selection",
    "StoppedError",
    "replay",
    "write",
]
