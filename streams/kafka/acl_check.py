"""This client's rights, as the broker reports them, compared with the table of roles.

Kafka reports a client its own rights with the metadata of topics (KIP-430) and of groups. Nothing is tried and nothing
is written. aiokafka does not know these versions of the two requests, so they are defined here.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.conn import create_conn
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Bytes, Int16, Int32, Schema, String

from streams.config.config import Config
from streams.config.kafka import Kafka
from streams.kafka.acl import Right, stage_rights

OPERATIONS = {
    "Read": 3,
    "Write": 4,
    "Create": 5,
    "Delete": 6,
    "Alter": 7,
    "Describe": 8,
    "DescribeConfigs": 10,
    "AlterConfigs": 11,
}
"""Kafka's names of what can be done to topics and groups, and their bits (org.apache.kafka.common.acl.AclOperation)."""

INCLUDED = {"Read": ("Describe",), "Write": ("Describe",), "Alter": ("Describe",), "Delete": ("Describe",)}
INCLUDED |= {"AlterConfigs": ("DescribeConfigs",)}
UNTOLD = -(2**31)
UNKNOWN_TOPIC = 3
WANTS_CERTIFICATE = " (it may want a certificate: kafka.ssl_certfile)"
COORDINATOR_TRIES = 50
REFUSALS = (TopicAuthorizationFailedError.errno, GroupAuthorizationFailedError.errno)


class RightsCheck(NamedTuple):
    """Rights on one resource. missing, surplus : operations, compared with those that a role needs."""

    right: Right
    missing: tuple[str, ...]
    surplus: tuple[str, ...]

    @property
    def lack(self) -> str:
        """What is missing, in words; empty if nothing."""
        return f"no right {', '.join(self.missing)} on {self.right.resource} {self.right.name}" if self.missing else ""


class RightsError(RuntimeError):
    """Rights that a stage needs are missing. Names each."""


class _Topics(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(("node_id", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8")))),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("operations", Int32),
            ),
        ),
        ("operations", Int32),
    )


class _TopicsStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _Topics
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_operations", Boolean),
        ("include_topic_operations", Boolean),
    )


class _TopicsRequest(Request[_TopicsStruct]):  # type: ignore[misc]
    API_KEY = 3

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)

    def build(self, request_struct_class: type[_TopicsStruct]) -> _TopicsStruct:
        return request_struct_class(self._names, False, False, True)


class _Groups(Response):  # type: ignore[misc]
    API_KEY = 15
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "groups",
            Array(
                ("error_code", Int16),
                ("group", String("utf-8")),
                ("state", String("utf-8")),
                ("protocol_type", String("utf-8")),
                ("protocol", String("utf-8")),
                (
                    "members",
                    Array(
                        ("member_id", String("utf-8")),
                        ("client_id", String("utf-8")),
                        ("client_host", String("utf-8")),
                        ("metadata", Bytes),
                        ("assignment", Bytes),
                    ),
                ),
                ("operations", Int32),
            ),
        ),
    )


class _GroupsStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = _Groups
    SCHEMA = Schema(("groups", Array(String("utf-8"))), ("include_operations", Boolean))


class _GroupsRequest(Request[_GroupsStruct]):  # type: ignore[misc]
    API_KEY = 15

    def __init__(self, name: str) -> None:
        self._name = name

    def build(self, request_struct_class: type[_GroupsStruct]) -> _GroupsStruct:
        return request_struct_class([self._name], True)


async def demand(config: Config, stages: Sequence[str]) -> None:
    """Raises RightsError if a stage lacks a right: Kafka's clients would wait for a topic they may not see."""
    wanted = [right for stage in stages for right in stage_rights(config, stage)]
    lacking = [lack for standing in await standings(config, wanted) if (lack := standing.lack)]
    if lacking:
        raise RightsError(f"{'; '.join(dict.fromkeys(lacking))} (`probewatch doctor` says how to give them)")


