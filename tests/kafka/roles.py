"""What each role can really do: every action of every role is tried on Apache Kafka, and the answers make the table.

    python -m tests.kafka.roles [--write-docs]

prints the table, and puts it into docs/reliability.md.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from streams.config.config import Config
from streams.kafka.acl import ROLES, STAGES
from tests.kafka.closed_broker import ROOT, Closed, closed_kafka
from tests.kafka_config import kafka_config

TOPICS = (
    "raw",
    "requests",
    "judge_state",
    "link_state",
    "alerts",
    "throttle",
    "throttle_state",
    "drift",
    "feedback",
    "dlq",
)
GROUPS = (*STAGES, "soc", "stranger")
LETTERS = {"read": "R", "write": "W", "see settings": "s", "change settings": "C", "add partitions": "P", "delete": "D"}
CLUSTER = ("make another topic", "see ACLs", "make an ACL")
ANSWER_S = 20.0
REFUSED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
IMPATIENT = {"topic.metadata.propagation.max.ms": 500, "topic.metadata.refresh.fast.interval.ms": 100, "log_level": 0}
"""A topic that the broker hides could be one that it has not heard of yet: librdkafka would wait half a minute."""

DOCS = Path(__file__).parents[2] / "docs" / "reliability.md"

Answers = Mapping[str, Mapping[str, bool]]
"""role -> action -> whether the broker let it happen."""


class UnexpectedError(RuntimeError):
    """The broker neither did it nor refused it for want of a right."""


def topic_names(config: Config) -> dict[str, str]:
    topics = config.topics
    return {short: topics.raw[0] if short == "raw" else getattr(topics, short) for short in TOPICS}


def prepare(closed: Closed, config: Config) -> None:
    """Topics with a record each, and every role's ACLs."""
    admin, names = AdminClient(closed.settings(ROOT)), topic_names(config)
    for future in admin.create_topics([NewTopic(name, 1, 1) for name in names.values()]).values():
        future.result(ANSWER_S)
    producer = Producer(closed.settings(ROOT))
    for name in names.values():
        producer.produce(name, b"x", partition=0)
    assert producer.flush(ANSWER_S) == 0
    closed.grant(config)


def measure(closed: Closed, config: Config) -> Answers:
    """Try everything, as everybody. What must not happen to the topics, were it allowed, is tried last."""
    answers: dict[str, dict[str, bool]] = {}
    for role in ROLES:
        settings, names = {**closed.settings(role), **IMPATIENT}, topic_names(config)
        admin = AdminClient(settings)
        answers[role] = (
            _reads(settings, names)
            | _writes(settings, names)
            | _groups(admin, config)
            | _admin(admin, names)
            | _cluster(admin, config)
        )
    return answers


def _allowed(error: KafkaError | None) -> bool:
    if error is None:
        return True
    if error.code() in REFUSED:
        return False
    raise UnexpectedError(str(error))


def _reads(settings: Mapping[str, str], names: Mapping[str, str]) -> dict[str, bool]:
    """A topic that may not even be seen is refused with its metadata: librdkafka never comes to ask for its records."""
    consumer = Consumer({**settings, "group.id": "none", "enable.auto.commit": False})
    answers = {}
    for short, name in names.items():
        answers[f"read {short}"] = _allowed(consumer.list_topics(name, ANSWER_S).topics[name].error)
        if answers[f"read {short}"]:
            consumer.assign([TopicPartition(name, 0, 0)])
            answers[f"read {short}"] = _allowed(_first(consumer).error())
    consumer.close()
    return answers


def _first(consumer: Consumer) -> Any:
    """The first message, or error, about a topic; that nobody may use the group named above is not asked here."""
    while (message := consumer.poll(ANSWER_S)) is not None:
        if message.error() is None or message.error().code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
            return message
    raise UnexpectedError("no answer")


def _writes(settings: Mapping[str, str], names: Mapping[str, str]) -> dict[str, bool]:
    producer = Producer({**settings, "message.timeout.ms": 10_000})
    answers: dict[str, bool] = {}
    for short, name in names.items():

        def note(error: KafkaError | None, _: Any, short: str = short) -> None:
            answers[f"write {short}"] = _allowed(error)

        producer.produce(name, b"x", partition=0, on_delivery=note)
    producer.flush(ANSWER_S)
    return answers


