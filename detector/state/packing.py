"""Stored states, packed with zstd: read back only as far as they could have been written."""

import zstandard

BODY_BYTES_MIN = 64 * 2**20
"""Allowed for any state, however little room its configuration gives now: it may have been more."""


def pack(body: bytes, level: int, *, checksum: bool = False) -> bytes:
    """checksum : of the body, so that `unpack` notices damage that still unpacks."""
    return zstandard.ZstdCompressor(level=level, write_checksum=checksum).compress(body)


def unpack(packed: bytes, bytes_max: int) -> bytes:
    """The body. Raises zstandard.ZstdError if it is longer than `bytes_max`, before room is made for it: a frame of a
    hundred bytes may claim, or even hold, gigabytes."""
    if zstandard.frame_content_size(packed) > bytes_max:
        raise zstandard.ZstdError(f"more than {bytes_max} bytes")
    return zstandard.ZstdDecompressor().decompress(packed, max_output_size=bytes_max)
