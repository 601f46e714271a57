"""Faults of what is written: messages refused, messages damaged, a topic that is not what it was."""

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer

from streams.wire import settings_log
from tests.faults.fault import Fault
from tests.faults.history import Life
from tests.faults.scene import Scene
from tests.faults.workers import all_ready
from tests.pipeline import RAW_PARTITIONS, read_topic

NOTHING_FITS_BYTES = 100
COPIES = 20
FLIPS = 3
NOTICED = ("was deleted and re-created", "the topic was re-created", "UnknownTopicOrPartition")
NOTICED_S = 4.0
"""Workers look every 2 s whether a topic is still the one that they read."""


class Refused(Fault):
    """A topic takes nothing of usual size for a while: whoever writes there ends, and starts again until it does."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"{topic} refuses what is too large", ends=("MessageSizeTooLarge",))
        self._topic = topic

    async def strike(self, scene: Scene) -> None:
        topic = getattr(scene.config.topics, self._topic)
        await scene.admin.configure(topic, max_message_bytes=str(NOTHING_FITS_BYTES))
        await asyncio.sleep(scene.rng.uniform(1, 3))
        await scene.admin.configure(topic, max_message_bytes=None)


class Forbidden(Fault):
    """The right to write to a topic is withdrawn for a while."""

    def __init__(self, topic: str) -> None:
        super().__init__(
            f"right to write {topic} withdrawn", ends=("TopicAuthorizationFailed", "RightsError"), nodes=(1,)
        )
        self._topic = topic

    async def strike(self, scene: Scene) -> None:
        topic = getattr(scene.config.topics, self._topic)
        await scene.admin.withdraw_write(topic)
        await asyncio.sleep(scene.rng.uniform(1, 3))
        await scene.admin.restore_write(topic)


class BadFrames(Fault):
    """Noise, cut off copies and copies with flipped bits among the frames."""

    def __init__(self) -> None:
        super().__init__("damaged frames in requests")

    async def strike(self, scene: Scene) -> None:
        topic = scene.config.topics.requests
        values = [record.value for record in await read_topic(scene.config, topic)]
        await _write(scene, topic, [(None, value) for value in _damaged(scene, values)])


class BadBlocks(Fault):
    """The same among the blocks of state, under keys that are in use; then judges that must read them."""

    def __init__(self) -> None:
        super().__init__("damaged blocks in judge-state")

    async def strike(self, scene: Scene) -> None:
        topic = scene.config.topics.judge_state
        records = await read_topic(scene.config, topic)
        found = {record.key: record.value for record in records if not record.key.startswith(settings_log.KEY)}
        keys = sorted(found)
        damaged = _damaged(scene, [found[key] for key in keys])
        await _write(scene, topic, [(scene.rng.choice(keys), value) for value in damaged])
        judges = scene.of("judge")
        await asyncio.gather(*(judge.kill() for judge in judges))
        await asyncio.sleep(0.3)
        await all_ready(judges)


class MadeAnew(Fault):
    """The raw topic is deleted with records that nobody read, and made again: its offsets start again.

    As docs/operations.md says: sketch away, the topic made, another input.incarnation, the group's offsets reset. Or
    under running workers, which must notice it and end. The history is then what of the old topic stands in `requests`,
    and all of the new one. judge goes on as it is.
    """

    def __init__(self, *, stopped: bool) -> None:
        how = "sketch stopped" if stopped else "under running workers"
        super().__init__(f"raw topic deleted and re-created, {how}", ends=() if stopped else NOTICED)
        self._stopped = stopped

    async def strike(self, scene: Scene) -> None:
        workers = scene.of("sketch")
        await scene.feed.pause()
        if self._stopped:
            await asyncio.gather(*(worker.kill(again=False) for worker in workers))
        await self._exchange(scene)
        if not self._stopped:
            scene.feed.resume()
            await asyncio.sleep(2 * NOTICED_S)
            await asyncio.gather(*(worker.kill(again=False) for worker in workers))
        await asyncio.sleep(scene.config.kafka.session_timeout_s + 1)  # the killed are still members for so long
        offsets = dict.fromkeys(range(RAW_PARTITIONS), 0)
        await scene.admin.set_offsets(scene.group("sketch"), scene.config.topics.raw[0], offsets)
        scene.configure("sketch", input={"incarnation": scene.incarnation})
        scene.feed.resume()
        for worker in workers:
            worker.join()
        await asyncio.sleep(0.3)
        await all_ready(workers)

    @staticmethod
    async def _exchange(scene: Scene) -> None:
        topic = scene.config.topics.raw[0]
        scene.lives.append(Life(scene.incarnation, await read_topic(scene.config, topic)))
        scene.incarnation = str(len(scene.lives))
        await scene.admin.delete_topic(topic)
        await asyncio.sleep(1)
        await scene.admin.create_topic(topic, RAW_PARTITIONS, scene.config.topics.replication)


def _damaged(scene: Scene, values: Sequence[bytes]) -> list[bytes]:
    """Of each kind COPIES; the latest values, which reach furthest, are chosen most often."""
    rng, found = scene.rng, []
    for _ in range(COPIES):
        value = bytearray(values[-1 - min(int(rng.expovariate(0.2)), len(values) - 1)])
        found += [rng.randbytes(rng.randrange(1, 2_000)), bytes(value[: rng.randrange(len(value))])]
        for _ in range(FLIPS):
            value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
        found.append(bytes(value))
    return found


async def _write(scene: Scene, topic: str, messages: Sequence[tuple[bytes | None, bytes]]) -> None:
    """A block stands in the partition that its key names, a frame anywhere."""
    producer = AIOKafkaProducer(bootstrap_servers=scene.config.kafka.bootstrap, acks="all")
    await producer.start()
    try:
        for key, value in messages:
            partition = int(key.split(b"/")[0]) if key else scene.rng.randrange(scene.config.topics.partitions)
            await producer.send(topic, value, key=key, partition=partition)
    finally:
        await producer.stop()


FAULTS: tuple[Fault, ...] = (
    *(Refused(topic) for topic in ("requests", "judge_state", "alerts")),
    *(Forbidden(topic) for topic in ("requests", "judge_state", "throttle")),
    BadFrames(),
    BadBlocks(),
    MadeAnew(stopped=True),
    MadeAnew(stopped=False),
)
