"""Apache Kafka with the door shut: TLS on every listener, SCRAM or certificates, and what no ACL allows is refused."""

import contextlib
import os
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from streams.config.config import Config
from streams.config.kafka import Kafka
from streams.kafka.acl import ROLES, Binding, bindings
from tests.kafka.certificates import certificates
from tests.kafka_broker import SCRIPT

START_S = 180
ROOT = "root"
"""Makes ACLs and raw topics, as whoever runs the cluster does; no role of ours."""

SUBJECT = "RULE:^CN=([^,]+)$/$1/,DEFAULT"
OPERATIONS = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Create": AclOperation.CREATE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
    "AlterConfigs": AclOperation.ALTER_CONFIGS,
}


class Closed(NamedTuple):
    """scram, mtls : addresses of the two listeners. folder : NAME.pem, NAME.key and NAME.password of every user."""

    scram: str
    mtls: str
    folder: Path
    said: Path

    def kafka(self, user: str, way: str = "scram") -> dict[str, Any]:
        """The section [kafka] of a configuration for this user."""
        common = {"ssl_cafile": self.folder / "ca.pem", "session_timeout_s": 3}
        if way == "mtls":
            certificate = {"ssl_certfile": self.folder / f"{user}.pem", "ssl_keyfile": self.folder / f"{user}.key"}
            return common | certificate | {"bootstrap": self.mtls, "security_protocol": "SSL"}
        return common | {
            "bootstrap": self.scram,
            "security_protocol": "SASL_SSL",
            "sasl_username": user,
            "sasl_password_file": self.folder / f"{user}.password",
        }

    def settings(self, user: str) -> dict[str, str]:
        """The same for clients on librdkafka."""
        return {
            "bootstrap.servers": self.scram,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "sasl.password": (self.folder / f"{user}.password").read_text(),
            "ssl.ca.location": str(self.folder / "ca.pem"),
        }

    def grant(self, config: Config) -> None:
        """Write the ACLs of every role, as the table says."""
        change_acls(self, list(bindings(config, {role: f"User:{role}" for role in ROLES})))


def as_user(config: Config, closed: Closed, user: str, way: str = "scram") -> Config:
    """The same installation, seen by this user."""
    kafka = Kafka(**(closed.kafka(user, way) | {"group": config.kafka.group}))
    return config.model_copy(update={"kafka": kafka})


def change_acls(closed: Closed, wanted: list[Binding], *, remove: bool = False) -> None:
    acls = [
        AclBinding(
            ResourceType[one.resource_type.upper()],
            one.resource_name,
            ResourcePatternType.LITERAL,
            one.principal,
            "*",
            OPERATIONS[one.operation],
            AclPermissionType.ALLOW,
        )
        for one in wanted
    ]
    admin = AdminClient(closed.settings(ROOT))
    futures = admin.delete_acls([_filter(acl) for acl in acls]) if remove else admin.create_acls(acls)
    for future in futures.values():
        future.result(20)


def _filter(acl: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        acl.restype,
        acl.name,
        acl.resource_pattern_type,
        acl.principal,
        acl.host,
        acl.operation,
        acl.permission_type,
    )


@contextlib.contextmanager
def closed_kafka() -> Iterator[Closed]:
    """Start it, yield it, stop it. Raises RuntimeError with the broker's last words."""
    with tempfile.TemporaryDirectory(prefix="probewatch-closed-") as name:
        folder = Path(name)
        users = (ROOT, *ROLES)
        certificates(folder, ("broker", *users))
        for user in users:
            (folder / f"{user}.password").write_text(secrets.token_hex(16))
        first, mtls = _ports()
        (folder / "extra.properties").write_text(_properties(folder, first, mtls))
        scram = [
            f"--add-scram SCRAM-SHA-512=[name={user},password={(folder / f'{user}.password').read_text()}]"
            for user in users
        ]
        environment = os.environ | {
            "KAFKA_EXTRA": str(folder / "extra.properties"),
            "KAFKA_FORMAT": " ".join(scram),
        }
        said = folder / "said"
        with said.open("wb") as output:
            command = [str(SCRIPT), str(first), str(folder / "node")]
            process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment)
            closed = Closed(f"127.0.0.1:{first}", f"127.0.0.1:{mtls}", folder, said)
            try:
                if not _accepts(process, (first, mtls)):
                    raise RuntimeError(f"Apache Kafka did not start: {said.read_text(errors='replace')[-2000:]}")
                yield closed
            finally:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _properties(folder: Path, first: int, mtls: int) -> str:
    return f"""
listeners=SASL_SSL://127.0.0.1:{first},CONTROLLER://127.0.0.1:{first + 1},SSL://127.0.0.1:{mtls}
advertised.listeners=SASL_SSL://127.0.0.1:{first},SSL://127.0.0.1:{mtls}
listener.security.protocol.map=SASL_SSL:SASL_SSL,SSL:SSL,CONTROLLER:SSL
inter.broker.listener.name=SSL
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.store
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.ssl.ssl.client.auth=required
listener.name.controller.ssl.client.auth=required
ssl.principal.mapping.rules={SUBJECT}
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=false
super.users=User:broker;User:{ROOT}
"""


def _ports() -> tuple[int, int]:
    """A free port whose successor is free as well (the controller's), and one more."""
    while True:
        with socket.socket() as first, socket.socket() as second, socket.socket() as third:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                third.bind(("127.0.0.1", 0))
                other: int = third.getsockname()[1]
                return port, other


def _accepts(process: "subprocess.Popen[bytes]", ports: tuple[int, int]) -> bool:
    deadline = time.monotonic() + START_S
    waiting = list(ports)
    while waiting and process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", waiting[0]), timeout=0.2):
            waiting.pop(0)
            continue
        time.sleep(0.1)
    return not waiting
