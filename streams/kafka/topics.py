"""The service's own topics: what they must look like, making them, and saying what differs."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from models.errors import WorldError
from streams.config.config import Config
from streams.kafka.acl_check import REFUSALS, hidden

DAY_MS = 86_400_000
LAG_ROUNDS = 5
"""Rounds of block writing that compaction must leave alone: a stalled worker that wakes may write an old block behind a
newer one, and the newer one must live until the next round has written the block again."""

SEGMENT_ROUNDS = 10
MESSAGE_BYTES = 1_048_588
"""Kafka's own default for max.message.bytes; a frame is cut well below it."""

STAMPED_BY = "message.timestamp.type"
RAW_CONFIGS = {STAMPED_BY: "LogAppendTime"}
"""The broker's time bounds what a record claims, and tells of a source whose clock runs behind."""

UNSEEN = "this user may not see it (Describe)"
UNSHOWN = "this user may not see its settings (DescribeConfigs)"
_SIZES = ("max.message.bytes", "min.compaction.lag.ms", "retention.ms")


class TopicPlan(NamedTuple):
    """One topic as it should be. configs : Kafka's names, values as text."""

    name: str
    partitions: int
    configs: Mapping[str, str]


class TopicsError(WorldError, ValueError):
    """Topics cannot be made. Says which and why."""


def plans(config: Config) -> tuple[TopicPlan, ...]:
    """The service's own topics. Raw topics belong to those who run the gateways."""
    topics, count = config.topics, config.topics.partitions
    longest_s = max(level.duration_s for level in (config.policy.watch, config.policy.soft, config.policy.hard))
    longest_ms = 1000 * max(longest_s, config.policy.block.duration_s)
    return (
        TopicPlan(topics.requests, count, {"cleanup.policy": "delete", "retention.ms": str(7 * DAY_MS)}),
        TopicPlan(topics.judge_state, count, state_configs(config)),
        TopicPlan(topics.link_state, 1, state_configs(config)),
        TopicPlan(topics.drift, count, {"cleanup.policy": "delete", "retention.ms": str(90 * DAY_MS)}),
        TopicPlan(topics.alerts, count, {"cleanup.policy": "delete", "retention.ms": str(90 * DAY_MS)}),
        TopicPlan(topics.throttle, count, {"cleanup.policy": "delete", "retention.ms": str(90 * DAY_MS)}),
        TopicPlan(
            topics.throttle_state,
            count,
            # Durations double for a client that comes back; four doublings of the longest stay well inside.
            {"cleanup.policy": "compact,delete", "retention.ms": str(max(90 * DAY_MS, 16 * longest_ms))},
        ),
        # Nothing that a person found out is forgotten; there is little of it.
        TopicPlan(topics.feedback, 1, {"cleanup.policy": "compact"}),
        TopicPlan(
            topics.dlq,
            count,
            {
                "cleanup.policy": "delete",
                "retention.ms": str(30 * DAY_MS),
                "max.message.bytes": str(dead_letter_bytes(config)),
            },
        ),
    )


def state_configs(config: Config) -> dict[str, str]:
    """Compacted, but slowly (LAG_ROUNDS); in segments short enough that a recovery reads little that is superseded."""
    round_ms = int(config.state.round_s * 1000)
    return {
        "cleanup.policy": "compact",
        "min.compaction.lag.ms": str(LAG_ROUNDS * round_ms),
        "max.message.bytes": str(state_bytes(config)),
        "segment.ms": str(max(60_000, SEGMENT_ROUNDS * round_ms)),
        "min.cleanable.dirty.ratio": "0.1",
    }


def state_bytes(config: Config) -> int:
    """Room for a block that does not compress, and its envelope."""
    return max(MESSAGE_BYTES, 2 * config.state.block_bytes)


def dead_letter_bytes(config: Config) -> int:
    """Room for the longest raw record that can be refused by its size only after it was read, with headers."""
    return max(MESSAGE_BYTES, 2 * config.input.max_record_bytes)


async def create(config: Config, raw_partitions: int = 0) -> list[str]:
    """Make what is missing; the names made. Topics that exist are left as they are: see `check`.

    raw_partitions : also make the raw topics with so many partitions (trials and demonstrations); 0 leaves them alone.
    Raises TopicsError if the broker refuses, aiokafka's KafkaError if it cannot be reached.
    """
    wanted = list(plans(config))
    if raw_partitions:
        wanted += [TopicPlan(name, raw_partitions, RAW_CONFIGS) for name in config.topics.raw]
    admin = await _admin(config)
    try:
        existing = set(await admin.list_topics())
        missing = [plan for plan in wanted if plan.name not in existing]
        if not missing:
            return []
        response = await admin.create_topics(
            [NewTopic(p.name, p.partitions, config.topics.replication, topic_configs=dict(p.configs)) for p in missing]
        )
        refused = [
            f"{name}: {message or for_code(code).__name__}"
            for name, code, message in response.topic_errors
            if code not in (0, TopicAlreadyExistsError.errno)
        ]
        if refused:
            raise TopicsError("; ".join(refused))
        await _wait_until_known(admin, {plan.name for plan in missing})
    finally:
        await admin.close()
    return [plan.name for plan in missing]


