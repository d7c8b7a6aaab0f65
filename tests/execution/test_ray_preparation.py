"""What is done before Ray is loaded: addresses, environment variables and the token of a local cluster."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.execution.ray_preparation import keep_token_private, prepare_for, refuse_unreachable
from supsup_core.errors import InputError
from tests.conftest import PROGRAM


def test_an_address_that_answers_or_that_ray_must_resolve_is_accepted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        refuse_unreachable(f"127.0.0.1:{server.getsockname()[1]}")
        refuse_unreachable(f"ray://127.0.0.1:{server.getsockname()[1]}")
    refuse_unreachable("auto")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:7", "nothing answers at 127.0.0.1:7"),
        ("nowhere.invalid:6379", "nothing answers at"),
        ("127.0.0.1:99999", "nothing answers at"),
        ("http://127.0.0.1:8265", "is the URL of a dashboard"),
    ],
)
def test_an_address_of_no_cluster_is_refused(address: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        refuse_unreachable(address)


def test_a_command_with_an_old_ray_address_ends_at_once(sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    began = time.monotonic()
    found = subprocess.run(
        [*PROGRAM, "sweep", str(sweep_file())], capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:7"},
    )  # fmt: skip
    assert (found.returncode, len(found.stderr.splitlines())) == (2, 1)
    assert "remove --address and RAY_ADDRESS" in found.stderr
    assert not (tmp_path / "runs").exists()
    assert time.monotonic() - began < 30  # five seconds on an idle machine, most of them to load torch


def test_a_token_is_made_once_and_only_its_user_can_read_it(token: Path) -> None:
    keep_token_private()
    made = token.read_text()
    assert len(made) == 64
    assert token.stat().st_mode & 0o777 == 0o600
    token.chmod(0o644)  # the mode of a file that Ray creates
    keep_token_private()
    assert token.read_text() == made
    assert token.stat().st_mode & 0o777 == 0o600


def test_a_token_that_cannot_be_written_is_reported(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (token.parent.parent / "file").write_text("")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token.parent.parent / "file" / "token"))
    with pytest.raises(InputError, match="RAY_AUTH_TOKEN_PATH"):
        keep_token_private()


def test_the_token_is_in_a_private_folder_if_the_home_folder_cannot_be_written(
    token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "")
    monkeypatch.setattr(os, "access", lambda path, mode: path == Path(f"/tmp/supsup-{os.getuid()}"))
    keep_token_private()
    used = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert used.parent == Path(f"/tmp/supsup-{os.getuid()}")
    assert used.stat().st_mode & 0o777 == 0o600
    assert not token.exists()


def test_a_token_that_the_user_provides_is_not_changed(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    keep_token_private()
    assert not token.exists()


@pytest.mark.parametrize(
    ("cluster", "has_token", "mode"), [("local", False, "token"), ("h:1", True, "token"), ("h:1", False, None)]
)
def test_tokens_are_used_on_this_machine_and_on_clusters_for_which_there_is_one(
    token: Path, monkeypatch: pytest.MonkeyPatch, cluster: str, has_token: bool, mode: str | None
) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    if has_token:
        token.parent.mkdir()
        token.write_text("x" * 64)
    prepare_for(cluster)
    assert os.environ.get("RAY_AUTH_MODE") == mode


OBSERVED = """
import os, sys, threading

def note(event, arguments):
    if event == "os.putenv" and threading.active_count() > 1 and arguments[0] not in os.environb:
        print("added beside other threads:", os.fsdecode(arguments[0]), file=sys.stderr)

sys.addaudithook(note)
sys.argv[0] = "supsup"
from orchestrator.cli.main import main
try:
    main()
finally:
    print("no telemetry:", os.environ.get("MLFLOW_DISABLE_TELEMETRY"), file=sys.stderr)
"""


@pytest.mark.parametrize("options", [[], ["--local"], ["--local", "resources.deterministic=true"]])
def test_a_sweep_adds_no_environment_variable_while_it_has_several_threads(
    sweep_file: Callable[..., Path], tmp_path: Path, options: list[str]
) -> None:
    """The C library may move the list of variables when one is added. C code of another thread that reads the list at
    that moment crashes, as torch did at its first operation while MLflow was imported."""
    set_by_supsup = ("RAY_", "TUNE_", "MLFLOW_", "PYTHONBREAKPOINT", "CUBLAS_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(set_by_supsup)}
    found = subprocess.run(
        [sys.executable, "-c", OBSERVED, "sweep", str(sweep_file()), *options],
        capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**inherited, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "added beside other threads" not in found.stderr
    assert "no telemetry: true" in found.stderr
