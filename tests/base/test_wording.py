"""How durations and counts are written in messages."""

from __future__ import annotations

import pytest

from orchestrator.base.wording import count, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min")],
)
def test_a_duration_is_written_in_its_two_largest_units(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 shards"), (1, "1 shard"), (2000, "2,000 shards")])
def test_the_number_one_is_followed_by_the_singular(number: int, text: str) -> None:
    assert count(number, "shard") == text
