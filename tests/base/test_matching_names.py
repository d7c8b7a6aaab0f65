"""Lookup of sweeps and runs by the names that a user types."""

from __future__ import annotations

import pytest

from orchestrator.base.wording import matching_names

NAMES = ["small-123456", "small-abcdef", "smaller-111111", "nns", "nns-222222"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("small-123456", ["small-123456"]),
        ("small", ["small-123456", "small-abcdef"]),
        ("small-1", ["small-123456"]),
        ("sm", ["small-123456", "small-abcdef", "smaller-111111"]),
        ("nns", ["nns"]),
        ("nns-", ["nns-222222"]),
        ("other", []),
    ],
)
def test_the_best_matches_are_found(wanted: str, found: list[str]) -> None:
    assert matching_names(wanted, NAMES) == found
