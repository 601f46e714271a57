"""One HTML file about a replay: what clients did, what was decided, and on what grounds. It fetches nothing.

    write_report(path, replayed)
      chosen.py      the gravest incidents, an ordinary client beside each; their stories, by a second reading
      contents.py    words and figures: overview.py, evidence.py and inputs.py draw, held.py counts what was throttled
      page.py        one file; parts/ holds its markup, style and script

What it needs to know of everybody, replay/survey.py has counted while it was folded.
"""

from streams.report.replayed import Replayed
from streams.report.write import REPORT_FILE, write_report

__all__ = ["REPORT_FILE", "Replayed", "write_report"]
