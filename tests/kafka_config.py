"""A configuration for tests on a broker: short times, few partitions, topics and groups of their own."""

from typing import Any

from streams.config.config import Config


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


def config_text(config: Config, artefacts: str, port: int = 0) -> str:
    """The same topics and group as a configuration file, for commands. artefacts : with the secrets in it."""
    topics = config.topics
    names = "\n".join(f'{name} = "{value}"' for name, value in topics.model_dump().items() if isinstance(value, str))
    return (
        f'artefacts = "{artefacts}"\n'
        f'[kafka]\nbootstrap = "{config.kafka.bootstrap}"\ngroup = "{config.kafka.group}"\nsession_timeout_s = 10\n'
        f'[web]\nport = {port}\n[secrets]\ndirectory = "{artefacts}/secrets"\n'
        f'[topics]\nraw = ["{topics.raw[0]}"]\npartitions = {topics.partitions}\n{names}\n'
    )
