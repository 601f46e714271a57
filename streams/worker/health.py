"""A worker's HTTP endpoints: /live, /ready, /metrics."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from streams.config.config import Web
from streams.metrics import Metrics
from streams.worker.http import Answer, PlainServer
from streams.worker.liveness import Liveness
from streams.worker.stage import StageRunner


class Health:
    """Serves them on the configured address, by default on loopback."""

    def __init__(self, runners: Sequence[StageRunner], metrics: Metrics, liveness: Liveness, settings: Web) -> None:
        self._runners = runners
        self._liveness = liveness
        self._metrics = metrics
        pages = {"/live": self._live, "/ready": self._ready, "/metrics": self._scrape}
        self._settings = settings
        self._server = PlainServer(pages, names=settings.names)
        self.address = ""

    async def start(self) -> None:
        """Raises OSError if the address is taken."""
        self.address = await self._server.start(self._settings.host, self._settings.port)

    async def stop(self) -> None:
        await self._server.stop()

    def _live(self) -> Answer:
        """No stage has failed. Says nothing about partitions."""
        failed = [runner.stage.name for runner in self._runners if runner.failed.done()]
        return _json({"failed": failed}, good=not failed)

    def _ready(self) -> Answer:
        """Kafka is reachable, and every stage has its topics, its partitions and their state."""
        parts = {"kafka": not self._liveness.unavailable_s} | {
            runner.stage.name: self.serves(runner) for runner in self._runners
        }
        return _json(parts, good=all(parts.values()))

    def serves(self, runner: StageRunner) -> bool:
        return runner.ready and self._liveness.absent.isdisjoint(runner.stage.topics)

    def _scrape(self) -> Answer:
        self._metrics.lag.clear()
        for runner in self._runners:
            self._metrics.stage_ready.labels(runner.stage.name).set(self.serves(runner))
            for partition, records in runner.lag().items():
                self._metrics.lag.labels(partition.topic, partition.partition).set(records)
        return Answer(HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", self._metrics.render())


def _json(value: Mapping[str, object], *, good: bool) -> Answer:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return Answer(status, "application/json", json.dumps(value).encode())
