"""Fixtures: a small training group, a clock, and the path of the token of local Ray clusters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.coordination.settings import GroupSettings
from tests.execution.clock import Clock
from tests.scripted import settings_for


@pytest.fixture
def group(sweep_file: Callable[..., Path]) -> GroupSettings:
    """The settings of a group with three short tasks and four evaluations, for two workers."""
    return settings_for(sweep_file(training={"num_batches": 5}))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the token in an empty home folder. No variable of the environment names a token."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / ".ray" / "auth_token"
