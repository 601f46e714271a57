"""Record files in order of time: what several pods logged at one time, each into its file, is read at one time."""

import heapq
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from models.rows import F64
from streams.adapters import Formats
from streams.adapters.base import Adapter
from streams.adapters.json_text import UNREADABLE
from streams.adapters.request import Request
from streams.config.config import Config
from streams.config.input import Input
from streams.history.base import RawBatch
from streams.sketch import columns

BUFFER_RECORDS = 1_024
"""Records of each file that are held while it is merged with others."""
BUFFER_BYTES = 8 * 2**20

FIRST_RECORDS = 64
"""Records of which the earliest tells when a file begins."""

Line = tuple[int, bytes]


Stamps = Callable[[Sequence[Line]], F64]


class LineFile(Protocol):
    """A file of records, a raw partition of its own. lines : with their numbers, a few at a time, until they are so
    many or so long. split : by raw partition. positioned : whether its records bring a position in Kafka."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int | None: ...

    @property
    def positioned(self) -> bool: ...

    def lines(self, records_max: int, bytes_max: int, advance: Callable[[int], None] = ...) -> Iterator[list[Line]]: ...

    def split(self, lines: list[Line]) -> Iterator[RawBatch]: ...

    def batches(self, advance: Callable[[int], None] = ...) -> Iterator[RawBatch]: ...


class MergedFiles:
    """Several files as one source. Positions, and the order within each file, are those of the files read alone.

    Files that do not overlap in time are read one after the other, those with positions in Kafka before all others.
    """

    def __init__(self, files: Sequence[LineFile], config: Config) -> None:
        self.files = files
        self.name = f"{len(files)} files"
        sizes = [file.size for file in files]
        self.size: int | None = sum(size for size in sizes if size is not None)
        self._formats = Formats(config)
        self._limits = config.input

    def batches(self, advance: Callable[[int], None] = lambda _: None) -> Iterator[RawBatch]:
        """Batches of the same time follow one another, all but the last with `more`."""
        for file in self.files:
            if file.positioned:
                yield from file.batches(advance)
        begins = [_Begin(self._first_s(file), place) for place, file in enumerate(self.files) if not file.positioned]
        waiting, reading = sorted(begins), list[_Reader]()
        while waiting or reading:
            until_s = min((reader.until_s for reader in reading), default=-np.inf)
            while waiting and (not reading or waiting[0].first_s <= until_s):
                place = waiting.pop(0).place
                file = self.files[place]
                reading.append(_Reader(place, file, self._stamps_of(file), advance))
                reading.sort(key=lambda reader: reader.place)
                until_s = min(reader.until_s for reader in reading)
            parts = [part for reader in reading for part in reader.taken(until_s)]
            reading = [reader for reader in reading if reader.lines]
            yield from (part._replace(more=True) for part in parts[:-1])
            yield from parts[-1:]

    def _first_s(self, file: LineFile) -> float:
        first = next(file.lines(FIRST_RECORDS, BUFFER_BYTES), [])
        return float(in_order(self._stamps_of(file)(first)).min(initial=np.inf))

    def _stamps_of(self, file: LineFile) -> Stamps:
        return partial(stamps, adapter=self._formats.of(file.name), limits=self._limits)


class _Begin(NamedTuple):
    first_s: float
    place: int


class _Reader:
    """A file that is being read. lines : the next ones. until_s : nothing behind these lines is earlier; infinite if
    nothing is behind them."""

    def __init__(self, place: int, file: LineFile, stamps_of: Stamps, advance: Callable[[int], None]) -> None:
        self.place = place
        self.lines: list[Line] = []
        self._file = file
        self._stamps_of = stamps_of
        self._rest = file.lines(BUFFER_RECORDS, BUFFER_BYTES, advance)
        self._read_ahead()
        self._refill()

    def _read_ahead(self) -> None:
        self._next = next(self._rest, [])
        self._next_stamps = self._stamps_of(self._next)

    def _refill(self) -> None:
        self.lines, known = self._next, self._next_stamps
        self._read_ahead()
        self._times = in_order(np.concatenate([known, self._next_stamps]))[: len(self.lines)]
        self.until_s = float(self._times[-1]) if self._next else np.inf

    def taken(self, until_s: float) -> list[RawBatch]:
        """What was logged up to a time, by raw partition."""
        count = int(np.searchsorted(self._times, until_s, "right"))
        lines, self.lines, self._times = self.lines[:count], self.lines[count:], self._times[count:]
        if not self.lines:
            self._refill()
        return list(self._file.split(lines))


def stamps(lines: Sequence[Line], adapter: Adapter, limits: Input) -> F64:
    """(n,) s since 1970, of the first element of each line; NaN if it cannot be read."""
    found = [_request(text, adapter) for _, text in lines]
    read = np.full(len(lines), np.nan)
    known = [place for place, request in enumerate(found) if request is not None]
    if known:
        window = limits.earliest_ms, limits.latest_ms
        times_ms = columns.times([request for request in found if request is not None], *window)
        inside = (times_ms >= window[0]) & (times_ms < window[1])
        read[known] = np.where(inside, times_ms / 1000, np.nan)
    return read


def _request(text: bytes, adapter: Adapter) -> Request | None:
    try:
        if adapter.decode_one is not None:
            return adapter.decode_one(text)
    except UNREADABLE:
        pass
    first = next(iter(adapter.elements(text.strip())), b"")
    decoded = adapter.decode(first, (), frozenset())
    return decoded if isinstance(decoded, Request) else None


def in_order(read: F64) -> F64:
    """(n,) times, never falling, of lines with these stamps: those that differ least from them in all.

    A run of lines with a wrong clock, however wrong, thus moves about as many around it, and never the file. This is
    isotonic regression in the absolute norm, by a heap (Rote 2019, Isotonic regression by dynamic programming). A line
    that cannot be read is as old as the one before.
    """
    known = np.flatnonzero(np.isfinite(read))
    if not len(known):
        return np.full(len(read), -np.inf)
    heap: list[float] = []
    tops = np.empty(len(known))
    for place, time_s in enumerate(read[known].tolist()):
        heapq.heappush(heap, -time_s)
        if -heap[0] > time_s:
            heapq.heapreplace(heap, -time_s)
        tops[place] = -heap[0]
    fitted: F64 = np.minimum.accumulate(tops[::-1])[::-1]
    before = np.searchsorted(known, np.arange(len(read)), "right") - 1
    return fitted[np.maximum(before, 0)]
