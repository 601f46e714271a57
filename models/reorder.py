"""Rows in another order, fewer of them, or those of several parts."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.kernels.json.columns import copy_texts
from models.rows import I64, Rows


def take(rows: Rows, places: I64) -> Rows:
    """The rows at these places, in this order."""
    start, end = rows.id_offsets[:-1][places], rows.id_offsets[1:][places]
    offsets = np.zeros(len(places) + 1, np.int32)
    np.cumsum(end - start, out=offsets[1:])
    letters = np.empty(offsets[-1], np.uint8)
    copy_texts(rows.id_bytes, start, end, offsets, letters)
    taken: dict[str, NDArray[np.generic]] = {
        name: column[places] for name, column in rows._asdict().items() if not name.startswith("id_")
    }
    return Rows(**taken, id_offsets=offsets, id_bytes=letters)  # type: ignore[arg-type]  # dtypes stay


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of all parts, at least one, behind one another."""
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in Rows._fields}
    ends = np.cumsum([0, *(len(part.id_bytes) for part in parts)])
    offsets = [part.id_offsets[:-1] + end for part, end in zip(parts, ends.tolist(), strict=False)]
    return Rows(**columns | {"id_offsets": np.concatenate([*offsets, ends[-1:]]).astype(np.int32)})
