"""Fixtures for small NNs groups, each in a separate output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.base.failpoints import set_failpoint
from orchestrator.coordination.settings import GroupSettings
from tests.nns.small_runs import NNS, Make
from tests.scripted import settings_for


@pytest.fixture
def make(sweep_file: Callable[..., Path], tmp_path: Path) -> Make:
    """Returns a function that makes the settings of a small NNs group in a separate output."""

    def made(name: str, num_workers: int = 2, **changes: Any) -> GroupSettings:
        file = sweep_file(f"{name}.yaml", **{**NNS, **changes})
        return settings_for(file, num_workers, f"output={tmp_path / name}")

    return made


@pytest.fixture(autouse=True)
def _no_failpoints() -> Iterator[None]:
    """Removes all failpoints after each test."""
    yield
    for point in ("decided", "job_begins", "segment_begins"):
        set_failpoint(point, None)
