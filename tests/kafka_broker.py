"""Apache Kafka for tests: `deploy/kafka/start.sh` in temporary folders, as context managers.

Nodes keep their port and their log over a restart, and can be stopped, killed and put to sleep.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "deploy" / "kafka" / "start.sh"
CLUSTER_ID = "AAAAAAAAQACAAAAAAAAAAA"
FETCH_S = 180
START_S = 90
STOP_S = 30
LAST_WORDS = 2_000
DISK_BYTES = 512 * 2**20
PORTS = 20_000, 32_000


class Node:
    """One process: broker and controller. port : clients; port + 1 : controllers."""

    def __init__(self, number: int, port: int, folder: Path) -> None:
        self.number = number
        self.port = port
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns at once. The log of an earlier life is kept."""
        extra = {"KAFKA_EXTRA": str(self.folder / "extra.properties"), "KAFKA_CLUSTER": CLUSTER_ID}
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [str(SCRIPT), str(self.port), str(self.folder / "node")],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env=os.environ | extra,
            )

    @property
    def log(self) -> Path:
        return self.folder / "node" / "log"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def accepts(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=0.2):
            return True
        return False

    def await_accepting(self) -> None:
        """Raises RuntimeError with the broker's last words."""
        deadline = time.monotonic() + START_S
        while not self.accepts:
            if not self.running or time.monotonic() > deadline:
                raise RuntimeError(f"Apache Kafka did not start: {self.words()}")
            time.sleep(0.1)

    def send(self, number: signal.Signals) -> None:
        if self.running:
            assert self._process is not None
            self._process.send_signal(number)

    def freeze(self) -> None:
        """SIGSTOP; returns when no thread of it runs any more."""
        self.send(signal.SIGSTOP)
        assert self._process is not None
        threads = Path(f"/proc/{self._process.pid}/task")
        while any(_state(thread) not in "tTXZ" for thread in threads.glob("*/stat")):
            time.sleep(0.01)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not end it."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            self.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.wait(STOP_S)

    def wait(self, seconds: float) -> None:
        if self._process is not None:
            self._process.wait(seconds)

    def words(self) -> str:
        return (self.folder / "output").read_text(errors="replace")[-LAST_WORDS:]


def _state(stat: Path) -> str:
    """One letter, as in proc(5); X for a thread that has ended."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "X"


class Cluster:
    """Nodes that form one cluster. settings : properties that every node gets on top of start.sh's."""

    def __init__(self, folder: Path, count: int = 1, settings: Mapping[str, str] = {}) -> None:
        ports = _free_pairs(count)
        self.nodes = [Node(number, port, folder / str(number)) for number, port in enumerate(ports, start=1)]
        self.bootstrap = ",".join(f"127.0.0.1:{port}" for port in ports)
        voters = ",".join(f"{node.number}@127.0.0.1:{node.port + 1}" for node in self.nodes)
        for node in self.nodes:
            node.folder.mkdir(parents=True)
            own = {"node.id": str(node.number), "controller.quorum.voters": voters} | dict(settings)
            text = "".join(f"{key}={value}\n" for key, value in own.items())
            (node.folder / "extra.properties").write_text(text)

    def start(self) -> None:
        """Returns when every node accepts connections. Raises RuntimeError with the last words of one that does not."""
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.await_accepting()

    def stop(self) -> None:
        for node in self.nodes:
            node.send(signal.SIGCONT)
            # The controllers of a cluster that goes as a whole wait for each other; nothing in it is worth that.
            node.send(signal.SIGTERM if len(self.nodes) == 1 else signal.SIGKILL)
        for node in self.nodes:
            node.stop()


@contextlib.contextmanager
def kafka_cluster(
    count: int = 1,
    settings: Mapping[str, str] = {},
    *,
    small_disks: bool = False,
) -> Iterator[Cluster]:
    """Fetch (once), start, yield, stop. small_disks : every log on a disk of DISK_BYTES, in memory (`unmountable`)."""
    subprocess.run([str(SCRIPT), "--fetch"], check=True, timeout=FETCH_S)
    folder = Path(tempfile.mkdtemp(prefix="probewatch-kafka-"))
    cluster = Cluster(folder, count, settings)
    with contextlib.ExitStack() as at_end:
        at_end.callback(shutil.rmtree, folder, ignore_errors=True)
        for node in cluster.nodes if small_disks else []:
            at_end.enter_context(_mounted(node.log))
        at_end.callback(cluster.stop)
        cluster.start()
        yield cluster


@contextlib.contextmanager
def apache_kafka() -> Iterator[str]:
    """One node; its "127.0.0.1:port"."""
    with kafka_cluster() as cluster:
        yield cluster.bootstrap


def unmountable() -> str | None:
    """Why no disk in memory can be mounted here; None if it can."""
    try:
        with tempfile.TemporaryDirectory() as folder, _mounted(Path(folder)):
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return f"mounting a tmpfs: {getattr(error, 'stderr', None) or error}".strip()


@contextlib.contextmanager
def _mounted(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    subprocess.run(mount, check=True, capture_output=True, text=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


def _free_pairs(count: int) -> list[int]:
    """Ports whose successors are free as well: the controllers listen there. Below those that systems give to whoever
    connects: a broker takes seconds to start, or to come back, and its port must be free until then."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            port = random.randrange(*PORTS)
            with contextlib.suppress(OSError):
                for number in (port, port + 1):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", number))
                ports.append(port)
        return ports
