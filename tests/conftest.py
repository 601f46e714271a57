"""Brokers, started once a process and only when a test asks. Topics and groups are kept apart by `namespace`."""

import fcntl
import itertools
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from streams.kafka.embedded import EmbeddedBroker
from tests.kafka_broker import apache_kafka
from tests.pipeline import Calibrated, calibrated, load_calibrated

sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
"""jsonschema imports it for a format that no schema of ours has: a grammar, built for two seconds in each process."""

if TYPE_CHECKING:
    from tests.kafka.closed_broker import Closed

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

_numbers = itertools.count()
BROKERS = {"broker", "embedded_broker", "apache_broker", "closed"}


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[str]:
    with EmbeddedBroker() as broker:
        yield broker.bootstrap


@pytest.fixture(scope="session")
def apache_broker() -> Iterator[str]:
    """Only for tests marked `kafka`: needs Java and Maven."""
    with apache_kafka() as bootstrap:
        yield bootstrap


@pytest.fixture(scope="session")
def closed() -> "Iterator[Closed]":
    """Apache Kafka that refuses what no ACL allows."""
    from tests.kafka.closed_broker import closed_kafka  # not for those who only want the embedded broker

    with closed_kafka() as broker:
        yield broker


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest) -> str:
    """Both brokers, one after the other; Apache Kafka only where tests marked `kafka` run."""
    address: str = request.getfixturevalue(f"{request.param}_broker")
    return address


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Calibrated:
    """Calibrated artefacts, made once. The processes of a parallel run share them: never write to this folder."""
    run = tmp_path_factory.getbasetemp()
    folder = (run.parent if "PYTEST_XDIST_WORKER" in os.environ else run) / "artefacts"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return load_calibrated(folder)
        making = folder.with_suffix(".making")
        making.mkdir()
        calibrated(making)
        making.rename(folder)
    return load_calibrated(folder)


@pytest.fixture
def namespace() -> str:
    """A prefix for topics and groups that no other test uses."""
    return f"t{os.getpid()}-{next(_numbers)}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that wait for a broker begin first: what computes fills the time in which they wait."""
    waiting = {item.path for item in items if BROKERS & set(getattr(item, "fixturenames", ()))}
    items.sort(key=lambda item: item.path not in waiting)
