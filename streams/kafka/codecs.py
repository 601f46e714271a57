"""How far a compressed batch of Kafka records may expand.

A broker limits what it stores, compressed; a megabyte of zeros packed with zstd is thirty gigabytes. aiokafka unpacks a
whole batch at once and has no limit, so its four codecs are replaced by ours. The batch itself then stands in the log
and cannot be passed over without losing what else is in it: the worker ends and says why, a person decides.
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
"""Producers cut batches by their plain size, a megabyte or so. JSON logs shrink to a tenth."""


class ExpansionError(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """A batch that is longer than BATCH_BYTES_MAX when unpacked."""

    def __init__(self) -> None:
        super().__init__(
            f"a batch expands to more than {BATCH_BYTES_MAX:,} bytes: no gateway writes such; find out who did, and"
            " move the group's offset behind it (kafka-consumer-groups --reset-offsets)"
        )


def _bounded(kind: str) -> Callable[[Any], bytes]:
    def decode(payload: Any) -> bytes:
        with pa.CompressedInputStream(pa.py_buffer(bytes(payload)), kind) as stream:
            unpacked = stream.read(BATCH_BYTES_MAX + 1)
        if len(unpacked) > BATCH_BYTES_MAX:
            raise ExpansionError
        return bytes(unpacked)

    return decode


def snappy(payload: Any) -> bytes:
    """Plain, or in the blocks of the Java client. Each states its length in front, as a varint."""
    data = bytes(payload)
    blocks = _blocks(data) if codec._detect_xerial_stream(data) else [data]
    if sum(map(cramjam.snappy.decompress_raw_len, blocks)) > BATCH_BYTES_MAX:
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


def install() -> None:
    """Put ours in the place of aiokafka's; a second call changes nothing."""
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
