"""Where and with what a run was made: recorded with it, never part of its keys."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("supsup", "torch", "numpy", "ray", "mlflow", "omegaconf", "pandas", "safetensors")


def describe(folder: Path) -> dict[str, Any]:
    """Versions, machine, and the git revision of `folder` ("" outside a repository)."""
    return {
        "versions": dict(versions()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "num_cpus": os.cpu_count() or 1,
        "git_revision": _git_revision(folder),
    }


@functools.cache
def versions() -> dict[str, str]:
    """The versions of this program and of what it computes and keeps with."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


@functools.cache
def processor() -> str:
    """The name of this machine's processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: the generic name will do
    return platform.processor() or platform.machine()


def _git_revision(folder: Path) -> str:
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--match="],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
