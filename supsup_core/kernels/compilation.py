"""Compiles the loops of this package with numba. The two decorators differ in whether sums may be reordered.

numba compiles a loop when it is first called, for the current processor, and caches the machine code on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from llvmlite import binding
from numba import njit
from numba.core import config

Floats = npt.NDArray[np.float32]
Loop = TypeVar("Loop", bound=Callable[..., Any])

_REQUESTED = config.CPU_FEATURES  # set by NUMBA_CPU_NAME or NUMBA_CPU_FEATURES; None means the current processor
CPU_FEATURES = frozenset((binding.get_host_cpu_features().flatten() if _REQUESTED is None else _REQUESTED).split(","))
"""The instruction sets that numba compiles for, by the names that LLVM uses, such as `+avx2`."""


def _compile(loop: Loop, **options: Any) -> Loop:
    try:
        compiled: Loop = njit(cache=True, nogil=True, error_model="numpy", **options)(loop)
    except RuntimeError:  # no folder for the cache is writable, so each process compiles for itself
        compiled = njit(nogil=True, error_model="numpy", **options)(loop)
    return compiled


def compile_any_order(loop: Loop) -> Loop:
    """Compile a loop whose sums LLVM may reorder (fastmath), so that LLVM can use vector registers."""
    return _compile(loop, fastmath=True)


def compile_exact(loop: Loop) -> Loop:
    """Compile a loop that gives the same bits on every processor. Each operation is rounded once, in program order."""
    return _compile(loop)
