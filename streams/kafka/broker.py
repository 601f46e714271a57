"""What a broker can do. The rest of `streams/` asks `probe`, never which broker it is."""

import math
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError

from streams.config.kafka import Kafka
from streams.kafka.acl_check import refusal

CLUSTER_ID = "probewatch-evaluation"
"""How a client recognises the embedded broker: it is the cluster id that we start it with."""

LOG_END_S = 10.0


class Features(NamedTuple):
    """What the broker can do.

    idempotence : the producer may number its batches, so that a retry is not written twice.
    exact_log_end : ListOffsets(LATEST) is the offset of the next record.
    wakes_fetches : a fetch that waits for records is answered as soon as there are some.
    stamps_records : topics can have the broker's time instead of the producer's.
    session_s_max : session time-outs above this make every start slow, s.
    """

    name: str
    idempotence: bool
    exact_log_end: bool
    wakes_fetches: bool
    stamps_records: bool
    session_s_max: float


KAFKA = Features(
    "Kafka", idempotence=True, exact_log_end=True, wakes_fetches=True, stamps_records=True, session_s_max=math.inf
)
EMBEDDED = Features(
    "embedded broker (for evaluation)",
    idempotence=False,
    exact_log_end=False,
    wakes_fetches=False,
    stamps_records=False,
    session_s_max=4.0,
)


async def probe(kafka: Kafka) -> Features:
    """Ask the cluster for its id. Raises aiokafka's KafkaConnectionError, with each broker's reason to refuse."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap, **kafka.client())
    try:
        await admin.start()
        cluster = await admin.describe_cluster()
    except KafkaConnectionError as error:
        raise KafkaConnectionError(await refusal(kafka) or str(error)) from None
    finally:
        await admin.close()
    return EMBEDDED if cluster["cluster_id"] == CLUSTER_ID else KAFKA


async def log_ends(
    consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition], features: Features
) -> Mapping[TopicPartition, int]:
    """The offset of the next record of each partition. `consumer` must be assigned to no group.

    Without exact ListOffsets the high watermark of a fetch is asked: that one is right. The consumer's positions in
    `partitions` are then moved, and its assignment is replaced.
    """
    wanted = sorted(partitions)
    ends: dict[TopicPartition, int] = dict(await consumer.end_offsets(wanted))
    inexact = [] if features.exact_log_end else [tp for tp in wanted if ends[tp] > 0]
    if inexact:
        consumer.assign(inexact)
        for tp in inexact:
            consumer.seek(tp, ends[tp])
        deadline = time.monotonic() + LOG_END_S
        while any(consumer.highwater(tp) is None for tp in inexact):
            await consumer.getmany(timeout_ms=50)
            if time.monotonic() > deadline:
                raise KafkaTimeoutError("the broker does not tell the end of its logs")
        ends |= {tp: max(ends[tp], consumer.highwater(tp)) for tp in inexact}
    return ends