def _groups(admin: AdminClient, config: Config) -> dict[str, bool]:
    """To commit an offset takes the group's right to read; that the topic may be refused besides does not matter."""
    answers = {}
    for group in GROUPS:
        offset = TopicPartition(config.topics.requests, 0, 0)
        commit = ConsumerGroupTopicPartitions(f"{config.kafka.group}-{group}", [offset])
        answers[f"group {group}"] = _done(admin.alter_consumer_group_offsets([commit]))
    return answers


def _admin(admin: AdminClient, names: Mapping[str, str]) -> dict[str, bool]:
    answers = {}
    for short, name in names.items():
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        change = ConfigEntry("retention.ms", "86400000", incremental_operation=AlterConfigOpType.SET)
        changed = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[change])
        answers[f"see settings {short}"] = _done(admin.describe_configs([resource]))
        answers[f"change settings {short}"] = _done(admin.incremental_alter_configs([changed]))
        answers[f"add partitions {short}"] = _done(admin.create_partitions([NewPartitions(name, 2)]))
        answers[f"delete {short}"] = _done(admin.delete_topics([name]))
    return answers


def _cluster(admin: AdminClient, config: Config) -> dict[str, bool]:
    where = (ResourceType.TOPIC, config.topics.requests, ResourcePatternType.LITERAL)
    right = ("*", AclOperation.WRITE, AclPermissionType.ALLOW)
    # librdkafka swallows a refusal here and gives an empty list; the worker's ACL is known to be there.
    seen = admin.describe_acls(AclBindingFilter(*where, "User:worker", *right)).result(ANSWER_S)
    return {
        "make another topic": _done(admin.create_topics([NewTopic(f"{config.kafka.group}.stranger", 1, 1)])),
        "see ACLs": bool(seen),
        "make an ACL": _done(admin.create_acls([AclBinding(*where, "User:stranger", *right)])),
    }


def _done(futures: Mapping[Any, Any]) -> bool:
    (future,) = futures.values()
    try:
        future.result(ANSWER_S)
    except KafkaException as error:
        return _allowed(error.args[0])
    return True


def table(answers: Answers) -> str:
    """Markdown: a row for each topic, for the groups and for the cluster; a column for each role."""
    lines = [f"| | {' | '.join(ROLES)} |", "|---|" + "---|" * len(ROLES)]
    for topic in TOPICS:
        cells = ["".join(LETTERS[verb] for verb in LETTERS if answers[role][f"{verb} {topic}"]) for role in ROLES]
        lines.append(_line(f"`{topic}`", cells))
    groups = [", ".join(group for group in GROUPS if answers[role][f"group {group}"]) for role in ROLES]
    lines.append(_line("groups", groups))
    lines.append(_line("cluster", [", ".join(name for name in CLUSTER if answers[role][name]) for role in ROLES]))
    return "\n".join(lines)


def _line(name: str, cells: Iterable[str]) -> str:
    return f"| {name} | " + " | ".join(cell or "-" for cell in cells) + " |"


def section(answers: Answers) -> str:
    """The text between the markers in docs/reliability.md."""
    tried = sum(len(found) for found in answers.values())
    refused = sum(not allowed for found in answers.values() for allowed in found.values())
    letters = ", ".join(f"{letter} {verb}" for verb, letter in LETTERS.items())
    return f"""
## Roles

Each role's own user tried each of {tried} actions on Apache Kafka with its StandardAuthorizer, over TLS and
SCRAM-SHA-512. {refused} were denied by ACLs, as `tests/kafka/test_roles.py` requires. {letters}; - nothing.
The reasons: [security](security.md). `make roles` prints this section.

{table(answers)}
"""


def write_docs(text: str) -> None:
    whole = DOCS.read_text(encoding="utf-8")
    head, begin, rest = whole.partition("<!-- roles: begin -->")
    _, end, tail = rest.partition("<!-- roles: end -->")
    DOCS.write_text(f"{head}{begin}{text}{end}{tail}", encoding="utf-8")


def main() -> None:
    with closed_kafka() as closed:
        config = kafka_config(closed.scram, "roles")
        prepare(closed, config)
        text = section(measure(closed, config))
    print(text)
    if "--write-docs" in sys.argv[1:]:
        write_docs(text)


if __name__ == "__main__":
    main()
