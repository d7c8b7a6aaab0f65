"""Fixtures: a small training group, and a clock."""

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
