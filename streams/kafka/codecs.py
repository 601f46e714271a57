"""How far a compressed batch of Kafka records may expand.

A broker limits what it stores, compressed; a megabyte of zeros packed with zstd is thirty gigabytes. aiokafka unpacks a
whole batch at once and has no limit, so its four codecs are replaced by ours, which stop at one. `bounded_fetch` passes
such a batch over.
"""

import io
from collections.abc import Callable
from typing import Any

import cramjam
import pyarrow as pa
from aiokafka import codec
from aiokafka.errors import KafkaError
from aiokafka.record import default_records, legacy_records

BATCH_BYTES_MAX = 64 * 2**20
"""Default of input.max_batch_bytes. Producers cut batches by their plain size, a megabyte or so."""


class _Limit:
    """One for the process, as aiokafka's functions are."""

    bytes_max = BATCH_BYTES_MAX


class ExpansionError(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """A batch that is longer than the limit when unpacked."""

    def __init__(self) -> None:
        super().__init__(f"a batch expands to more than {_Limit.bytes_max:,} bytes")


def _bounded(kind: str) -> Callable[[Any], bytes]:
    def decode(payload: Any) -> bytes:
        with pa.CompressedInputStream(pa.py_buffer(bytes(payload)), kind) as stream:
            unpacked = stream.read(_Limit.bytes_max + 1)
        if len(unpacked) > _Limit.bytes_max:
            raise ExpansionError
        return bytes(unpacked)

    return decode


def snappy(payload: Any) -> bytes:
    """Plain, or in the blocks of the Java client. Each states its length in front, as a varint."""
    data = bytes(payload)
    blocks = _blocks(data) if codec._detect_xerial_stream(data) else [data]
    if sum(map(cramjam.snappy.decompress_raw_len, blocks)) > _Limit.bytes_max:
        raise ExpansionError
    return b"".join(bytes(cramjam.snappy.decompress_raw(block)) for block in blocks)


def _blocks(data: bytes) -> list[bytes]:
    blocks, stream = [], io.BytesIO(data[16:])
    while length := stream.read(4):
        blocks.append(stream.read(int.from_bytes(length, "big")))
    return blocks


DECODERS = {
    "gzip_decode": _bounded("gzip"),
    "lz4_decode": _bounded("lz4"),
    "zstd_decode": _bounded("zstd"),
    "snappy_decode": snappy,
}


def install(bytes_max: int) -> None:
    """Put ours in the place of aiokafka's. bytes_max : the most that a batch may be when unpacked."""
    _Limit.bytes_max = bytes_max
    modules: list[Any] = [default_records, legacy_records]
    try:
        from aiokafka.record._crecords import default_records as compiled
        from aiokafka.record._crecords import legacy_records as compiled_legacy

        modules += [compiled, compiled_legacy]
    except ImportError:
        pass
    for module in modules:
        for name, decode in DECODERS.items():
            if hasattr(module, name):
                setattr(module, name, decode)
