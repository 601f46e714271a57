"""Archives for tests."""

from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from streams.history.archive import Message, Writer


def archived(folder: Path, messages: Iterable[Message], topic: str = "requests") -> Path:
    """An archive of these messages."""
    with Writer(folder, topic) as writer:
        ordered = sorted(messages, key=lambda message: (message.partition, message.offset))
        for partition, group in groupby(ordered, attrgetter("partition")):
            listed = list(group)
            writer.begin(partition, listed[0].offset)
            for message in listed:
                writer.add(message)
    return folder
