"""A configuration for tests on a broker: short times, few partitions, topics and groups of their own."""

from typing import Any

from detector.config import Config


def kafka_config(bootstrap: str, namespace: str, **sections: Any) -> Config:
    names = (
        "requests",
        "judge_state",
        "link_state",
        "drift",
        "alerts",
        "throttle",
        "throttle_state",
        "feedback",
        "dlq",
    )
    topics = {name: f"{namespace}.{name}" for name in names} | {"raw": (f"{namespace}.raw",), "partitions": 3}
    return Config(
        kafka={"bootstrap": bootstrap, "group": namespace, "session_timeout_s": 3},
        topics=topics | sections.pop("topics", {}),
        state={"blocks": 4, "round_s": 1.0} | sections.pop("state", {}),
        web={"port": 0},
        **sections,
    )
