"""Apache Kafka for tests: `deploy/kafka/start.sh` in a temporary folder, as a context manager."""

import contextlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "deploy" / "kafka" / "start.sh"
FETCH_S = 180
START_S = 60


@contextlib.contextmanager
def apache_kafka() -> Iterator[str]:
    """Fetch (once), start, yield "127.0.0.1:port", stop. Raises RuntimeError with the broker's last words."""
    subprocess.run([str(SCRIPT), "--fetch"], check=True, timeout=FETCH_S)
    with (
        tempfile.TemporaryDirectory(prefix="probewatch-kafka-") as folder,
        Path(folder, "output").open("w+b") as output,
    ):
        port = _free_pair()
        command = [str(SCRIPT), str(port), str(Path(folder, "node"))]
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        try:
            if not _accepts(process, port):
                output.seek(0)
                raise RuntimeError(f"Apache Kafka did not start: {output.read()[-2000:].decode(errors='replace')}")
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _accepts(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.2):
            return True
        time.sleep(0.1)
    return False


def _free_pair() -> int:
    """A port whose successor is free as well: the controller listens there."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port
