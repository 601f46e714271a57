"""A new pseudonym key gives clients new names: what people said of the old ones is said again of the new.

Only who knows client ids can tell which names belong together, so they are looked for in raw records. Classes under the
key before need no such help while `secrets.previous_key_id` is set: `sketch` meets the ids itself (`identity.Former`).
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from aiokafka import TopicPartition

from detector import engine
from detector.config import Config
from detector.frame import ControlFrame
from models.artefacts import Artefacts
from streams import clients, topics
from streams.adapters import REGISTRY
from streams.control import ControlError, give
from streams.embedded import log_ends, probe
from streams.history import raw_batches
from streams.identity import client_of, identities, pseudonym
from streams.progress import Reporter
from streams.secrets import Secrets
from streams.sketch import read_records
from streams.sources import Source

Allowed = dict[tuple[int, str], int]
"""(client, model or "" for all) -> end on the client's own clock, ms."""


class Carried(NamedTuple):
    """orders : allowances under today's names. registry : declared classes under them. unknown : allowances of clients
    that the records do not name."""

    orders: list[ControlFrame]
    registry: dict[str, str]
    unknown: int


def rekey(config: Config, secrets: Secrets, sources: Sequence[Source], reporter: Reporter) -> Carried:
    """Give the allowances again. May be done any number of times. Raises ControlError, SourceError, KafkaError."""
    if secrets.previous is None:
        raise ControlError("secrets.previous_key_id is not set: there is no key that names would come from")
    allowed = asyncio.run(allowances(config))
    found = carry(config, secrets, allowed, set(client_ids(sources, config, reporter)))
    if found.orders:
        asyncio.run(give(config, found.orders))
    return found


def client_ids(sources: Sequence[Source], config: Config, reporter: Reporter) -> Iterator[str]:
    for batch in raw_batches(sources, reporter, "reading"):
        for request in read_records(batch.records, REGISTRY[0], config).requests:
            yield request.client_id


def carry(config: Config, secrets: Secrets, allowed: Allowed, ids: set[str]) -> Carried:
    """What holds of the former names of these clients, under the names of today."""
    today, former = identities(secrets)
    by_client: dict[int, dict[str, int]] = {}
    for (client, model), until_ms in allowed.items():
        by_client.setdefault(client, {})[model] = until_ms
    found, known = Carried([], {}, 0), set()
    for client_id in sorted(ids):
        name, before = (pseudonym(key.key_id, *key.client(client_id)) for key in (today, former))
        known |= {client_of(name), client_of(before)}
        for model, until_ms in sorted(by_client.get(client_of(before), {}).items()):
            if allowed.get((client_of(name), model), 0) < until_ms:
                reason = f"given to {before} before"
                found.orders.append(ControlFrame(-1, -1, "allow", client_of(name), name, model, until_ms, reason))
        if before in config.input.registry:
            found.registry[name] = config.input.registry[before]
    return found._replace(unknown=len(by_client.keys() - known))


async def allowances(config: Config) -> Allowed:
    """All that the state topic holds. Raises engine.BlockError, KafkaError."""
    nobody = engine.EngineSettings(config, Artefacts("", {}))  # without spaces a block is only its orders
    topic, features = config.topics.judge_state, await probe(config.kafka)
    count = (await topics.partition_counts(config, [topic])).get(topic, 0)
    states = [engine.open_partition(nobody, number) for number in range(count)]
    async with clients.reader(config, max_partition_fetch_bytes=topics.state_bytes(config)) as consumer:
        places = [TopicPartition(topic, number) for number in range(count)]
        ends = await log_ends(consumer, places, features)
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    _keep(states[record.partition], record.value)
    return {about: until for state in states for about, until in state.allowed.items()}


def _keep(state: engine.PartitionState, value: bytes | None) -> None:
    if value is not None:
        mark = engine.block_mark(value)
        if mark.offset >= engine.block_offset(state, mark.block):
            engine.load_block(state, value)
