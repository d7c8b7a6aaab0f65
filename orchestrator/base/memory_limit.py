"""Checks how much memory the limit of this process (`ulimit -v`) leaves.

Native libraries do not survive a failed allocation: with torch 2.13, oneDNN writes to address 0 (signal 11), and
OpenBLAS ends the process. The limit is therefore checked before work that allocates.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

from supsup_core.errors import SupSupError

IMPORT_BYTES = 800_000_000
"""What the import of torch allocates."""

LIBRARIES_BYTES = 1_500_000_000 + 25_000_000 * (os.cpu_count() or 1)
"""What the libraries of a sweep allocate after torch is loaded, including the stacks of one thread for each core."""

JOB_BYTES = 100_000_000
"""What must be left before a job. An array that does not fit raises an error, but a small allocation may not fail."""

_USED = Path("/proc/self/statm")


class MemoryLimitError(SupSupError, MemoryError):
    """The limit of this process leaves too little memory."""


def require_memory(num_bytes: int) -> None:
    """Raises MemoryLimitError if the limit leaves less than `num_bytes`. Does nothing without a limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY or not _USED.exists():
        return
    left = limit - int(_USED.read_text().split()[0]) * resource.getpagesize()
    if left < num_bytes:
        raise MemoryLimitError(
            f"ulimit -v: the limit of {limit / 1e9:.2f} GB of virtual memory leaves {max(0, left) / 1e9:.2f} GB, but "
            f"supsup needs {num_bytes / 1e9:.2f} GB; run `ulimit -v unlimited` in this shell, or raise the limit"
        )
