"""How durations and counts are written in messages."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.base.wording import count, duration, one_line, printable, say


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min")],
)
def test_a_duration_is_written_in_its_two_largest_units(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 shards"), (1, "1 shard"), (2000, "2,000 shards")])
def test_the_number_one_is_followed_by_the_singular(number: int, text: str) -> None:
    assert count(number, "shard") == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain – é 🦊", "plain – é 🦊"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x9b2J", r"\x9b2J"),
        ("\u202eabc", r"\u202eabc"),
        ("\udcff", r"\udcff"),
    ],
)
def test_unprintable_characters_are_escaped_in_one_line(text: str, line: str) -> None:
    assert one_line(text) == line


def test_lines_stay_lines_and_colours_are_dropped() -> None:
    assert (
        printable("a\n\tb\r\n\x1b[36m(pid=1)\x1b[0m c\x1b]0;title\x07\rd") == "a\n\tb\n(pid=1) c\\x1b]0;title\\x07\\rd"
    )
    stream = io.StringIO()
    say("\x1b[2J", end="", file=stream)
    assert stream.getvalue() == r"\x1b[2J"


@given(st.text())
def test_nothing_unprintable_is_printed(text: str) -> None:
    assert one_line(text).isprintable()
    assert printable(text).replace("\n", "").replace("\t", "").isprintable()
