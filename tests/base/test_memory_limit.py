"""A limit of the shell that is too low for a sweep is told before anything starts."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from orchestrator.base.memory_limit import MemoryLimitError, require_memory
from supsup_core.errors import SupSupError


@pytest.mark.parametrize("left", [99_000_000, 101_000_000])
def test_what_the_limit_leaves_is_compared_with_what_is_needed(monkeypatch: pytest.MonkeyPatch, left: int) -> None:
    require_memory(1 << 50)  # this process has no limit
    limit = psutil.Process().memory_info().vms + left
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limit, limit))
    if left > 100_000_000:
        require_memory(100_000_000)
        return
    with pytest.raises(MemoryLimitError, match=r"leaves 0\.10 GB, but supsup needs 0\.10 GB; run") as raised:
        require_memory(100_000_000)
    assert isinstance(raised.value, MemoryError)
    assert isinstance(raised.value, SupSupError)


@pytest.mark.parametrize("megabytes", [400, 1200])
def test_a_sweep_under_a_low_limit_is_refused_with_one_line(
    sweep_file: Callable[..., Path], tmp_path: Path, megabytes: int
) -> None:
    """With 400 MB, torch cannot be loaded. With 1200 MB, a sweep would end in a library's own error."""
    limit = megabytes * 1_000_000
    found = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "sweep", str(sweep_file()), "--local"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("supsup: ulimit -v: the limit of ")
    assert found.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()
