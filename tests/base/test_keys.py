"""Content keys: equal values have equal keys, and the keys of all prefixes of a list are those of separate lists."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.base.keys import content_key, prefix_keys


def test_the_order_of_a_mapping_does_not_change_its_key() -> None:
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1}) != content_key({"a": 2, "b": 1})


@given(st.lists(st.text(max_size=3), max_size=6))
def test_the_keys_of_prefixes_equal_those_of_separate_lists(values: list[str]) -> None:
    assert prefix_keys(values) == [content_key(values[:n]) for n in range(len(values) + 1)]
