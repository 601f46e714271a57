"""Under which settings each frame was judged: a configuration or artefacts that changed are changed in a replay too."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from detector import engine


class Switch(NamedTuple):
    """From this offset of `requests` on a partition was judged with other settings. era : number of them in Eras."""

    offset: int
    era: int


class Eras(NamedTuple):
    """settings : oldest first. switches : by partition, offsets rising; where there is none the newest hold."""

    settings: Sequence[engine.EngineSettings]
    switches: Mapping[int, Sequence[Switch]] = {}

    @property
    def newest(self) -> engine.EngineSettings:
        return self.settings[-1]

    def at(self, partition: int, offset: int) -> int:
        """Number of the settings in force; before the first switch it is what that switch began with."""
        switches = self.switches.get(partition, ())
        if not switches:
            return len(self.settings) - 1
        place = bisect_right(switches, offset, key=lambda switch: switch.offset)
        return switches[max(0, place - 1)].era
