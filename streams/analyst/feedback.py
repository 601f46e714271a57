"""Feedback on alerts, in the compacted topic `topics.feedback` or in a file of the same records.

It holds labels and suppressions; the last record of each key counts. Readers skip unknown schemas.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import structlog

from detector.events.escape import json_bytes
from models import private
from models.errors import UserError
from streams.analyst.events import KAFKA, EventError, Place, read_lines
from streams.config.config import Config

log = structlog.get_logger()

FILE = "feedback.jsonl"

T = TypeVar("T")


class FeedbackError(UserError, ValueError):
    """A label or suppression cannot be stored, or is not allowed."""


class _Named(msgspec.Struct):
    schema: str


_name = msgspec.json.Decoder(_Named)


def keep(config: Config, key: str, record: msgspec.Struct, to: Path | None) -> str:
    """Write one record to the topic, or as one line more to a file; the place's name.

    Raises FeedbackError, KafkaError, SendError.
    """
    value = json_bytes(record)
    if to is None:
        asyncio.run(_send(config, key.encode(), value))
        return config.topics.feedback
    try:
        private.append(to, value + b"\n")
    except OSError as error:
        raise FeedbackError(f"{to}: {error.strerror}") from error
    return str(to)


async def _send(config: Config, key: bytes, value: bytes) -> None:
    from streams.kafka import clients, topics
    from streams.kafka.broker import probe

    topic = config.topics.feedback
    if not await topics.partition_counts(config, [topic]):
        raise FeedbackError(f"there is no topic {topic}; `probewatch topics create` makes it, `--to FILE` needs none")
    producer = clients.producer(config, await probe(config.kafka), len(value))
    await producer.start()
    try:
        await (await producer.send(topic, value, key=key))
    finally:
        await producer.stop()


class FeedbackRecord(NamedTuple):
    """A record of feedback. at : where it stands."""

    schema: str
    value: bytes
    at: str


def read(place: Place, config: Config) -> list[FeedbackRecord]:
    """Everything, records of one key oldest first. What is no feedback is passed over in the topic, with a warning.

    Raises EventError for a file, SourceError for a topic that cannot be read.
    """
    if place not in (None, KAFKA):
        return list(read_lines(_files(Path(str(place))), _said))
    found = []
    for record in _records(config):
        at = f"{record.topic}[{record.partition}]@{record.offset}"
        try:
            found.append(_said(record.value)._replace(at=at))
        except EventError as error:
            log.warning("passed over", at=at, error=str(error))
    return found


def of(said: Iterable[FeedbackRecord], schema: str, decode: Callable[[bytes], T]) -> Iterator[T]:
    """Those of one schema. One that is broken is passed over with a warning: it must not hide the others."""
    for one in said:
        if one.schema == schema:
            try:
                yield decode(one.value)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                log.warning("passed over", at=one.at, error=type(error).__name__)


def _said(value: bytes) -> FeedbackRecord:
    try:
        return FeedbackRecord(_name.decode(value).schema, value, "")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(f"no feedback of ours: {type(error).__name__} while reading it") from error


def _files(place: Path) -> list[Path]:
    """A folder without the file holds no feedback."""
    if place.is_dir():
        return [file for file in [place / FILE] if file.is_file()]
    if not place.is_file():
        raise EventError(f"{place}: no such file; `probewatch label ALERT … --to {place}` writes it")
    return [place]


def beside(place: Place) -> Path | None:
    """The default place of feedback on events of a place; None for the topic."""
    if place in (None, KAFKA):
        return None
    path = Path(str(place))
    return (path if path.is_dir() else path.parent) / FILE


def _records(config: Config) -> Iterator[Any]:
    """Everything the topic holds, of each key in order. A topic that was never made holds nothing."""
    from streams.history.kafka_source import KafkaSource
    from streams.kafka import topics

    topic = config.topics.feedback
    if not asyncio.run(topics.partition_counts(config, [topic])):
        return
    source = KafkaSource(f"kafka://{config.kafka.bootstrap}/{topic}", config)
    yield from (record for batch in source.messages() for record in batch if record.value is not None)
