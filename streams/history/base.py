"""What every source of history gives: batches of raw records, or of frames."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from detector.frame import Frame
from models.errors import UserError
from streams.sketch.sketcher import RawRecord
from streams.wire import frames
from streams.wire.rejects import WHOLE_RECORD, Reject

BATCH_RECORDS = 4_096


class SourceError(UserError, ValueError):
    """A source cannot be read. Says which, where and what to give instead."""


class Message(NamedTuple):
    """One message of `requests`. time_ms : its timestamp, -1 for none."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    time_ms: int = -1
    headers: tuple[tuple[str, bytes], ...] = ()


class RawBatch(NamedTuple):
    """Records of one raw partition, offsets rising."""

    topic: str
    partition: int
    records: list[RawRecord]


class FrameBatch(NamedTuple):
    """Frames as they stood in `requests`; inside a partition offsets rise. rejects : messages that are none."""

    frames: list[Frame]
    rejects: list[Reject]


Batch = RawBatch | FrameBatch


class Source(Protocol):
    """name : as the user knows it. size : of the whole in bytes, as `advance` counts them; None if unknown."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int | None: ...

    def batches(self, advance: Callable[[int], None] = ...) -> Iterator[Batch]:
        """Every batch from the beginning. `advance` is told how much more has been read. Raises SourceError."""
        ...


def decode_messages(messages: Iterable[Message], name: str) -> FrameBatch:
    """Messages of `requests` as frames. What is no frame is passed over as `judge` does, and told."""
    decoded: list[Frame] = []
    rejects: list[Reject] = []
    for message in messages:
        try:
            decoded.append(frames.decode(message.value or b"", message.partition, message.offset))
        except frames.FrameError as error:
            place = (name, message.partition, message.offset, WHOLE_RECORD)
            rejects.append(Reject(*place, "record", "a frame or a control order", str(error), "malformed"))
    return FrameBatch(decoded, rejects)
