"""What a fault is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from tests.faults.scene import Scene


class Fault(ABC):
    """One kind of trouble. `strike` returns when its cause is gone; what it leaves behind, the service must mend.

    ends : what workers may say (patterns) when they end because of it; any other end is a finding.
    nodes : sizes of cluster it makes sense on. rare : it takes long, so a full set has it once.
    small_disk : brokers' logs must stand on disks of their own.
    """

    def __init__(self, name: str, *, ends: Sequence[str] = (), nodes: Sequence[int] = (1, 3), rare: bool = False):
        self.name = name
        self.ends = ends
        self.nodes = nodes
        self.rare = rare
        self.small_disk = False

    def impossible(self) -> str | None:
        """Why it cannot be tried on this machine, if so."""
        return None

    @abstractmethod
    async def strike(self, scene: Scene) -> None: ...
