"""Topic ids (KIP-516): a topic that is deleted and re-created gets another id, and its offsets start again.

Brokers have them since Kafka 2.8. aiokafka does not request them, so the request is implemented here.
"""

from collections.abc import Collection
from io import BytesIO

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion, NodeNotReadyError
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

ID_BYTES = 16


class _Uuid(AbstractType[bytes]):  # type: ignore[misc]
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(ID_BYTES)


_TEXT = CompactString("utf-8")
_TAGS = ("tags", TaggedFields)


class _Metadata12Answer(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", CompactArray(("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), _TAGS)),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", _TEXT),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        _TAGS,
                    ),
                ),
                ("authorized_operations", Int32),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class _Metadata12(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Metadata12Answer
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("topic", _TEXT), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class _TopicIds(Request[_Metadata12]):  # type: ignore[misc]
    API_KEY = 3

    def __init__(self, names: Collection[str]) -> None:
        self._names = sorted(names)

    def build(self, request_struct_class: type[_Metadata12]) -> _Metadata12:
        return request_struct_class([(bytes(ID_BYTES), name, {}) for name in self._names], False, False, {})


async def absent_topics(client: AIOKafkaClient, names: Collection[str]) -> frozenset[str]:
    """Those that do not exist, or that this user may not see. Raises aiokafka's KafkaError if no broker answers.

    All are listed: to ask for one by name would make it, on brokers that make topics as they are asked for.
    """
    known: set[str] = (await client.fetch_all_metadata()).topics(exclude_internal_topics=False)
    return frozenset(names) - known


async def topic_ids(client: AIOKafkaClient, names: Collection[str]) -> dict[str, str]:
    """Name -> id, 32 hexadecimal digits. Topics that do not exist are missing, all of them on brokers without ids.

    Raises aiokafka's KafkaError if no broker answers.
    """
    node = client.get_random_node()
    if node is None:
        raise NodeNotReadyError("no broker is known")
    try:
        answer = await client.send(node, _TopicIds(names))
    except (NotImplementedError, IncompatibleBrokerVersion):
        return {}
    return {name: raw.hex() for _, name, raw, *_ in answer.topics if any(raw)}
