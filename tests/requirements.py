"""Skips a test if the machine lacks something that the test needs. In CI, the test fails instead."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skips the calling test with `what` as the reason. With SUPSUP_NO_SKIPS, which .ci/run sets, the test fails."""
    if os.environ.get("SUPSUP_NO_SKIPS"):
        pytest.fail(f"{what} (SUPSUP_NO_SKIPS is set)", pytrace=False)
    pytest.skip(what)
