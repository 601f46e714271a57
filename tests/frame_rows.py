"""Rows with every column filled, for tests of what carries them."""

from collections.abc import Sequence

import numpy as np

from detector.frame import RowFrame
from models.rows import TIME_MS_MAX, TIME_MS_MIN, Rows


def rows(n: int, d: int, f: int, seed: int, request_ids: Sequence[str] | None = None) -> Rows:
    """n rows over each column's whole range; a third of the floats are NaN."""
    rng = np.random.default_rng(seed)
    ids = [text.encode() for text in (request_ids if request_ids is not None else [f"r-{seed}-{i}" for i in range(n)])]

    def whole(dtype: type[np.generic], *shape: int) -> np.ndarray:
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape or (n,), dtype=dtype, endpoint=True)

    def floats() -> np.ndarray:
        column = rng.standard_normal(n).astype(np.float32)
        column[rng.random(n) < 0.3] = np.nan
        return column

    return Rows(
        source=whole(np.uint32), offset=whole(np.int64), index=whole(np.int32), client=whole(np.uint64),
        client_tail=whole(np.uint8, n, 9), client_class=rng.integers(0, 3, n, dtype=np.uint8),
        time_ms=rng.integers(TIME_MS_MIN, TIME_MS_MAX, n),
        id_offsets=np.cumsum([0, *map(len, ids)]).astype(np.int32),
        id_bytes=np.frombuffer(b"".join(ids), np.uint8),
        exact=whole(np.uint64), values=whole(np.int16, n, d), fields=whole(np.uint16, n, f),
        surprisal=whole(np.uint8, n, f), offgrid=whole(np.uint32), output=whole(np.uint32), score=floats(),
        margin=floats(), novelty=floats(), guard=floats(), cell=whole(np.uint32), tokens_in=whole(np.uint32),
        tokens_out=whole(np.uint32), flags=whole(np.uint16),
    )  # fmt: skip


def frame(content: Rows, partition: int = 3, offset: int = 17) -> RowFrame:
    return RowFrame(partition, offset, "loan", "loan@0123456789abcdef", "gateway-logs[3]", "k1", content)
