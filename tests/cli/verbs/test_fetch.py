"""`supsup fetch`, and `supsup status` with the URL of a storage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


@pytest.fixture
def storage(supsup: Command, sweep_file: Callable[..., Path], tmp_path: Path) -> str:
    """The URL of a storage that holds one finished sweep."""
    url = f"storage=file://{tmp_path}/stored"
    ran = supsup("sweep", sweep_file(), "output=origin", url, "--local")
    assert ran.code == 0, ran.err
    return url


def test_fetched_sweep_can_be_reported(supsup: Command, storage: str) -> None:
    fetched = supsup("fetch", storage, "output=here")
    assert (fetched.code, fetched.err) == (0, "")
    (line,) = fetched.out.splitlines()
    assert line.startswith("small-")
    assert line.endswith(": fetched to here")
    found = supsup("report", "output=here")
    assert found.code == 0, found.err
    assert "GNu one_shot entropy" in found.out


def test_status_of_a_storage_equals_the_status_of_the_output(supsup: Command, storage: str) -> None:
    here = json.loads(supsup("status", "small", "output=origin", "--json").out)
    there = json.loads(supsup("status", "small", storage, "--json").out)
    assert there == here
    assert "runs on another machine is shown as interrupted" in supsup("status", storage).out


def test_unknown_sweep_is_refused_with_the_names_of_the_existing_sweeps(supsup: Command, storage: str) -> None:
    found = supsup("fetch", "large", storage, "output=here")
    assert found.code == 2
    assert "large: no such sweep" in found.err
    assert "choose one of: small-" in found.err
