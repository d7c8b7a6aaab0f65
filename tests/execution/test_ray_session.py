"""How Ray is started or reached, and the token and the folder of a local cluster, which only the user can read."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.utils import check_version_info

from orchestrator.execution import ray_session
from orchestrator.execution.ray_session import connected, own_folder
from orchestrator.spec.sweep_config import Resources
from supsup_core.errors import InputError, SupSupError


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short folder for TMPDIR."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_rays_own_folder_is_used_if_its_path_is_short(short: Path) -> None:
    assert own_folder() is None


def test_a_long_tmpdir_is_replaced_by_a_private_folder(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short / ("x" * 60)))
    found = own_folder()
    assert found == Path(f"/tmp/supsup-{os.getuid()}")
    assert found.stat().st_uid == os.getuid()


def test_a_tmpdir_that_is_no_text_is_replaced_by_a_private_folder(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", os.fsdecode(b"/tmp/\xff"))
    assert own_folder() == Path(f"/tmp/supsup-{os.getuid()}")


def test_a_folder_of_another_user_is_not_used(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (short / "ray").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != short / "ray")
    assert own_folder() == Path(f"/tmp/supsup-{os.getuid()}")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=r"belongs to another user.*; set RAY_TMPDIR to a folder that you own"):
        own_folder()


def test_a_folder_that_the_user_chose_is_used_or_refused(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    assert own_folder() is None
    monkeypatch.setenv("RAY_TMPDIR", str(short / ("x" * 60)))
    with pytest.raises(InputError, match="RAY_TMPDIR: Ray cannot use"):
        own_folder()


@pytest.fixture
def logged(token: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """The program's log, while Ray is never really started."""
    monkeypatch.setattr(ray_session.log, "propagate", True)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    caplog.set_level(logging.WARNING, "supsup")
    return caplog


def test_a_start_of_ray_that_fails_is_tried_again_after_its_processes_are_ended(
    logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    others = [subprocess.Popen([*sleep, ray.__file__])]  # of a Ray that was started before
    left: list[subprocess.Popen[bytes]] = []
    asked: list[dict[str, Any]] = []

    def init(**arguments: Any) -> None:
        asked.append(arguments)
        assert all(process.poll() is not None for process in left)
        if len(asked) < 3:
            left.append(subprocess.Popen([*sleep, ray.__file__]))
            others.append(subprocess.Popen(sleep))
            raise Exception("The current node timed out during startup.\nThis could happen")

    monkeypatch.setattr(ray, "init", init)
    with connected("local", Resources(num_workers=500, threads=2)):
        pass
    assert [arguments["num_cpus"] for arguments in asked] == [1000] * 3
    assert [record.getMessage() for record in logged.records] == [
        "Ray did not start (The current node timed out during startup.); trying again, attempt 2 of 3",
        "Ray did not start (The current node timed out during startup.); trying again, attempt 3 of 3",
    ]
    assert all(process.poll() is None for process in others)
    for process in others:
        process.kill()
    for process in [*others, *left]:
        process.wait(timeout=10)


def test_ray_that_never_starts_ends_the_command_with_one_line(
    logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**arguments: Any) -> None:
        raise RuntimeError("Failed to start GCS.\nLast error")

    monkeypatch.setattr(ray, "init", init)
    line = r"in 3 attempts \(Failed to start GCS\.\); .*logs, or add --local"
    with pytest.raises(SupSupError, match=line) as raised, connected("local", Resources()):
        raise AssertionError
    assert not isinstance(raised.value, InputError)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("address", "words"), [("local", "Ray has not started yet"), ("10.0.0.1:1", "at 10.0.0.1:1 has not answered yet")]
)
def test_a_start_that_takes_long_is_mentioned(
    address: str, words: str, logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_session, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(ray, "init", lambda **arguments: time.sleep(1))
    with connected(address, Resources()):
        pass
    (record,) = logged.records
    assert words in record.getMessage()
    monkeypatch.setattr(ray, "init", lambda **arguments: None)
    with connected(address, Resources()):
        time.sleep(0.5)
    assert len(logged.records) == 1


def test_the_folder_of_a_job_may_be_replaced_meanwhile(
    logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ray unpacks it again if another node on the same machine needs it."""
    folder = tmp_path / "job"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(ray, "init", lambda **arguments: folder.rmdir())
    with connected("10.0.0.1:6379", Resources()), pytest.raises(FileNotFoundError):
        Path.cwd()


def test_a_cluster_with_other_versions_is_refused_with_both_versions(
    logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is Ray's own."""
    monkeypatch.setattr(
        ray,
        "init",
        lambda **_: check_version_info({"ray_version": "2.1.0", "python_version": "3.8.1"}, "node 10.0.0.1"),
    )
    own = f"Ray {ray.__version__} and Python {'.'.join(map(str, sys.version_info[:3]))}"
    with pytest.raises(InputError) as raised, connected("10.0.0.1:6379", Resources()):
        raise AssertionError
    assert f"at 10.0.0.1:6379 runs Ray 2.1.0 and Python 3.8.1, but this command runs {own}; " in str(raised.value)


def test_a_cluster_that_cannot_be_reached_is_refused(
    logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**arguments: Any) -> None:
        raise ConnectionError("Failed to connect\nto it")

    monkeypatch.setattr(ray, "init", init)
    line = r"10\.0\.0\.1:6379 \(Failed to connect\); run this command on a node of"
    with pytest.raises(InputError, match=line), connected("10.0.0.1:6379", Resources()):
        raise AssertionError
