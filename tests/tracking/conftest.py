"""Fixtures with a small sweep that has not run yet, with and without an MLflow database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.sweeps.sweep import Sweep, open_sweep


@pytest.fixture
def empty(sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sweep:
    """A sweep whose output has no MLflow database yet."""
    monkeypatch.chdir(tmp_path)
    return open_sweep(sweep_file(grid={"scenario": ["GG", "GNu"]}), [])


@pytest.fixture
def sweep(empty: Sweep, give_database: Callable[[Path], None]) -> Sweep:
    """A sweep whose output has an MLflow database."""
    give_database(empty.output.path)
    return empty
