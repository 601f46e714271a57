"""Faults of Apache Kafka itself."""

import asyncio
import contextlib
import signal
import subprocess
from pathlib import Path

from tests.faults.fault import Fault
from tests.faults.scene import Scene
from tests.kafka_broker import Node, unmountable

AWAY = (
    "KafkaConnectionError",
    "KafkaStorageError",
    "KafkaTimeoutError",
    "NodeNotReadyError",
    "NotEnoughReplicas",
    "NotLeaderForPartition",
    "RequestTimedOutError",
)
"""What workers may say when a broker is away: they end, and start again until it is back."""


REQUEST_S = 40
"""aiokafka's own time-out of a request."""

FULL_S = 15
FILLING = bytes(2**16)


class Restarted(Fault):
    """SIGTERM or SIGKILL, and started again."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(f"broker restarted after {number.name}", ends=AWAY)
        self._number = number

    async def strike(self, scene: Scene) -> None:
        node = scene.rng.choice(scene.cluster.nodes)
        await asyncio.to_thread(node.kill if self._number == signal.SIGKILL else node.stop)
        await asyncio.sleep(scene.rng.uniform(0, 2))
        await revived(node)


class Lost(Fault):
    """One of three is killed and stays away for longer than sessions live."""

    def __init__(self) -> None:
        super().__init__("one of three brokers lost for a while", ends=AWAY, nodes=(3,))

    async def strike(self, scene: Scene) -> None:
        node = scene.rng.choice(scene.cluster.nodes)
        await asyncio.to_thread(node.kill)
        await asyncio.sleep(scene.rng.uniform(2, 4) * scene.config.kafka.session_timeout_s)
        await revived(node)


class Frozen(Fault):
    """SIGSTOP for longer than sessions live: nobody is told, requests hang, members are thrown out when it wakes."""

    def __init__(self) -> None:
        super().__init__("broker SIGSTOPped, longer than sessions", ends=AWAY)

    async def strike(self, scene: Scene) -> None:
        await frozen(scene.rng.choice(scene.cluster.nodes), 2 * scene.config.kafka.session_timeout_s)


class TimedOut(Fault):
    """SIGSTOP of the only broker for longer than requests may take: producers ask again."""

    def __init__(self) -> None:
        super().__init__("broker SIGSTOPped, longer than requests may take", ends=AWAY, nodes=(1,), rare=True)

    async def strike(self, scene: Scene) -> None:
        await frozen(scene.cluster.nodes[0], REQUEST_S + 4)


class Full(Fault):
    """The disk of a broker is full: it ends itself, and starts again when there is room."""

    def __init__(self) -> None:
        super().__init__("disk of a broker full", ends=AWAY)
        self.small_disk = True

    def impossible(self) -> str | None:
        return unmountable()

    async def strike(self, scene: Scene) -> None:
        node = scene.rng.choice(scene.cluster.nodes)
        filler = node.log / "filler"
        await asyncio.to_thread(fill, filler)
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(node.wait, FULL_S)
        filler.unlink()
        if not node.running:
            await revived(node)


def fill(filler: Path) -> None:
    """A file that takes all the room there is."""
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(FILLING):
            pass


async def frozen(node: Node, seconds: float) -> None:
    node.send(signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        node.send(signal.SIGCONT)


async def revived(node: Node) -> None:
    node.start()
    await asyncio.to_thread(node.await_accepting)


FAULTS: tuple[Fault, ...] = (Restarted(signal.SIGTERM), Restarted(signal.SIGKILL), Lost(), Frozen(), TimedOut(), Full())
