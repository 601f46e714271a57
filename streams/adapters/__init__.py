"""Log formats: bytes and headers of a message to requests or faults. One file for each format, one line in REGISTRY."""

from collections.abc import Sequence

from streams.adapters import native
from streams.adapters.base import Adapter
from streams.config.config import Config
from streams.config.keys import ConfigError

REGISTRY: tuple[Adapter, ...] = (native.ADAPTER,)
"""Every log format. The first is the default. Each has fixtures in tests/adapters and a page in docs/formats."""


def by_name(name: str) -> Adapter:
    """The adapter of a log format. Raises ConfigError, which lists the formats."""
    for adapter in REGISTRY:
        if adapter.name == name:
            return adapter
    raise ConfigError(f"expected one of {', '.join(adapter.name for adapter in REGISTRY)}; got {name!r}")


class Formats:
    """The adapter of each topic, as `input.formats` configures it. Raises ConfigError for an unknown format.

    Files, and topics that are not in `topics.raw`, have the format of the raw topics if all of these share one, else
    the default.
    """

    def __init__(self, config: Config) -> None:
        self._adapters = {topic: _configured(config, topic) for topic in config.topics.raw}
        shared = {adapter.name: adapter for adapter in self._adapters.values()}
        self._other = next(iter(shared.values())) if len(shared) == 1 else REGISTRY[0]

    def of(self, topic: str) -> Adapter:
        """The adapter of a topic, or of a file by its name."""
        return self._adapters.get(topic, self._other)

    def topics(self, adapter: Adapter) -> Sequence[str]:
        """The raw topics of a format."""
        return [topic for topic, own in self._adapters.items() if own.name == adapter.name]


def _configured(config: Config, topic: str) -> Adapter:
    try:
        return by_name(config.input.formats.get(topic, REGISTRY[0].name))
    except ConfigError as error:
        raise ConfigError(f"input.formats.{topic}: {error}") from None
