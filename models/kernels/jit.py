"""The one place with numba's flags."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numba.extending
from llvmlite import ir  # type: ignore[import-untyped]
from numpy.typing import NDArray

PREFETCH = "llvm.prefetch.p0"
F = TypeVar("F", bound=Callable[..., object])


def _sources_hash() -> str:
    """Hash of every kernel source: numba does not notice that a *called* kernel changed and would keep its old code."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
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
    flags = _FLAGS | {"cache": False, "forceinline": True}  # what calls it is cached
    return cast(F, numba.njit(**flags, **_BORROWING)(function))


def making_kernel(function: F) -> F:
    """Compile a function that makes arrays, to work in."""
    return cast(F, numba.njit(**_FLAGS)(function))


def _fetch_line(typing: Any, array: Any, offset: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = context.make_array(array)(context, builder, arguments[0])
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        place = builder.gep(builder.bitcast(made.data, byte), [arguments[1]])
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        prefetch = builder.module.globals.get(PREFETCH) or ir.Function(builder.module, kind, PREFETCH)
        builder.call(prefetch, [place, word(0), word(3), word(1)])  # to read, to keep, data
        return context.get_dummy_value()

    return numba.types.void(array, numba.types.int64), generate


def _fetch_nothing(array: NDArray[Any], offset: int) -> None:
    """Plain Python has no say in it."""


fetch_line: Callable[[NDArray[Any], int], None] = cast(
    Any,
    _fetch_nothing if numba.config.DISABLE_JIT else numba.extending.intrinsic(_fetch_line),  # type: ignore[attr-defined]
)
"""fetch_line(array, offset): ask for the cache line `offset` bytes into an array, and do not wait for it."""