async def _wait_until_known(admin: AIOKafkaAdminClient, names: set[str]) -> None:
    """The controller has made them; brokers tell of them a moment later."""
    for _ in range(100):
        if names <= set(await admin.list_topics()):
            return
        await asyncio.sleep(0.1)
    raise TopicsError(f"made, but the broker does not list them: {', '.join(sorted(names))}")


async def check(config: Config) -> list[str]:
    """What is wrong, a sentence each; nothing if the topics can be used. Longer retention than planned is not wrong."""
    admin = await _admin(config)
    try:
        described = {topic["topic"]: topic for topic in await admin.describe_topics()}
        found = [plan for plan in plans(config) if plan.name in described]
        resources = [ConfigResource(ConfigResourceType.TOPIC, plan.name) for plan in found]
        answers = await admin.describe_configs(resources) if resources else []
    finally:
        await admin.close()
    told = [resource for answer in answers for resource in answer.resources]
    actual = {resource[3]: {str(entry[0]): str(entry[1]) for entry in resource[4]} for resource in told}
    names = [plan.name for plan in plans(config)] + list(config.topics.raw)
    absent = [name for name in names if name not in described]
    refused = await hidden(config, absent)
    problems = [f"{name}: {UNSEEN if name in refused else 'there is no such topic'}" for name in absent]
    problems += [f"{resource[3]}: {UNSHOWN}" for resource in told if resource[0] in REFUSALS]
    for plan in found:
        problems += _differences(plan, len(described[plan.name]["partitions"]), actual.get(plan.name, {}))
    return problems


async def advice(config: Config) -> list[str]:
    """What would be better of the raw topics, which belong to others, as far as this user may see it; a sentence each.

    Raises aiokafka's KafkaError if the broker cannot be reached.
    """
    admin = await _admin(config)
    try:
        partitions = {
            topic["topic"]: range(len(topic["partitions"]))
            for topic in await admin.describe_topics()
            if topic["topic"] in config.topics.raw
        }
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in partitions]
        answers = await admin.describe_configs(resources) if resources else []
        places = [TopicPartition(name, number) for name, numbers in partitions.items() for number in numbers]
        committed: Mapping[TopicPartition, Any] = {}
        with suppress(KafkaError):  # an analyst need not see them
            committed = await admin.list_consumer_group_offsets(f"{config.kafka.group}-sketch", partitions=places)
    finally:
        await admin.close()
    settings = {r[3]: {str(e[0]): str(e[1]) for e in r[4]} for answer in answers for r in answer.resources}
    found = [
        f"{name}: {STAMPED_BY} is {own[STAMPED_BY]}: clocks that run ahead or behind go unnoticed; set"
        f" {STAMPED_BY}={RAW_CONFIGS[STAMPED_BY]}"
        for name, own in settings.items()
        if own.get(STAMPED_BY, RAW_CONFIGS[STAMPED_BY]) != RAW_CONFIGS[STAMPED_BY]
    ]
    read = {place for place, at in committed.items() if at.offset >= 0}
    for name in sorted({place.topic for place in read}):
        new = [str(place.partition) for place in places if place.topic == name and place not in read]
        if new:
            found.append(
                f"{name}: nothing is read yet of partition {', '.join(new)}; a running worker begins within a minute"
            )
    return found


def _differences(plan: TopicPlan, partitions: int, actual: Mapping[str, str]) -> list[str]:
    problems = []
    if partitions != plan.partitions:
        problems.append(f"{plan.name}: {partitions} partitions; expected {plan.partitions} (topics.partitions)")
    for key, value in plan.configs.items():
        got = actual.get(key)
        if got is None:
            continue  # a broker that does not tell it
        if key == "cleanup.policy" and set(got.replace(" ", "").split(",")) != set(value.split(",")):
            problems.append(f"{plan.name}: {key} is {got}; expected {value}")
        elif key in _SIZES and 0 <= int(got) < int(value):
            problems.append(f"{plan.name}: {key} is {got}; expected at least {value}")
    return problems


async def partition_counts(config: Config, names: Sequence[str]) -> dict[str, int]:
    """How many partitions each topic has; topics that do not exist are missing.

    Raises TopicsError for those that this user may not see: they may well exist.
    """
    admin = await _admin(config)
    try:
        # All of them: to ask for one by name would make it, on brokers that make topics as they are asked for.
        described = await admin.describe_topics()
    finally:
        await admin.close()
    counts = {topic["topic"]: len(topic["partitions"]) for topic in described if topic["topic"] in names}
    refused = await hidden(config, [name for name in names if name not in counts])
    if refused:
        raise TopicsError(
            f"{', '.join(sorted(refused))}: {UNSEEN}; `probewatch doctor` names the rights that are missing"
        )
    return counts


async def _admin(config: Config) -> AIOKafkaAdminClient:
    admin = AIOKafkaAdminClient(bootstrap_servers=config.kafka.bootstrap, **config.kafka.client())
    try:
        await admin.start()
    except BaseException:
        await admin.close()
        raise
    return admin
