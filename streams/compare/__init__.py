"""Two replays of one history held against each other: what another configuration, version or calibration would say.

compare(a, b, labels) -> Comparison
  pairs.py      which events of A are which of B
  minutes.py    for how long clients were held back
  judged.py     how much of it was right, by the labels of people, and how much is expected to be false
"""

from streams.compare.comparison import Comparison, compare, read_side

__all__ = ["Comparison", "compare", "read_side"]
