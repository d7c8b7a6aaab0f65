"""Small NNs groups, each in an output of its own."""

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
    """Settings of a small NNs group, in an output of its own."""

    def made(name: str, num_workers: int = 2, **changes: Any) -> GroupSettings:
        file = sweep_file(f"{name}.yaml", **{**NNS, **changes})
        return settings_for(file, num_workers, f"output={tmp_path / name}")

    return made


@pytest.fixture(autouse=True)
def _no_failpoints() -> Iterator[None]:
    """Whatever a test sets is removed."""
    yield
    for point in ("decided", "job_begins", "segment_begins"):
        set_failpoint(point, None)
