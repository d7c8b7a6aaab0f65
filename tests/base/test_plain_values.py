"""Conversion of dataclasses to plain JSON values and back."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.base.plain_values import flatten, from_json, from_node, text_value, to_node


@dataclass(frozen=True)
class Inner:
    """A dataclass that is a field of another one."""

    number: float
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    """A dataclass with a field of each supported type."""

    inner: Inner
    by_number: dict[int, str]
    optional: int | None = None


OUTERS = st.builds(
    Outer,
    st.builds(Inner, st.floats(allow_nan=False), st.lists(st.text(), max_size=3).map(tuple)),
    st.dictionaries(st.integers(-100, 100), st.text(), max_size=3),
    st.none() | st.integers(-(2**53), 2**53),
)


@given(OUTERS)
def test_a_dataclass_is_read_back_from_plain_values_and_from_json(value: Outer) -> None:
    node = to_node(value)
    text = json.dumps(node).encode()
    assert json.dumps(json.loads(text)) == json.dumps(node)
    assert from_json(text, Outer) == value


FIRST_USES = """
import sys, threading
from dataclasses import dataclass
from orchestrator.base.plain_values import from_json, from_node

sys.setswitchinterval(1e-6)
for _ in range(500):
    Inner = dataclass(type("Inner", (), {"__annotations__": {f"number_{k}": int for k in range(8)}}))
    Outer = dataclass(type("Outer", (), {"__annotations__": {"first": Inner, "others": tuple[Inner, ...]}}))
    inner = {f"number_{k}": k for k in range(8)}
    node = {"first": inner, "others": [inner, inner]}
    text, start, found = str(node).replace("'", '"').encode(), threading.Barrier(3), []

    def read(function, value):
        start.wait()
        found.append(function(value, Outer).others[1].number_7)

    readings = [(from_json, text), (from_node, node), (from_json, text)]
    threads = [threading.Thread(target=read, args=reading) for reading in readings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [7, 7, 7], found
"""


def test_threads_may_use_a_class_for_the_first_time_at_once() -> None:
    """In msgspec 0.22, the first uses of a dataclass by two threads at once end the process with a segmentation
    fault."""
    found = subprocess.run([sys.executable, "-c", FIRST_USES], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_unknown_keys_are_ignored_and_defaults_filled_in() -> None:
    assert from_node({"number": 1, "later": {}}, Inner) == Inner(1.0)


def test_nan_is_read() -> None:
    assert math.isnan(from_json(b'{"number": NaN}', Inner).number)


@pytest.mark.parametrize("node", [{}, {"number": "1"}, {"number": None}, {"number": 1, "texts": [1]}, [], None, 5])
def test_values_of_the_wrong_type_are_refused(node: Any) -> None:
    with pytest.raises(ValueError, match=r"Expected|missing"):
        from_node(node, Inner)
    with pytest.raises(ValueError, match=r"Expected|missing"):
        from_json(json.dumps(node).encode(), Inner)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b'{"number": 1'])
def test_text_that_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words are those of the JSON reader
        from_json(text, Inner)


def test_nested_mappings_are_flattened_by_dotted_keys() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": []}, "e": None}) == {"a.b.c": 1, "a.d": [], "e": None}


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("runs", "runs"),
        ("'it''s'", "it's"),
        ("'it's'", "'it's'"),
        ('"a\\tb"', "a\tb"),
        ('"a" or "b"', '"a" or "b"'),
        ("'", "'"),
        ("''", ""),
        ("null", None),
        ("~", None),
        ("", None),
    ],
)
def test_quotes_around_a_typed_text_are_removed(typed: str, value: str | None) -> None:
    assert text_value(typed) == value
