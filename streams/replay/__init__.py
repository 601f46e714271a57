"""History through the live functions: the same sketcher, the same fold, the same events, without a broker.

    replay(sources, ...) -> Outcome -> write(outcome, folder)
      run.py        what is read in which order; jobs.py shares it among processes
      reading.py    from where each partition is read, and with which state it begins there
      records.py    raw records, sketched and placed as if they had been written to `requests`
      work.py       one fold on its way: it can be stopped, and gone on with from a checkpoint.py
      fold.py       frames through `judge` and link.py; eras.py: under which settings; selection.py: what is told
      outcome.py    events in order, a summary, the files; census.py: who was there

Order inside a raw partition (a file, if records carry no Kafka position) is the order of the log. Clients that stand in
several raw partitions are replayed in the order of the sources; live that order was a race, so the summary counts them.

Drift of models is folded beside it. One file in order of time is followed as `link` would, and the population's shift
goes into the fold at once; of anything else windows close at the end, since sources may cover the same time one after
the other. Archives hold the shifts that `link` wrote, and none is made again.
"""

from streams.replay.checkpoint import CheckpointError
from streams.replay.outcome import FILES, REJECTS_FILE, SUMMARY_FILE, Outcome, write
from streams.replay.run import Options, replay
from streams.replay.selection import Selection
from streams.replay.settings_changes import Eras, Switch
from streams.replay.task import StoppedError

__all__ = [
    "FILES",
    "REJECTS_FILE",
    "SUMMARY_FILE",
    "CheckpointError",
    "Eras",
    "Options",
    "Outcome",
    "Selection",
    "StoppedError",
    "Switch",
    "replay",
    "write",
]
