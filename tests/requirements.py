"""What a test needs of the machine: where it is missing, the test is skipped, or fails where nothing may be missing."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skips the test that asks, with the reason. With SUPSUP_NO_SKIPS, which .ci/run sets, the test fails instead."""
    if os.environ.get("SUPSUP_NO_SKIPS"):
        pytest.fail(f"{what} (SUPSUP_NO_SKIPS is set)", pytrace=False)
    pytest.skip(what)
