"""Merging plain values into a dataclass with strict types; every error names its key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.base.plain_values import Node
from orchestrator.spec.strict_merge import check_values, merge, prefix_errors
from supsup_core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A dataclass that is a field of another one."""

    number: int = 1
    rate: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Outer:
    """A dataclass with one field of each type."""

    needed: str
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    choice: Literal["a", "b"] = "a"
    flag: bool = False
    numbers: list[int] = field(default_factory=lambda: [1])
    pair: tuple[float, ...] = (0.5, 0.5)
    either: int | str = 3
    anything: Any = None
    lists: dict[str, list[Any]] = field(default_factory=dict)
    node: Node = field(default_factory=lambda: {"name": "one"})
    many: list[Inner] = field(default_factory=list)


DEFAULTS: Node = {
    "inner": {"number": 1, "rate": 0.5}, "maybe": None, "choice": "a", "flag": False, "numbers": [1],
    "pair": (0.5, 0.5), "either": 3, "anything": None, "lists": {}, "node": {"name": "one"}, "many": [],
}  # fmt: skip


def test_a_field_without_a_default_is_absent_until_it_is_set() -> None:
    assert merge(Outer, {}, "") == DEFAULTS
    assert merge(Outer, {"needed": "x"}, "") == {**DEFAULTS, "needed": "x"}


@pytest.mark.parametrize(
    ("node", "found"),
    [
        ({"inner": {"number": "3"}}, {"inner": {"number": 3, "rate": 0.5}}),
        ({"inner": {"rate": 2}}, {"inner": {"number": 1, "rate": 2.0}}),
        ({"maybe": {"rate": 1}}, {"maybe": {"number": 1, "rate": 1.0}}),
        ({"numbers": [2, "3"]}, {"numbers": [2, 3]}),
        ({"pair": [1, 2]}, {"pair": (1.0, 2.0)}),
        ({"flag": "yes"}, {"flag": True}),
        ({"either": "x"}, {"either": "x"}),
        ({"anything": {"a": [None, {"b": 1}]}}, {"anything": {"a": [None, {"b": 1}]}}),
        ({"node": {"size": 3}}, {"node": {"name": "one", "size": 3}}),
        ({"many": [{"number": 4}]}, {"many": [{"number": 4, "rate": 0.5}]}),
    ],
)
def test_values_are_converted_and_mappings_are_merged_into_the_defaults(node: Node, found: Node) -> None:
    assert merge(Outer, node, "") == {**DEFAULTS, **found}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"iner": {}}, r"here: at\.iner: unknown key \(did you mean 'inner'\?\); the known keys are: anything, "),
        ({"a\nb": 1}, r"here: at\.a\\nb: unknown key"),
        ({"inner": {"size": 1}}, r"here: at\.inner\.size: unknown key; the known keys are: number, rate$"),
        ({"many": [{}, {"size": 1}]}, r"here: at\.many\[1\]\.size: unknown key"),
        ({"inner": None}, r"here: at\.inner: must be a mapping, not null"),
        ({"inner": "x"}, r"here: at\.inner: must be a mapping, not 'x'"),
        ({"maybe": []}, r"here: at\.maybe: must be a mapping, not a list"),
        ({"numbers": {"a": 1}}, r"here: at\.numbers: must be a list, not a mapping"),
        ({"numbers": [[1]]}, r"here: at\.numbers\[0\]: must be a single value, not a list"),
        ({"numbers": [1, None]}, r"here: at\.numbers\[1\]: must be a single value, not null"),
        ({"numbers": ["x"]}, r"here: at\.numbers\[0\]: Value 'x' of type 'str' could not be converted to Integer"),
        ({"pair": [1, "x"]}, r"here: at\.pair: a value in this list has the wrong type"),
        ({"flag": [1]}, r"here: at\.flag: must be a single value, not a list"),
        ({"choice": "c"}, r"here: at\.choice: Invalid value 'c', expected one of \['a', 'b'\]"),
        ({"inner": {"number": 1.5}}, r"here: at\.inner\.number: Value '1\.5' of type 'float' could not be converted"),
        ({"lists": {"a": 1}}, r"here: at\.lists\.a: must be a list, not 1"),
        ({"lists": {1: []}}, r"here: at\.lists\.1: a key must be text; put 1 in quotes"),
        ({"anything": ["???"]}, r"here: at\.anything\[0\]: is missing; write a value in place of \?\?\?"),
    ],
)
def test_the_error_for_a_wrong_value_names_its_file_and_key(node: Node, message: str) -> None:
    with pytest.raises(InputError, match=message):
        merge(Outer, node, "here", "at")


def test_a_value_that_is_not_a_mapping_is_refused() -> None:
    with pytest.raises(InputError, match=r"^here: must be a mapping, not 3$"):
        merge(Outer, 3, "here")  # type: ignore[arg-type]  # as a file may hold it


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.dates() | st.binary(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(["needed", *DEFAULTS, "number"])


def outcome(node: Node) -> Node | str:
    """Returns the merged values, or the text of the InputError."""
    try:
        return merge(Outer, node, "here")
    except InputError as error:
        return str(error)


@given(st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES, max_size=2), max_size=3))
def test_any_value_is_merged_or_refused_in_one_line(node: Node) -> None:
    found = outcome(node)
    if isinstance(found, str):
        assert found.startswith("here: ")
        assert len(found.splitlines()) == 1
    else:
        assert set(DEFAULTS) <= set(found)


def test_nan_and_infinity_are_found_anywhere() -> None:
    check_values({"a": [1.0, {"b": 2}]}, "here")
    with pytest.raises(InputError, match=r"^here: a\[1\]\.b: must be a finite number, not nan$"):
        check_values({"a": [1.0, {"b": float("nan")}]}, "here")
    with pytest.raises(InputError, match=r"^at: must be a finite number, not inf$"):
        check_values(float("inf"), "", "at")


def test_a_prefix_is_added_to_the_text_of_an_error() -> None:
    class SpecialError(InputError):
        pass

    with pytest.raises(SpecialError, match=r"^net: too wide$") as raised, prefix_errors("net: ", SpecialError):
        raise InputError("too wide")
    assert isinstance(raised.value.__cause__, InputError)
