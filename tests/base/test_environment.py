"""The number of CPUs that a process may use, with a CPU affinity and in a container."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.base import environment
from orchestrator.base.environment import usable_cpus


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for files of control groups, on a machine of 64 CPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    (tmp_path / "cgroup").mkdir()
    return tmp_path / "cgroup"


def limit(folder: Path, **files: str) -> None:
    """Writes the files of a control group. Two underscores stand for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def cpus(groups: Path, memberships: str) -> int:
    (groups.parent / "memberships").write_text(memberships)
    return usable_cpus(groups.parent / "memberships", groups)


def test_the_limit_of_a_container_counts_and_is_rounded_up(groups: Path) -> None:
    limit(groups, cpu__max="350000 100000\n")
    assert cpus(groups, "0::/\n") == 4
    limit(groups, cpu__max="20000 100000\n")
    assert cpus(groups, "0::/\n") == 1


def test_the_smallest_limit_of_all_outer_groups_counts(groups: Path) -> None:
    limit(groups / "user.slice", cpu__max="300000 100000")
    limit(groups / "user.slice" / "job", cpu__max="max 100000")
    assert cpus(groups, "0::/user.slice/job\n") == 3
    limit(groups / "user.slice" / "job", cpu__max="200000 100000")
    assert cpus(groups, "0::/user.slice/job\n") == 2


def test_the_limit_of_version_1_counts(groups: Path) -> None:
    limit(groups / "cpu,cpuacct", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    memberships = "12:memory:/docker/abc\n5:cpu,cpuacct:/docker/abc\n0::/\n"
    assert cpus(groups, memberships) == 64
    limit(groups / "cpu,cpuacct", cpu__cfs_quota_us="600000", cpu__cfs_period_us="100000")
    assert cpus(groups, memberships) == 6
    assert cpus(groups, "12:memory:/docker/abc\n") == 64


@pytest.mark.parametrize("text", ["", "max 100000", "many few", "100000 0", "1 2 3"])
def test_files_without_a_limit_limit_nothing(groups: Path, text: str) -> None:
    limit(groups, cpu__max=text)
    assert cpus(groups, "0::/\n") == 64
    assert usable_cpus(groups / "missing", groups) == 64


def test_a_process_with_an_affinity_counts_only_its_cpus() -> None:
    """The real process, as with `taskset -c 0`. `os.cpu_count` counts the CPUs of the machine."""
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from orchestrator.base.environment import usable_cpus; print(usable_cpus())"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "1\n"
    assert 1 <= environment.describe(Path.cwd()).num_cpus <= (os.cpu_count() or 1)
