"""What is news about the population, and no evidence against a client: taken out of rows before the fold sees them.

Masks are (3,) or (blocks, 3) uint32: bits of `odd`, bits of `offgrid`, flags.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.kernels.layout import CLIENT_PROCESSES, block_of
from models.rows import FLAG_AHEAD, FLAG_UNJUDGED, FLAG_UNKNOWN_MODEL, FLAG_UNREADABLE, U16, U32, Rows

ODD, OFFGRID, FLAGS = 0, 1, 2
MASKS = 3
ANY_FIELD = 0xFFFFFFFF

_FED: tuple[Mapping[int, tuple[str, ...]], ...] = (
    {ANY_FIELD: ("novelty", "novelty_robust", "coverage")},
    {ANY_FIELD: ("offgrid",)},
    {
        FLAG_UNREADABLE: ("unreadable",),
        FLAG_AHEAD: ("unreadable",),
        FLAG_UNJUDGED: ("unjudged",),
        FLAG_UNKNOWN_MODEL: ("unknown_model",),
    },
)
"""Which of a client's processes the bits of each mask feed."""


def processes_fed(masks: U32) -> list[int]:
    """Places in CLIENT_PROCESSES of those that these bits, (3,), feed."""
    fed: list[str] = []
    for bits, processes in zip(masks.tolist(), _FED, strict=True):
        fed += [name for mask, names in processes.items() if bits & mask for name in names]
    return [place for place, name in enumerate(CLIENT_PROCESSES) if name in fed]


def without(rows: Rows, muted: U32) -> tuple[Rows, U16]:
    """Rows, and (n,) flags of each that are no evidence. muted : (blocks, 3)

    An odd value in a muted field leaves the row without novelty and cell, and agreeing on it is worth nothing.
    """
    if not muted.any():
        return rows, np.zeros(rows.count, np.uint16)
    own = muted[block_of(rows.client, np.uint64(len(muted))).astype(np.int64)]
    odd = rows.odd & own[:, ODD]
    bits = np.uint32(1) << np.minimum(np.arange(rows.fields.shape[1]), 31).astype(np.uint32)
    changed: dict[str, NDArray[Any]] = {
        "novelty": np.where(odd, np.float32(np.nan), rows.novelty),
        "cell": np.where(odd, np.uint32(0), rows.cell),
        "surprisal": np.where(odd[:, None] & bits, np.uint8(0), rows.surprisal),
        "offgrid": rows.offgrid & ~own[:, OFFGRID],
    }
    return rows._replace(**changed), (rows.flags & own[:, FLAGS]).astype(np.uint16)
