"""The one place with numba's flags."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def _sources_hash() -> str:
    """Hash of every kernel source: numba does not notice that a *called* kernel changed and would keep its old code."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _cache_folder() -> Path:
    root = os.environ.get("PROBEWATCH_KERNEL_CACHE") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "probewatch-kernels" / _sources_hash()


numba.config.CACHE_DIR = str(_cache_folder())  # type: ignore[attr-defined]


_FLAGS: dict[str, Any] = {"cache": True, "nogil": True, "fastmath": False, "error_model": "numpy"}
"""No fastmath, no parallel reductions: both move the last bit of a result."""

_BORROWING: dict[str, Any] = {"_nrt": False}


def kernel(function: F) -> F:
    """Compile a plain function over arrays that others own; it makes views, never arrays.

    Without numba's own memory management: counting references to every array that is looked at was a third of the fold.
    """
    return cast(F, numba.njit(**_FLAGS, **_BORROWING)(function))


def part(function: F) -> F:
    """A kernel that is compiled into its caller.

    A table has some 200 words of pointers, lengths and strides; handing them from function to function was two fifths
    of the fold.
    """
    return cast(F, numba.njit(**_FLAGS, **_BORROWING, forceinline=True)(function))


def making_kernel(function: F) -> F:
    """Compile a function that makes arrays, to work in."""
    return cast(F, numba.njit(**_FLAGS)(function))
