"""Describes the machine and the package versions of a process.

Ledgers record this description, but content keys do not contain it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import math
import os
import platform
import re
import resource
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from supsup_core.errors import SupSupError

PACKAGES = ("supsup", "torch", "numpy", "numba", "ray", "mlflow", "omegaconf", "pandas", "safetensors")


@dataclass(frozen=True)
class Environment:
    """The machine and the software of a process.

    `versions`: maps a package's name to its version. `num_cpus`: the CPUs that the process may use. `git_revision`: the
    Git revision of the repository that contains the sweep file, or "" if there is none.
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
        num_cpus=usable_cpus(),
        git_revision=_git_revision(folder),
    )


@functools.cache
def versions() -> dict[str, str]:
    """Returns the versions of this program and of the packages that results depend on, by package name."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


@functools.cache
def code_digest() -> str:
    """Returns a hash of the .py files from which this process imports the packages orchestrator and supsup_core."""
    found = hashlib.sha256()
    for package in ("orchestrator", "supsup_core"):
        folder = _folder_of(package)
        for path in sorted(folder.rglob("*.py")):
            found.update(f"{package}/{path.relative_to(folder)}\n".encode())
            found.update(path.read_bytes())
    return found.hexdigest()


def check_code(digest: str) -> None:
    """Raises SupSupError if this process and the command that started it import different source code of this program.

    digest: the hash that `code_digest` returned in the process of the command.
    """
    if code_digest() != digest:
        raise SupSupError(
            f"{_folder_of('supsup_core')}: a Ray process uses the source code of supsup in this folder, which differs "
            "from the source code of the command; install the same version of supsup on every node, do not edit supsup "
            "during a run, and run the command again"
        )


def _folder_of(package: str) -> Path:
    """Returns the folder from which this process imports a package. Does not import the package."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def memory_bytes() -> int:
    """Returns how many bytes of memory this process may use.

    The result is the smallest of three numbers: the memory of the machine, the limit of its container, and `ulimit`.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroups version 2 and 1
        with contextlib.suppress(OSError, ValueError):  # no container, or a container without a limit
            limits.append(int((Path("/sys/fs/cgroup") / name).read_text()))
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(kind)
        limits += [soft] if soft != resource.RLIM_INFINITY else []
    return min(limits)


@functools.cache
def processor() -> str:
    """Returns the name, family and model of this machine's processor.

    The family and the model are included because a cloud may give processors of several generations the same name.
    """
    try:
        told = dict(re.findall(r"^([^\t\n]+?)\t*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE))
    except OSError:
        told = {}  # not Linux
    name = told.get("model name", "").strip() or platform.processor() or platform.machine()
    if "cpu family" not in told or "model" not in told:
        return name
    return f"{name} (family {told['cpu family']}, model {told['model']})"


def usable_cpus(memberships: Path = Path("/proc/self/cgroup"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Returns how many CPUs this process may use, at least 1.

    The result is the smaller of two numbers. The first number counts the CPUs in the affinity of the process, which
    `taskset` and Slurm set. The second number is the CPU limit of the process's control groups, which containers set. A
    fractional limit is rounded up. `os.cpu_count` is not used, because it counts all CPUs of the machine. Ray's count
    is not used, because it ignores the affinity. memberships, cgroups: the file and the folder in which Linux describes
    control groups.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *(math.ceil(limit) for limit in _cpu_limits(memberships, cgroups))]))


def _cpu_limits(memberships: Path, cgroups: Path) -> Iterator[float]:
    """Yields the CPU limit of each control group of this process, and of the groups that contain these groups."""
    try:
        lines = memberships.read_text().splitlines()
    except OSError:
        return  # not Linux
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # cgroups version 2, in the folder `unified` if version 1 is also in use
            roots = [cgroups, cgroups / "unified"]
        elif "cpu" in controllers.split(","):
            roots = [cgroups / "cpu", cgroups / controllers]
        else:
            continue
        inner = Path(path.lstrip("/"))  # may not exist in a container; then the root folder has the limits
        for folder in (root / part for root in roots for part in (inner, *inner.parents)):
            yield from _cpu_limit(folder)


def _cpu_limit(folder: Path) -> Iterator[float]:
    """Yields the CPU limit of one control group (its quota divided by its period), or nothing if the group has no
    limit."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((folder / name).read_text() for name in names).split()
            limit = int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue  # the group does not exist, or its quota is `max` (no limit)
        if limit > 0:  # version 1 writes -1 for no limit
            yield limit


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
