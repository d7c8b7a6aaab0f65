"""Fields that a later version adds do not change the identity of what earlier versions computed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from supsup_core.later_fields import added_later, identity_fields, without_later_defaults


@dataclass(frozen=True)
class Inner:
    size: int = 3
    shape: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Before:
    rate: float = 0.1
    inner: Inner = field(default_factory=Inner)


@dataclass(frozen=True)
class After:
    rate: float = 0.1
    inner: Inner = field(default_factory=Inner)
    smoothing: float = added_later(0.0)


def test_a_later_field_at_its_default_is_left_out() -> None:
    assert identity_fields(After()) == identity_fields(Before())
    assert without_later_defaults(After, asdict(After())) == asdict(Before())


def test_a_later_field_with_another_value_is_part_of_the_identity() -> None:
    assert identity_fields(After(smoothing=0.5)) == {**identity_fields(Before()), "smoothing": 0.5}
    assert without_later_defaults(After, asdict(After(smoothing=0.5)))["smoothing"] == 0.5


def test_without_later_fields_the_identity_has_all_fields() -> None:
    assert identity_fields([Before(rate=2.0)]) == [{"rate": 2.0, "inner": {"size": 3, "shape": [1, 2]}}]
