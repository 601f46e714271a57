"""The reference of one space: tables and thresholds fitted on benign history."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from models.rows import F32, F64, I32, I64

_ARRAYS = (
    "family", "field", "rarity", "client", "novelty", "tail", "tail_scale", "growth", "thresholds", "drift",
    "drift_certified", "low_margin", "certified", "promised", "certifying_clients", "odd_shares",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reference:
    """Per client class (first axis, 3). See models/kernels/layout.py `Nulls` for the arrays the fold reads.

    processes : names, in order. certified : (3, 5) whether a level's threshold keeps its budget by calibration; the
    others are extrapolated ("conditional"). promised : (3, 5) promised false alarms per client-day, 1 for no
    promise. certifying_clients : (3,). drift_certified : (3,) whether the limit of clients' own
    drift is an order statistic of certifying clients. odd_shares : (3, 32) of all classes: share of fitting clients'
    hours with each bit in `odd`, `offgrid` and `flags`, in millionths (detector/schema_drift).
    """

    processes: tuple[str, ...]
    family: I32
    field: I32
    rarity: I32
    client: I32
    novelty: F32
    tail: I64
    tail_scale: I64
    growth: I64
    thresholds: I64
    drift: I64
    drift_certified: NDArray[np.bool_]
    low_margin: F32
    certified: NDArray[np.bool_]
    promised: F64
    certifying_clients: I64
    odd_shares: I64

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        return {f"reference.{name}": getattr(self, name) for name in _ARRAYS}

    @classmethod
    def from_arrays(cls, processes: tuple[str, ...], arrays: dict[str, NDArray[np.generic]]) -> "Reference":
        """Raises KeyError if an array is missing."""
        return cls(processes, **{name: arrays[f"reference.{name}"] for name in _ARRAYS})  # type: ignore[arg-type]


assert {field.name for field in fields(Reference)} == {"processes", *_ARRAYS}
