"""Topics are made as planned, and what differs is said."""

import pytest

from streams.kafka import topics
from tests.kafka_config import kafka_config


async def test_created_topics_are_found_right(broker: str, namespace: str) -> None:
    config = kafka_config(broker, namespace)
    assert len(await topics.check(config)) == 10  # nine of ours and one raw topic are missing
    made = await topics.create(config, raw_partitions=2)
    assert len(made) == 10
    assert await topics.create(config, raw_partitions=2) == []
    assert await topics.check(config) == []
    counts = await topics.partition_counts(config, [config.topics.requests, config.topics.judge_state, "nowhere"])
    assert counts == {config.topics.requests: 3, config.topics.judge_state: 3}


async def test_other_partitions_and_too_small_messages_are_said(broker: str, namespace: str) -> None:
    await topics.create(kafka_config(broker, namespace), raw_partitions=1)
    other = kafka_config(broker, namespace, topics={"partitions": 4}, state={"block_bytes": 64 * 2**20})
    problems = await topics.check(other)
    assert sum("3 partitions; expected 4 (topics.partitions)" in problem for problem in problems) == 7
    assert any("judge_state: max.message.bytes is 8388608; expected at least 134217728" in p for p in problems)


@pytest.mark.kafka
async def test_a_refusal_names_topic_and_reason(apache_broker: str, namespace: str) -> None:
    config = kafka_config(apache_broker, namespace, topics={"replication": 3})
    with pytest.raises(topics.TopicsError, match=r"\.requests: .*replication factor"):
        await topics.create(config)
