"""An address at which no Ray cluster answers is refused within seconds."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.execution.cluster_address import refuse_unreachable
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
