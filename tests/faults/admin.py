"""What an operator may do to a cluster, for good or ill."""

import asyncio
from collections.abc import Mapping
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.group import LeaveGroupRequest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

TIMEOUT_S = 20
EVERYBODY = "User:ANONYMOUS"
"""Whom an authorizer sees behind a connection without TLS and SASL."""

Offsets = dict[int, int]


class Admin:
    """Every call waits for the cluster's answer and raises KafkaException if it is no."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._client = self._connected()

    def _connected(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self._bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 500})

    async def _all(self, answers: Mapping[Any, Any]) -> list[Any]:
        return [await asyncio.to_thread(future.result, TIMEOUT_S + 5) for future in answers.values()]

    async def configure(self, topic: str, **settings: str | None) -> None:
        """Settings with underscores for dots; None takes one back."""
        entries = [
            ConfigEntry(
                name.replace("_", "."),
                value or "",
                incremental_operation=AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET,
            )
            for name, value in settings.items()
        ]
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
        await self._all(self._client.incremental_alter_configs([resource], request_timeout=TIMEOUT_S))

    async def withdraw_write(self, topic: str) -> None:
        """Everybody may go on reading. A resource with any rule allows only what a rule allows."""
        rules = [_rule(topic, operation) for operation in (AclOperation.READ, AclOperation.DESCRIBE)]
        await self._all(self._client.create_acls(rules, request_timeout=TIMEOUT_S))

    async def restore_write(self, topic: str) -> None:
        every = AclBindingFilter(
            ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, None, None, AclOperation.ANY, AclPermissionType.ANY
        )
        await self._all(self._client.delete_acls([every], request_timeout=TIMEOUT_S))

    async def delete_group(self, group: str) -> None:
        await self._all(self._client.delete_consumer_groups([group], request_timeout=TIMEOUT_S))

    async def members(self, group: str) -> list[str]:
        (description,) = await self._all(self._client.describe_consumer_groups([group], request_timeout=TIMEOUT_S))
        return sorted(member.member_id for member in description.members)

    async def remove_member(self, group: str, member: str) -> None:
        """The request by which members leave, sent by somebody else."""
        client = AIOKafkaClient(bootstrap_servers=self._bootstrap)
        await client.bootstrap()
        try:
            node = await client.coordinator_lookup(0, group)
            answer = await client.send(node, LeaveGroupRequest(group, member))
            assert answer.error_code == 0, f"the coordinator keeps {member}: error {answer.error_code}"
        finally:
            await client.close()

    async def delete_topic(self, topic: str) -> None:
        await self._all(self._client.delete_topics([topic], operation_timeout=TIMEOUT_S))
        self._client = self._connected()  # the old one goes on asking with the leader epoch of the topic that is gone

    async def create_topic(self, topic: str, partitions: int, replication: int) -> None:
        wanted = NewTopic(topic, num_partitions=partitions, replication_factor=replication)
        await self._all(self._client.create_topics([wanted], operation_timeout=TIMEOUT_S))

    async def set_offsets(self, group: str, topic: str, offsets: Offsets) -> None:
        wanted = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
        request = [ConsumerGroupTopicPartitions(group, wanted)]
        await self._all(self._client.alter_consumer_group_offsets(request, request_timeout=TIMEOUT_S))


def _rule(topic: str, operation: Any) -> Any:
    return AclBinding(
        ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, EVERYBODY, "*", operation, AclPermissionType.ALLOW
    )