async def standings(config: Config, wanted: Sequence[Right]) -> list[RightsCheck]:
    """Each of these rights, as the broker sees it for us. Raises aiokafka's KafkaError.

    Empty if the broker cannot tell (the embedded one). Topics that do not exist are left out.
    """
    async with _client(config) as client:
        names = list(dict.fromkeys(right.name for right in wanted if right.resource == "topic"))
        try:
            answer = (await client.send(client.get_random_node(), _TopicsRequest(names))).to_object()
        except NotImplementedError:
            return []
        told = {topic["topic"]: topic for topic in answer["topics"] if topic["error_code"] != UNKNOWN_TOPIC}
        if any(topic["operations"] == UNTOLD and topic["error_code"] not in REFUSALS for topic in told.values()):
            return []
        topics = [right for right in wanted if right.resource == "topic" and right.name in told]
        found = [_standing(right, told[right.name]) for right in topics]
        return found + [await _group(client, right) for right in wanted if right.resource == "group"]


async def hidden(config: Config, names: Sequence[str]) -> set[str]:
    """Those of the topics that the broker will not show us, whether they exist or not. Raises aiokafka's KafkaError."""
    if not names:
        return set()
    async with _client(config) as client:
        try:
            answer = (await client.send(client.get_random_node(), _TopicsRequest(names))).to_object()
        except NotImplementedError:
            return set()
    return {topic["topic"] for topic in answer["topics"] if topic["error_code"] in REFUSALS}


async def _group(client: AIOKafkaClient, right: Right) -> RightsCheck:
    """Only the group's coordinator answers; a young cluster takes a moment to have one, and one to read its groups."""
    for patience in range(COORDINATOR_TRIES, -1, -1):
        try:
            node = await client.coordinator_lookup(CoordinationType.GROUP, right.name)
            (group,) = (await client.send(node, _GroupsRequest(right.name))).to_object()["groups"]
            if group["error_code"] in REFUSALS or not for_code(group["error_code"]).retriable:
                return _standing(right, group)
            raise for_code(group["error_code"])(right.name)
        except GroupAuthorizationFailedError:
            break
        except KafkaError as error:
            if not (error.retriable and patience):
                raise
            await asyncio.sleep(0.2)
    return RightsCheck(right, right.operations, ())


def _standing(right: Right, told: dict[str, Any]) -> RightsCheck:
    if told["error_code"] in REFUSALS:
        return RightsCheck(right, right.operations, ())
    bits = told["operations"]
    granted = {name for name, bit in OPERATIONS.items() if bits >> bit & 1}
    needed = {*right.operations, *(name for one in right.operations for name in INCLUDED.get(one, ()))}
    missing = tuple(name for name in right.operations if name not in granted)
    return RightsCheck(right, missing, tuple(name for name in OPERATIONS if name in granted - needed))


@asynccontextmanager
async def _client(config: Config) -> AsyncIterator[AIOKafkaClient]:
    client = AIOKafkaClient(bootstrap_servers=config.kafka.bootstrap, **config.kafka.client())
    try:
        await client.bootstrap()
        yield client
    finally:
        await client.close()


async def refusal(kafka: Kafka) -> str:
    """The errors of all brokers of `kafka.bootstrap`; empty if one accepts the connection."""
    told = []
    for address in kafka.bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            connection = await create_conn(host, int(port), request_timeout_ms=10_000, **kafka.client())
        except (OSError, KafkaError, TimeoutError, ValueError) as error:
            hint = WANTS_CERTIFICATE if kafka.security_protocol == "SSL" and kafka.ssl_certfile is None else ""
            told.append(f"{address}: {_words(error)}{hint if isinstance(error, KafkaError) else ''}")
        else:
            connection.close()
            await asyncio.sleep(0)
            return ""
    return "; ".join(told)


def _words(error: Exception) -> str:
    reason = getattr(error, "verify_message", "") or getattr(error, "strerror", "") or str(error)
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__
