"""Rows with every column filled, for tests of what carries them."""

from collections.abc import Sequence

import numpy as np

from detector.frame import RowFrame
from models.rows import TIME_MS_MAX, TIME_MS_MIN, Rows, blank_rows


def rows(n: int, d: int, f: int, seed: int, request_ids: Sequence[str] | None = None) -> Rows:
    """n rows over each column's whole range; a third of the floats are NaN."""
    rng = np.random.default_rng(seed)
    ids = [text.encode() for text in (request_ids if request_ids is not None else [f"r-{seed}-{i}" for i in range(n)])]

    def drawn(like: np.ndarray) -> np.ndarray:
        if like.dtype != np.float32:
            limits = np.iinfo(like.dtype)
            return rng.integers(limits.min, limits.max, like.shape, dtype=like.dtype, endpoint=True)
        column = rng.standard_normal(n).astype(np.float32)
        column[rng.random(n) < 0.3] = np.nan
        return column

    empty = blank_rows(n, d, f)
    filled = {name: drawn(column) for name, column in empty._asdict().items() if not name.startswith("id_")}
    limited = {
        "client_class": rng.integers(0, 3, n, dtype=np.uint8),
        "time_ms": rng.integers(TIME_MS_MIN, TIME_MS_MAX, n),
        "append_ms": rng.integers(0, TIME_MS_MAX, n),
        "id_offsets": np.cumsum([0, *map(len, ids)]).astype(np.int32),
        "id_bytes": np.frombuffer(b"".join(ids), np.uint8),
    }
    return Rows(**filled | limited)


def frame(content: Rows, partition: int = 3, offset: int = 17) -> RowFrame:
    return RowFrame(partition, offset, "loan", "loan@0123456789abcdef", "gateway-logs[3]", "k1", content)
