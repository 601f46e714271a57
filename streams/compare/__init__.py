"""Compares two replays of one history: the effect of another configuration, version or calibration.

compare(a, b, labels) -> Comparison
  pairs.py      which events of A and B belong together
  minutes.py    how long clients were limited
  judged.py     precision and recall by labels; false alarms, expected and at most
"""

from streams.compare.comparison import Comparison, compare, read_side

__all__ = ["Comparison", "compare", "read_side"]
