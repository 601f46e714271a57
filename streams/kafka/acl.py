"""Who may do what on the broker: one table of roles and rights, from which the ACLs are written.

Nobody has more than the role needs. Three decisions stand behind the table:

- Orders (`allow`, `lift`) stand in `requests`, where a replay meets them at their offset. Kafka cannot tell an order
  from a frame of rows, so a right to give orders is a right to forge rows. It is the operator's; analysts only read.
- Dead letters are raw records. The operator reads them, re-sends them and notes it in the same topic; the SOC and
  analysts, who see no raw records, do not.
- Topics and their settings are made under a principal of their own, `admin`. The worker can change neither.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Literal, NamedTuple, get_args

import msgspec

from models.errors import UserError
from streams.config.config import Config

Role = Literal["gateway", "worker", "soc", "door", "analyst", "operator", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
PREFIXES = ("User:", "Group:")
STAGES = ("sketch", "judge", "link")


class Right(NamedTuple):
    """What a role may do to one resource. operations : Kafka's names, as `kafka-acls` spells them."""

    resource: Literal["topic", "group"]
    name: str
    operations: tuple[str, ...]


class Binding(msgspec.Struct, frozen=True):
    """One ACL: allows `principal` the `operation` on `resource_name`, from any host."""

    role: Role
    principal: str
    resource_type: str
    resource_name: str
    operation: str


class RolesError(UserError, ValueError):
    """A principal cannot be used. Says why."""


def rights(config: Config) -> Mapping[Role, tuple[Right, ...]]:
    """The table. Read and Write include Describe; DescribeConfigs is for `doctor`, which runs as whom it examines."""
    topics = config.topics
    events = (topics.alerts, topics.throttle, topics.drift)
    own = (topics.requests, topics.judge_state, topics.link_state, topics.throttle_state, *events, topics.dlq)
    seen = Right("topic", topics.feedback, ("Describe", "DescribeConfigs"))
    stages = [right for stage in STAGES for right in stage_rights(config, stage)]
    return {
        "gateway": _each("topic", topics.raw, "Write"),
        "worker": _joined([*stages, *_each("topic", own, "DescribeConfigs"), seen]),
        "soc": (*_each("topic", events, "Read"), Right("group", f"{config.kafka.group}-soc", ("Read",))),
        "door": _each("topic", (topics.throttle_state,), "Read"),
        "analyst": (
            *_each("topic", (topics.requests, *events), "Read"),
            Right("topic", topics.feedback, ("Read", "Write")),
        ),
        "operator": (
            *_each("topic", (topics.requests, *topics.raw), "Write"),
            Right("topic", topics.dlq, ("Read", "Write")),
        ),
        "admin": (
            *_each("topic", topics.raw, "Describe"),
            *_each("topic", (*own, topics.feedback), "Create", "Describe", "DescribeConfigs", "AlterConfigs"),
        ),
    }


def stage_rights(config: Config, stage: str) -> tuple[Right, ...]:
    """What one stage of the worker needs to run."""
    topics = config.topics
    events = (topics.alerts, topics.throttle, topics.drift)
    read, written = {
        "sketch": (topics.raw, (topics.requests, topics.dlq)),
        "judge": (
            (topics.requests, topics.judge_state),
            (topics.requests, topics.judge_state, topics.dlq, topics.throttle_state, *events),
        ),
        "link": (
            (topics.requests, topics.link_state),
            (topics.requests, topics.link_state, topics.alerts, topics.drift),
        ),
    }[stage]
    group = Right("group", f"{config.kafka.group}-{stage}", ("Read",))
    return _joined([*_each("topic", read, "Read"), *_each("topic", written, "Write"), group])


def _each(resource: Literal["topic", "group"], names: Iterable[str], *operations: str) -> tuple[Right, ...]:
    return tuple(Right(resource, name, operations) for name in names)


def _joined(found: Iterable[Right]) -> tuple[Right, ...]:
    """One right for each resource, with all its operations."""
    operations: dict[tuple[Literal["topic", "group"], str], dict[str, None]] = {}
    for right in found:
        operations.setdefault((right.resource, right.name), {}).update(dict.fromkeys(right.operations))
    return tuple(Right(resource, name, tuple(kept)) for (resource, name), kept in operations.items())


def principals(config: Config, named: Mapping[str, str]) -> dict[Role, str]:
    """Every role's principal: the one given, else `User:<kafka.group>-<role>`. Raises RolesError."""
    unknown = sorted(set(named) - set(ROLES))
    if unknown:
        raise RolesError(f"{unknown[0]}: no such role; there are {', '.join(ROLES)}")
    wrong = next((name for name in named.values() if not name.startswith(PREFIXES)), None)
    if wrong is not None:
        raise RolesError(f"{wrong}: expected a principal such as User:name or User:CN=name,O=org")
    return {role: named.get(role, f"User:{config.kafka.group}-{role}") for role in ROLES}


def bindings(config: Config, named: Mapping[str, str]) -> Iterator[Binding]:
    """Every ACL, in the order of the table. Raises RolesError."""
    chosen = principals(config, named)
    for role, granted in rights(config).items():
        for right in granted:
            for operation in right.operations:
                yield Binding(role, chosen[role], right.resource, right.name, operation)


def commands(config: Config, named: Mapping[str, str]) -> Iterator[str]:
    """The same ACLs as lines for a shell, those of one principal and one set of operations together."""
    chosen = principals(config, named)
    for role, granted in rights(config).items():
        ordered = sorted(granted, key=lambda right: (right.resource, right.operations))
        for _, group in groupby(ordered, lambda right: (right.resource, right.operations)):
            yield grant(config, chosen[role], list(group))


def grant(config: Config, principal: str, rights: Sequence[Right]) -> str:
    """The command that gives these rights, all to the same operations on the same kind of resource."""
    words = ["kafka-acls.sh", "--bootstrap-server", config.kafka.bootstrap, "--command-config", "admin.properties"]
    words += ["--add", "--allow-principal", principal]
    words += [word for operation in rights[0].operations for word in ("--operation", operation)]
    words += [word for right in rights for word in (f"--{right.resource}", right.name)]
    return shlex.join(words)
