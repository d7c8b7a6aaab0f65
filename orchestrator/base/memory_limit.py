"""Checks how much memory this process may still allocate under its limit (`ulimit -v`).

Native libraries do not survive a failed allocation: with torch 2.13, oneDNN writes to address 0 (signal 11), and
OpenBLAS ends the process. This program therefore checks the limit before it starts work that allocates memory.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

from supsup_core.errors import SupSupError

IMPORT_BYTES = 800_000_000
"""The number of bytes that the import of torch allocates."""

LIBRARIES_BYTES = 1_500_000_000 + 25_000_000 * (os.cpu_count() or 1)
"""The number of bytes that the libraries of a sweep allocate after torch is loaded, including one thread stack per
core."""

JOB_BYTES = 100_000_000
"""The number of bytes that must be free before a job starts. An array that does not fit only raises an error, but a
failed small allocation can crash the process."""

_USED = Path("/proc/self/statm")


class MemoryLimitError(SupSupError, MemoryError):
    """The limit of this process leaves too little memory."""


def require_memory(num_bytes: int) -> None:
    """Raises MemoryLimitError if the limit leaves less than `num_bytes`. Does nothing if the process has no limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY or not _USED.exists():
        return
    left = limit - int(_USED.read_text().split()[0]) * resource.getpagesize()
    if left < num_bytes:
        raise MemoryLimitError(
            f"ulimit -v: the limit of {limit / 1e9:.2f} GB of virtual memory leaves {max(0, left) / 1e9:.2f} GB, but "
            f"supsup needs {num_bytes / 1e9:.2f} GB; run `ulimit -v unlimited` in this shell, or raise the limit"
        )
