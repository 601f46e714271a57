"""One HTML file about a replay: what clients did, what was decided, and on what grounds. It fetches nothing.

    write_report(path, replayed)
      chosen.py      the gravest incidents, an ordinary client beside each; their stories, by a second reading
      contents.py    words and figures: overview.py, evidence.py and inputs.py draw, held.py counts what was throttled
      page.py        one file; parts/ holds its markup, style and script

replay/summary.py has counted what it needs of all clients.
"""

from streams.report.replayed import Replayed
from streams.report.write import REPORT_FILE, write_report

__all__ = ["REPORT_FILE", "Replayed", "write_report"]
