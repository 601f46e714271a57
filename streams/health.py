"""What a worker tells about itself over HTTP: /live, /ready, /metrics."""

from collections.abc import Sequence

from aiohttp import web

from detector.config import Web
from streams.contact import Contact
from streams.metrics import Metrics
from streams.stage import StageRunner


class Health:
    """Answers on the configured address; loopback unless the configuration says otherwise."""

    def __init__(self, runners: Sequence[StageRunner], metrics: Metrics, contact: Contact) -> None:
        self._runners = runners
        self._contact = contact
        self._metrics = metrics
        self._server: web.AppRunner | None = None
        self.address = ""

    async def start(self, settings: Web) -> None:
        """Raises OSError if the address is taken."""
        app = web.Application()
        app.add_routes(
            [web.get("/live", self._live), web.get("/ready", self._ready), web.get("/metrics", self._scrape)]
        )
        self._server = web.AppRunner(app, access_log=None)
        await self._server.setup()
        site = web.TCPSite(self._server, settings.host, settings.port)
        await site.start()
        host, port = self._server.addresses[0][:2]
        self.address = f"http://{host}:{port}"

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.cleanup()

    async def _live(self, _: web.Request) -> web.Response:
        """The process works; whether it has partitions is another question."""
        failed = [runner.stage.name for runner in self._runners if runner.failed.done()]
        return web.json_response({"failed": failed}, status=503 if failed else 200)

    async def _ready(self, _: web.Request) -> web.Response:
        """Kafka answers, and every stage has its partitions and their state."""
        parts = {"kafka": not self._contact.away_s} | {runner.stage.name: runner.ready for runner in self._runners}
        return web.json_response(parts, status=200 if all(parts.values()) else 503)

    async def _scrape(self, _: web.Request) -> web.Response:
        self._metrics.lag.clear()
        for runner in self._runners:
            self._metrics.recovered.labels(runner.stage.name).set(runner.ready)
            for partition, records in runner.lag().items():
                self._metrics.lag.labels(partition.topic, partition.partition).set(records)
        return web.Response(body=self._metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})
