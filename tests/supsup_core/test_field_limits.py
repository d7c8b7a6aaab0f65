"""Limits of config fields: the message names the field, the value and the limit."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from supsup_core.errors import InputError
from supsup_core.field_limits import check_limits, limited


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A config class with limited fields of each kind."""

    count: int = limited(3, least=1, most=1000)
    rate: float | None = limited(None, most=1e6)
    numbers: list[int] = limited([1], most=10, items=2)

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True, kw_only=True)
class Child(Parent):
    """A subclass with another default."""

    count: int = 5


@pytest.mark.parametrize("kind", [Parent, Child])
def test_a_value_out_of_its_limits_is_named_with_the_limit(kind: type[Parent]) -> None:
    made = kind(count=1000, rate=1e6, numbers=[10, 10])
    assert made.numbers == [10, 10]
    assert kind().numbers is not kind().numbers
    for values, words in (
        ({"count": 0}, "^count: must be at least 1, not 0; raise this value$"),
        ({"count": 10**18}, "^count: must be at most 1,000, not 1000000000000000000; lower this value$"),
        ({"rate": 2e6}, r"^rate: must be at most 1e\+06, not 2000000\.0; lower this value$"),
        ({"numbers": [1, 11]}, "^numbers: must be at most 10, not 11"),
        ({"numbers": [1, 2, 3]}, "^numbers: lists 3 values, but the maximum is 2; remove some$"),
    ):
        with pytest.raises(InputError, match=words):
            kind(**values)  # type: ignore[arg-type]  # values of several fields
