"""The interface of a source of history: batches of raw records, or of frames."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from detector.frame import Frame
from models.errors import UserError
from streams.sketch.sketcher import RawRecord
from streams.wire import frames
from streams.wire.rejects import WHOLE_RECORD, Reject

BATCH_RECORDS = 4_096


class SourceError(UserError, ValueError):
    """A source cannot be read. The message names the source, the position and what to give instead."""


class Message(NamedTuple):
    """One message of `requests`. time_ms : its timestamp, -1 for none."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    time_ms: int = -1
    headers: tuple[tuple[str, bytes], ...] = ()


class RawBatch(NamedTuple):
    """Records of one raw partition, offsets rising. more : the next batch is of the same time; sketch both together."""

    topic: str
    partition: int
    records: list[RawRecord]
    more: bool = False


class FrameBatch(NamedTuple):
    """Frames as in `requests`; offsets rise within a partition. rejects : messages that are not frames."""

    frames: list[Frame]
    rejects: list[Reject]


Batch = RawBatch | FrameBatch


class Source(Protocol):
    """History that can be read more than once.

    name : as given by the user; part of every position in its records
    size : bytes in all, in the unit of `advance`; None if unknown

    Example: for batch in open_sources(["logs/june.jsonl.zst"], config)[0].batches(): ...
    """

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int | None: ...

    def batches(self, advance: Callable[[int], None] = ...) -> Iterator[Batch]:
        """Every batch from the beginning.

        advance : called with the number of bytes read since the last call

        Raises SourceError.
        """
        ...


def together(batches: Iterable[Batch]) -> Iterator[list[RawBatch] | FrameBatch]:
    """Raw batches of the same time as one list."""
    gathered: list[RawBatch] = []
    for batch in batches:
        if isinstance(batch, FrameBatch):
            yield batch
            continue
        gathered.append(batch)
        if not batch.more:
            yield gathered
            gathered = []


def decode_messages(messages: Iterable[Message], name: str) -> FrameBatch:
    """Messages of `requests` as frames. Messages that are not frames become rejects; `judge` skips them too."""
    decoded: list[Frame] = []
    rejects: list[Reject] = []
    for message in messages:
        try:
            decoded.append(frames.decode(message.value or b"", message.partition, message.offset))
        except frames.FrameError as error:
            position = (name, message.partition, message.offset, WHOLE_RECORD)
            rejects.append(Reject(*position, "record", "a frame or a control order", str(error), "malformed"))
    return FrameBatch(decoded, rejects)
