"""Faults of worker processes."""

import asyncio
import signal

from tests.faults.fault import Fault
from tests.faults.scene import Scene
from tests.faults.workers import all_ready
from tests.pipeline import until

STALLED = "stalled for .* s, longer than kafka.session_timeout_s"
COMPILED_S = 300.0
"""Until one worker has compiled every kernel; the others find them."""


class Killed(Fault):
    """SIGKILL."""

    def __init__(self, stage: str) -> None:
        super().__init__(f"SIGKILL of {stage}")
        self._stage = stage

    async def strike(self, scene: Scene) -> None:
        victim = scene.victim(self._stage)
        await victim.kill()
        await asyncio.sleep(0.3)
        await victim.ready()


class Stalled(Fault):
    """SIGSTOP for longer than the session: others take over, then the sleeper wakes and believes it still owns all."""

    def __init__(self, stage: str) -> None:
        super().__init__(f"SIGSTOP of {stage}, longer than its session", ends=(STALLED,))
        self._stage = stage

    async def strike(self, scene: Scene) -> None:
        victim = scene.victim(self._stage)
        exits = len(victim.exits)
        victim.send(signal.SIGSTOP)
        await asyncio.sleep(scene.config.kafka.session_timeout_s + 1.5)
        victim.send(signal.SIGCONT)

        async def gone() -> bool:
            return len(victim.exits) > exits

        await until(gone, f"a stalled worker ends itself: {victim.words()}")


class Hiccup(Fault):
    """SIGSTOP for less than the session: nobody takes over, and nobody may end."""

    def __init__(self, stage: str) -> None:
        super().__init__(f"SIGSTOP of {stage}, shorter than its session")
        self._stage = stage

    async def strike(self, scene: Scene) -> None:
        victim = scene.victim(self._stage)
        victim.send(signal.SIGSTOP)
        await asyncio.sleep(scene.rng.uniform(0.3, 0.5) * scene.config.kafka.session_timeout_s)
        victim.send(signal.SIGCONT)


class Stopped(Fault):
    """SIGTERM; the others take over at once. It comes back later."""

    def __init__(self, stage: str) -> None:
        super().__init__(f"graceful stop of {stage}")
        self._stage = stage

    async def strike(self, scene: Scene) -> None:
        victim = scene.victim(self._stage)
        await scene.dismiss(victim)
        await asyncio.sleep(scene.rng.uniform(0.2, 2))
        await scene.welcome(victim)


class Joined(Fault):
    """One more worker, for a while."""

    def __init__(self, stage: str) -> None:
        super().__init__(f"another {stage} joins, and leaves")
        self._stage = stage

    async def strike(self, scene: Scene) -> None:
        async with scene.another(self._stage):
            await asyncio.sleep(scene.rng.uniform(0.5, 2))


class Wiped(Fault):
    """All workers killed at once, all they keep on this machine lost: temporary files and compiled kernels."""

    def __init__(self) -> None:
        super().__init__("all workers killed, local data wiped", rare=True)

    async def strike(self, scene: Scene) -> None:
        await asyncio.gather(*(worker.kill(again=False) for worker in scene.workers))
        scene.wipe()
        first, *others = scene.workers
        first.join()
        await first.ready(COMPILED_S)
        for worker in others:
            worker.join()
        await all_ready(scene.workers, COMPILED_S)


class AllKilled(Fault):
    """All workers at once, as when the machine goes."""

    def __init__(self) -> None:
        super().__init__("SIGKILL of all workers at once")

    async def strike(self, scene: Scene) -> None:
        await asyncio.gather(*(worker.kill() for worker in scene.workers))
        await asyncio.sleep(0.3)
        await all_ready(scene.workers)


STAGES = ("sketch", "judge", "link")
FAULTS: tuple[Fault, ...] = (
    *(Killed(stage) for stage in STAGES),
    *(Stalled(stage) for stage in STAGES),
    *(Hiccup(stage) for stage in ("sketch", "judge")),
    *(Stopped(stage) for stage in STAGES),
    *(Joined(stage) for stage in ("sketch", "judge")),
    AllKilled(),
    Wiped(),
)
