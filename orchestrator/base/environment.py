"""Describes the machine and the package versions of a process. Ledgers record both; content keys contain neither."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("supsup", "torch", "numpy", "ray", "mlflow", "omegaconf", "pandas", "safetensors")


@dataclass(frozen=True)
class Environment:
    """The machine and the software of a process.

    `versions`: maps a package's name to its version. `git_revision`: the Git revision of the repository that contains
    the sweep file, or "" if there is none.
    """

    versions: dict[str, str]
    python: str
    platform: str
    processor: str
    num_cpus: int
    git_revision: str


def describe(folder: Path) -> Environment:
    """Returns the environment of this process. folder: a folder in the Git repository whose revision is returned."""
    return Environment(
        versions=dict(versions()),
        python=platform.python_version(),
        platform=platform.platform(),
        processor=processor(),
        num_cpus=os.cpu_count() or 1,
        git_revision=_git_revision(folder),
    )


@functools.cache
def versions() -> dict[str, str]:
    """Returns the versions of this program and of the packages that results depend on, by package name."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


@functools.cache
def processor() -> str:
    """Returns the name of this machine's processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _git_revision(folder: Path) -> str:
    """Returns the Git revision of the repository that contains `folder`, or "" if there is no repository or no Git.

    The revision ends in `-dirty` if tracked files differ from the last commit.
    """
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--match="],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
