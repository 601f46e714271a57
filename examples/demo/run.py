"""The steps of one demo run, in the order in which __main__ takes them."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from aiokafka.admin import AIOKafkaAdminClient
from prometheus_client.parser import text_string_to_metric_families

from examples.alert_schema import validate_alert
from examples.attackers import Box
from examples.demo import report
from examples.demo.attack import HOPSKIPJUMP, SWEEP, Attacks, pick_victim
from examples.demo.processes import Children, free_port
from examples.demo.tape import Tape
from examples.demo.view import View
from examples.loan_gateway.model import LoanModel, load_applications
from examples.traffic import CLASS_OF_KIND, DAY_SIZES, LIVE_SIZES, drive, drive_paced, population
from models.pseudonym import pseudonym
from streams.config.config import Config, load_config
from streams.kafka import topics
from streams.secrets.load import create_secrets, load_secrets
from streams.sketch.identity import Identity

OUT = Path("out/demo")
SEED = 2018
DAY_PEOPLE = 5_300
"""Real applicants of the day that is recorded; the other 1,700 apply live."""

LIVE_S = 20.0
ATTACK_AFTER_S = 3.0
ATTACK_MAX_S = 60.0
"""An attack that nobody has stopped by then has shown what there is to see."""

SETTLE_S = 30.0
ROWS = "probewatch_rows_total"
DAY_TOPIC, LIVE_TOPIC = "gateway-logs-day", "gateway-logs"
PARTITIONS = 4
FILES = ("requests.jsonl", "alerts.jsonl", "throttle.jsonl")


class Demo:
    """One run. Names, people and victims are the same each time; only the timing differs."""

    def __init__(self, view: View, bootstrap: str, children: Children, prefix: str = "") -> None:
        """prefix : of the names of topics and groups, on a broker that serves others too."""
        self.view = view
        self.children = children
        self.web_port, self.gateway_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.gateway_port}"
        self.config_file = OUT / "probewatch.toml"
        self.config = self._configure(bootstrap, prefix)
        training, rest = load_applications()
        self.model = LoanModel(training)
        rng = np.random.default_rng(SEED)
        self.day = population(rng, rest.features[:DAY_PEOPLE], DAY_SIZES)
        self.live = population(rng, rest.features[DAY_PEOPLE:], LIVE_SIZES)
        self.attacker_ids = [f"acct-{rng.integers(16**10):010x}" for _ in range(2)]
        people = rest.features[DAY_PEOPLE:]
        self.attacks = Attacks(pick_victim(self.model, people), Box.of(people))
        self.names = self._pseudonyms()
        self.rng = rng

    def _configure(self, bootstrap: str, prefix: str) -> Config:
        """The demo's configuration file and secrets."""
        create_secrets(OUT)
        names = {
            "raw": [prefix + LIVE_TOPIC],
            **{
                key: prefix + getattr(Config().topics, key)
                for key in ("requests", "judge_state", "alerts", "throttle", "throttle_state", "dlq")
            },
        }
        lines = [
            'artefacts = "artefacts"',
            f"kafka = {{ bootstrap = {json.dumps(bootstrap)}, group = {json.dumps(prefix + 'probewatch')} }}",
            "# Limits begin with the hard level (1e-4). Among 200 consumers the soft one (1e-3) would by design limit",
            "# somebody ordinary in every fifth run, and this demo calls any such run a failure.",
            "# The benign day is played faster than what follows, and by twelve systems: how evenly one of them asks",
            "# says nothing here, so `volume` limits nobody.",
            'policy = { mode = "enforce", soft = { action = "observe" }, shadow_detectors = ["volume"] }',
            'secrets = { directory = "secrets" }',
            f"web = {{ port = {self.web_port} }}",
            "[topics]",
            f"partitions = {PARTITIONS}",
            *(f"{key} = {json.dumps(value)}" for key, value in names.items()),
        ]
        self.config_file.write_text("\n".join(lines) + "\n")
        return load_config(self.config_file)

    @property
    def live_topic(self) -> str:
        return self.config.topics.raw[0]

    @property
    def day_topic(self) -> str:
        return self.live_topic.replace(LIVE_TOPIC, DAY_TOPIC)

    def _pseudonyms(self) -> dict[str, str]:
        secrets = load_secrets(self.config)
        identity = Identity(secrets.pseudonym_key, secrets.key_id, secrets.projection_seed)
        ids = [client.id for client in self.live] + self.attacker_ids
        return {id_: pseudonym(secrets.key_id, *identity.client(id_)) for id_ in ids}

    # --- the steps of the issue, in order ---

    async def make_topics(self) -> None:
        raw = self.config.topics.model_copy(update={"raw": (self.day_topic, self.live_topic)})
        await topics.create(self.config.model_copy(update={"topics": raw}), raw_partitions=PARTITIONS)

    async def delete_topics(self) -> None:
        """On a broker of the user's own nothing is left behind."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.config.kafka.bootstrap)
        await admin.start()
        try:
            planned = [plan.name for plan in topics.plans(self.config)]
            await admin.delete_topics([self.day_topic, self.live_topic, *planned])
        finally:
            await admin.close()

    async def serve(self, name: str, topic: str, *options: object) -> None:
        """Start the gateway, logging to `topic`."""
        registry = OUT / "registry.json"
        known = {c.id: CLASS_OF_KIND[c.kind] for c in (*self.day, *self.live) if c.kind in CLASS_OF_KIND}
        registry.write_text(json.dumps(known, indent=1))
        arguments = ("--bootstrap", self.config.kafka.bootstrap, "--topic", topic, "--registry", registry)
        self.children.start(name, "examples.loan_gateway", *arguments, "--port", self.gateway_port, *options)
        await self.children.wait_until_ready(f"{self.url}/healthz")

    async def record_day(self) -> Path:
        """A benign day, sent as fast as the gateway answers, and its log as a file."""
        await self.serve("gateway-day", self.day_topic)
        begun = time.monotonic()
        async with Tape(self.config.kafka.bootstrap, [self.day_topic], PARTITIONS) as tape:
            await drive(self.url, self.day, at_once=32)
            sent = sum(len(client.statuses) for client in self.day)
            rate = sent / (time.monotonic() - begun)
            await tape.until(self.day_topic, sent)
        self.view.say(f"a benign day: {len(self.day):,} clients, {sent:,} requests at {rate:,.0f}/s")
        path = OUT / "day.jsonl"
        tape.write(self.day_topic, path, place=True)
        self.children.stop("gateway-day")
        return path

    async def calibrate(self, day: Path) -> None:
        out = self.config.artefacts
        arguments = ("calibrate", day, "--out", out, "--config", self.config_file)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.children.run("calibrate", "streams.cli", *arguments))
            group.create_task(self.attacks.without_gateway(self.model))

    async def start_worker(self) -> None:
        self.children.start("worker", "streams.cli", "run", "--config", self.config_file)
        await self.children.wait_until_ready(f"http://127.0.0.1:{self.web_port}/ready")
        door = ("--pseudonym-key", OUT / "secrets/pseudonym_key", "--decisions", self.config.topics.throttle_state)
        await self.serve("gateway", self.live_topic, *door)

    async def go_live(self, tape: Tape) -> None:
        """Benign traffic and both attackers at once, until all are done and the worker has judged everything."""

        async def attack() -> None:
            await asyncio.sleep(ATTACK_AFTER_S)
            limit = asyncio.get_running_loop().call_later(ATTACK_MAX_S, self.attacks.stop)
            await self.attacks.through(self.url, self.attacker_ids)
            limit.cancel()

        with self.view.live(lambda: self.rows(tape)) as refresh:
            async with asyncio.TaskGroup() as group:
                shown = group.create_task(self._show(tape, refresh))
                async with asyncio.TaskGroup() as traffic:
                    traffic.create_task(drive_paced(self.url, self.live, self.rng, seconds=LIVE_S))
                    traffic.create_task(attack())
                await self._settle(tape)
                shown.cancel()

    async def _settle(self, tape: Tape) -> None:
        """Wait until the worker has judged every record of the log and the last decision had time to arrive."""
        await tape.until(self.live_topic, self.served)
        async with asyncio.timeout(SETTLE_S), httpx.AsyncClient() as http:
            while _judged((await http.get(f"http://127.0.0.1:{self.web_port}/metrics")).text) < self.served:
                self.children.check()
                await asyncio.sleep(0.2)
        await asyncio.sleep(1)

    async def _show(self, tape: Tape, refresh: Callable[[], None]) -> None:
        shown = 0
        while True:
            self.children.check()
            decisions = tape.values(self.config.topics.throttle)
            for record in decisions[shown:]:
                self.view.event(self._sentence(record))
            shown = len(decisions)
            refresh()
            await asyncio.sleep(0.25)

    def _sentence(self, record: dict[str, Any]) -> str:
        id_ = next((id_ for id_, name in self.names.items() if name == record["client"]), "")
        kinds = dict(zip(self.attacker_ids, (HOPSKIPJUMP, SWEEP), strict=True)) | {c.id: c.kind for c in self.live}
        return (
            f"{record['action']:7} level {record['level']}  {kinds.get(id_, '?'):18} at its row"
            f" {record['trigger']['rows_seen']:3}: {record['reason']}, {record['evidence_nats']:.1f} nats"
        )

    # --- what came of it ---

    @property
    def served(self) -> int:
        """Requests that reached the model live, which is what the log holds."""
        return sum(c.statuses.count(200) for c in self.live) + sum(p.served for p in self.attacks.probers)

    def rows(self, tape: Tape) -> list[report.ClassRow]:
        return report.table(self.live, self.attacks.probers, tape.values(self.config.topics.throttle), self.names)

    def finish(self, tape: Tape) -> dict[str, Any]:
        """Write the files; the summary."""
        written = (self.live_topic, self.config.topics.alerts, self.config.topics.throttle)
        for topic, name in zip(written, FILES, strict=True):
            tape.write(topic, OUT / name, place=topic == self.live_topic)
        throttles = tape.values(self.config.topics.throttle)
        raw, records = tape.records[self.live_topic], tape.records[self.config.topics.throttle]
        faults = [validate_alert(alert.value) for alert in tape.records[self.config.topics.alerts]]
        found = report.summary(
            self.live,
            self.attacks.probers,
            report.first_rows(throttles),
            self.names,
            alerts=len(faults),
            alerts_valid=faults.count([]),
            latency=report.latencies_ms(raw, records, throttles),
            records=len(raw),
            rejects=len(tape.records[self.config.topics.dlq]),
        )
        (OUT / "summary.json").write_text(json.dumps(found, indent=2) + "\n")
        return found

    async def replayed_same(self) -> str:
        """Replay the recorded log; whether it gives the live events byte for byte."""
        out = OUT / "replay"
        arguments = ("replay", OUT / FILES[0], "--out", out, "--artefacts", self.config.artefacts)
        await self.children.run("replay", "streams.cli", *arguments, "--config", self.config_file)
        for name in FILES[1:]:
            live, again = (sorted((folder / name).read_bytes().splitlines()) for folder in (OUT, out))
            if live != again:
                common = len(set(live) & set(again))
                return f"DIFFERS from live in {name}: {len(live)} live, {len(again)} replayed, {common} the same"
        return "gives the live events byte for byte"


def _judged(metrics: str) -> int:
    """Rows that the worker has finished with, from its Prometheus text."""
    ended = ("probewatch_rejects_total", "probewatch_unjudged_total")
    samples = [sample for family in text_string_to_metric_families(metrics) for sample in family.samples]
    return int(
        sum(s.value for s in samples if s.name in ended or (s.labels.get("stage") == "judge" and s.name == ROWS))
    )
