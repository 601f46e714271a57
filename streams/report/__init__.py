"""One HTML file about a replay: client activity, decisions and the reasons for them. It loads nothing from anywhere.

    write_report(path, replayed)
      write.py       the most severe incidents in detail, by a second reading, each next to an ordinary client
      contents.py    text and figures: overview.py, evidence.py and inputs.py draw, enforcement.py counts client-minutes
      page.py        one file; parts/ holds its markup, style and script

replay/summary.py has counted what it needs of all clients.
"""

from streams.report.write import REPORT_FILE, Replayed, write_report

__all__ = ["REPORT_FILE", "Replayed", "write_report"]
