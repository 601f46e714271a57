"""Where the time of a recovery goes: the steps of loading blocks, one after the other, in processor time."""

from collections.abc import Callable, Sequence
from time import process_time
from typing import Any, NamedTuple

import msgspec
import zstandard

from detector import engine
from models.kernels.fold.slots import reindex
from streams.config.config import Config
from streams.wire import frames
from tests.pipeline import Calibrated
from tests.scaling.population import frames_of


class Load(NamedTuple):
    """Seconds of processor time for all clients. whole_s : `engine.load_block`, with all the others in it."""

    clients: int
    stored_mb: float
    unpacked_mb: float
    checksum_s: float
    decompress_s: float
    msgpack_s: float
    reindex_s: float
    whole_s: float

    @property
    def fill_s(self) -> float:
        """What is left: checks, growing arrays, copying columns into place."""
        return self.whole_s - self.checksum_s - self.decompress_s - self.msgpack_s


def measure(config: Config, fitted: Calibrated, count: int) -> Load:
    settings = engine.EngineSettings(config, fitted.artefacts)
    states = [engine.open_partition(settings, number) for number in range(config.topics.partitions)]
    for state in states:
        for frame in frames_of(fitted, state.partition, config.topics.partitions, count):
            engine.step(state, frames.decode(frames.encode(frame), frame.partition, frame.offset))
    dumped = [[engine.dump_block(state, block) for block in range(config.state.blocks)] for state in states]
    values = [value for part in dumped for value in part]
    checksum_s, _ = _timed(engine.block_mark, values)
    decompress_s, bodies = _timed(_unpack, values)
    msgpack_s, _ = _timed(msgspec.msgpack.decode, bodies)
    fresh = [engine.open_partition(settings, number) for number in range(config.topics.partitions)]
    begun = process_time()
    for state, part in zip(fresh, dumped, strict=True):
        for value in part:
            engine.load_block(state, value)
    whole_s = process_time() - begun
    begun = process_time()
    for state in fresh:
        for table in state.tables.values():
            old = table.table.places.copy()
            table.table.places[:] = -1
            reindex(table.table, old)
    reindex_s = process_time() - begun
    stored, unpacked = (sum(map(len, parts)) / 1e6 for parts in (values, bodies))
    clients = sum(state.clients for state in fresh)
    return Load(clients, stored, unpacked, checksum_s, decompress_s, msgpack_s, reindex_s, whole_s)


def _unpack(value: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(value[engine.BLOCK_HEAD_BYTES :])


def _timed(step: Callable[[bytes], Any], values: Sequence[bytes]) -> tuple[float, list[Any]]:
    begun = process_time()
    found = [step(value) for value in values]
    return process_time() - begun, found
