"""Faults of consumer groups: who is a member, and what a group remembers."""

import asyncio

from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

from streams.kafka.faust_batches import sticky_assignor
from tests.faults.fault import Fault
from tests.faults.scene import Scene
from tests.faults.workers import all_ready


class Removed(Fault):
    """A member is thrown out by somebody else; it learns of it at its next heartbeat."""

    def __init__(self, stage: str) -> None:
        super().__init__(f"member of {stage}'s group removed")
        self._stage = stage

    async def strike(self, scene: Scene) -> None:
        group = scene.group(self._stage)
        await scene.admin.remove_member(group, scene.rng.choice(await scene.admin.members(group)))


class Forgotten(Fault):
    """All workers of a stage leave, and the group is deleted with its offsets: everything is read again."""

    def __init__(self, stage: str) -> None:
        super().__init__(f"group of {stage} deleted with its offsets")
        self._stage = stage

    async def strike(self, scene: Scene) -> None:
        workers = scene.of(self._stage)
        await asyncio.gather(*map(scene.dismiss, workers))
        await scene.admin.delete_group(scene.group(self._stage))
        for worker in workers:
            worker.join()
        await asyncio.sleep(0.3)
        await all_ready(workers)


class Usurped(Fault):
    """A stranger joins the group, gets partitions, handles and commits nothing, and goes without a word."""

    def __init__(self, stage: str) -> None:
        super().__init__(f"stranger in {stage}'s group")
        self._stage = stage

    async def strike(self, scene: Scene) -> None:
        topic = scene.config.topics.raw[0] if self._stage == "sketch" else scene.config.topics.requests
        stranger = AIOKafkaConsumer(
            topic,
            bootstrap_servers=scene.config.kafka.bootstrap,
            group_id=scene.group(self._stage),
            enable_auto_commit=False,
            session_timeout_ms=int(1000 * scene.config.kafka.session_timeout_s),
            partition_assignment_strategy=[
                sticky_assignor() if self._stage == "judge" else RoundRobinPartitionAssignor
            ],
        )
        await stranger.start()
        try:
            await asyncio.sleep(scene.rng.uniform(0.5, 2))
        finally:
            await stranger.stop()


FAULTS: tuple[Fault, ...] = (
    *(Removed(stage) for stage in ("sketch", "judge", "link")),
    *(Forgotten(stage) for stage in ("sketch", "judge")),
    *(Usurped(stage) for stage in ("sketch", "judge")),
)
