"""Failpoints do nothing unless a test sets them."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from orchestrator.base.failpoints import Point, reach, set_failpoint

SOURCES = Path(__file__).parents[2] / "orchestrator"


def test_a_failpoint_calls_its_function_with_the_subject_until_it_is_removed() -> None:
    reached: list[object] = []
    reach("deciding", 1)
    set_failpoint("deciding", reached.append)
    reach("deciding", 2)
    reach("decided", 3)
    set_failpoint("deciding", None)
    set_failpoint("deciding", None)
    reach("deciding", 4)
    assert reached == [2]


def test_every_failpoint_is_in_the_source_and_the_program_sets_none() -> None:
    text = "\n".join(path.read_text() for path in SOURCES.rglob("*.py") if path.name != "failpoints.py")
    for point in get_args(Point):
        assert f'failpoints.reach("{point}"' in text, point
    assert "set_failpoint" not in text
