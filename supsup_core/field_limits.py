"""Declares the smallest and the largest values of config fields together with the fields, and checks them in one
place."""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

from supsup_core.errors import InputError

T = TypeVar("T")

_LIMITS = "limits"

MOST_TASKS = 100_000
"""The largest number of tasks of a benchmark. The paper's longest sequence has 2,500 tasks."""

MOST_IMAGES = 1_000_000
"""The largest number of images of a decision, or of an evaluation of one task."""

MOST_RATE = 1e6
"""The largest learning rate, penalty or similar factor. With a larger factor, float32 arithmetic overflows within a few
steps."""


@dataclass(frozen=True)
class Limits:
    """The smallest and the largest value of a field, both allowed; None means no limit.

    If the value is a list, `least` and `most` limit each item, and `items` is the largest number of items.
    """

    least: float | None = None
    most: float | None = None
    items: int | None = None


def limited(default: T, least: float | None = None, most: float | None = None, items: int | None = None) -> T:
    """Declares a dataclass field with limits, which `check_limits` checks. See `Limits` for the arguments."""
    metadata = {_LIMITS: Limits(least, most, items)}
    made: Any = field(default=default, metadata=metadata)
    if isinstance(default, list):
        made = field(default_factory=default.copy, metadata=metadata)
    typed: T = made
    return typed


def limits_of(cls: type, name: str) -> Limits | None:
    """Returns the limits of a dataclass field, or None if the field has no limits.

    If a subclass declares the field again, for another default, the limits of its base class remain.
    """
    for owner in cls.__mro__:
        found: Field[Any] | None = vars(owner).get("__dataclass_fields__", {}).get(name)
        if found is not None and _LIMITS in found.metadata:
            limits: Limits = found.metadata[_LIMITS]
            return limits
    return None


def check_limits(component: Any) -> None:
    """Raises InputError if a field of a dataclass object is out of its limits.

    The message begins with the field's name. None, and values that are no numbers, are not checked.
    """
    for one in fields(component):
        limits = limits_of(type(component), one.name)
        if limits is not None:
            _check(one.name, getattr(component, one.name), limits)


def check_length(name: str, value: object, limits: Limits) -> None:
    """Raises InputError, whose text begins with `name`, if a list has more items than its limits allow."""
    if isinstance(value, (list, tuple)) and limits.items is not None and len(value) > limits.items:
        raise InputError(f"{name}: lists {len(value):,} values, but the maximum is {limits.items:,}; remove some")


def _check(name: str, value: object, limits: Limits) -> None:
    check_length(name, value, limits)
    if isinstance(value, (list, tuple)):
        for item in value:
            _check(name, item, limits)
    elif isinstance(value, (int, float)):
        if limits.least is not None and value < limits.least:
            raise InputError(f"{name}: must be at least {limits.least:,}, not {value}; raise this value")
        if limits.most is not None and value > limits.most:
            raise InputError(f"{name}: must be at most {_plain(limits.most)}, not {value}; lower this value")


def _plain(number: float) -> str:
    """Returns a limit as text: whole numbers with commas, others as short as possible."""
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"
