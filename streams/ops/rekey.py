"""Rotation of the pseudonym key: orders about clients are sent again under the clients' new pseudonyms.

Which pseudonyms belong together can only be told from client ids, so raw records are read for them. Declared classes
under the previous key need no such step while `secrets.previous_key_id` is set: `sketch` maps them itself
(`identity.Former`).
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from detector import engine
from detector.frame import ControlFrame
from models.artefacts.store import Artefacts
from models.pseudonym import client_of
from probewatch_door.pseudonym import pseudonyms
from streams.adapters import Formats
from streams.config.config import Config
from streams.fit.history import raw_batches
from streams.history.base import Source
from streams.kafka import topics
from streams.kafka.broker import probe
from streams.metrics import Metrics
from streams.ops.orders import ControlError, give
from streams.progress import Reporter
from streams.secrets.load import Secrets
from streams.sketch.elements import read_records
from streams.sketch.identity import pseudonym_keys
from streams.worker.state_topic import read_state

InForce = dict[tuple[int, str, str], int]
"""(client, "allow" or "block", model or "" for all) -> until_ms of the order."""


class Carried(NamedTuple):
    """orders : allowances and blocks under today's names. registry : declared classes under them. unknown : how many
    clients with orders the records do not name."""

    orders: list[ControlFrame]
    registry: dict[str, str]
    unknown: int


def rekey(config: Config, secrets: Secrets, sources: Sequence[Source], reporter: Reporter) -> Carried:
    """Give allowances and blocks again, any number of times. Raises ControlError, SourceError, KafkaError."""
    if secrets.previous is None:
        raise ControlError("secrets.previous_key_id is not set: there is no key that names would come from")
    in_force = asyncio.run(orders_in_force(config))
    found = carry(config, secrets, in_force, set(client_ids(sources, config, reporter)))
    if found.orders:
        asyncio.run(give(config, found.orders))
    return found


def client_ids(sources: Sequence[Source], config: Config, reporter: Reporter) -> Iterator[str]:
    formats = Formats(config)
    for batch in raw_batches(sources, reporter, "reading"):
        for request in read_records(batch.records, formats.of(batch.topic), config).requests:
            yield request.client_id


def carry(config: Config, secrets: Secrets, in_force: InForce, ids: set[str]) -> Carried:
    """What holds of the former names of these clients, under the names of today."""
    keys = pseudonym_keys(secrets)
    given_ms = time.time_ns() // 1_000_000
    by_client: dict[int, dict[tuple[str, str], int]] = {}
    for (client, action, model), until_ms in in_force.items():
        by_client.setdefault(client, {})[(action, model)] = until_ms
    found, known = Carried([], {}, 0), set()
    for client_id in sorted(ids):
        name, before = pseudonyms(client_id, keys)
        client = client_of(name)
        known |= {client, client_of(before)}
        for (action, model), until_ms in sorted(by_client.get(client_of(before), {}).items()):
            if in_force.get((client, action, model), 0) < until_ms:
                about = client, name, model, until_ms, f"given to {before} before", given_ms
                found.orders.append(ControlFrame(-1, -1, action, *about))
        if before in config.input.registry:
            found.registry[name] = config.input.registry[before]
    return found._replace(unknown=len(by_client.keys() - known))


async def orders_in_force(config: Config) -> InForce:
    """All that the state topic holds. Raises engine.BlockError, StageError, KafkaError."""
    nobody = engine.EngineSettings(config, Artefacts("", {}))  # without spaces only orders are left of it
    topic = config.topics.judge_state
    count = (await topics.partition_counts(config, [topic])).get(topic, 0)
    found: InForce = {}
    stored = await read_state(config, await probe(config.kafka), Metrics(), range(count))
    for number, held in stored.items():
        state = engine.open_partition(nobody, number)
        for value in held.blocks.values():
            engine.load_block(state, value)
        found |= {(client, "allow", model): until_ms for (client, model), until_ms in state.allowed.items()}
        blocked = {about: kept.until_ms for about, kept in state.blocked.items() if kept.until_ms}
        found |= {(client, "block", model): until_ms for (client, model), until_ms in blocked.items()}
    return found
