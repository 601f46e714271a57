"""Every fault that there is."""

from tests.faults import brokers, content, groups, processes
from tests.faults.fault import Fault

REGISTRY: tuple[Fault, ...] = (*processes.FAULTS, *brokers.FAULTS, *groups.FAULTS, *content.FAULTS)


def named(name: str) -> Fault:
    """Raises KeyError with the names there are."""
    found = {fault.name: fault for fault in REGISTRY}
    if name not in found:
        raise KeyError(f"{name}: expected one of {', '.join(found)}")
    return found[name]
