"""Registries: names, aliases, and unknown names."""

from abc import ABC, abstractmethod
from typing import ClassVar

import pytest

from supsup_core.errors import InputError
from supsup_core.registry import Registry, nearest


def made() -> Registry[int]:
    registry: Registry[int] = Registry("number")
    registry.register("one", "uno")(1)
    registry.register("two")(2)
    return registry


def test_an_entry_has_a_canonical_name_and_aliases() -> None:
    registry = made()
    assert (registry["one"], registry["uno"], registry.under("number.name", "two")) == (1, 1, 2)
    assert registry.names() == ["one", "two", "uno"]
    assert [registry.name_of(entry) for entry in (1, 2)] == ["one", "two"]


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(InputError, match=r"unknown number 'tow' \(did you mean 'two'\?\); choose one of: one, two"):
        made()["tow"]
    with pytest.raises(InputError, match=r"^key: unknown number 'three'"):
        made().under("key", "three")
    with pytest.raises(InputError, match="not registered: 3"):
        made().name_of(3)


def test_a_name_is_registered_once() -> None:
    with pytest.raises(InputError, match="the number 'uno' is registered twice"):
        made().register("uno")(3)


def test_the_suggested_name_has_the_same_prefix_or_a_similar_spelling() -> None:
    assert nearest("thr", ["threshold", "three"]) == " (did you mean 'threshold'?)"
    assert nearest("entropi", ["energy", "entropy"]) == " (did you mean 'entropy'?)"
    assert nearest("zzz", ["energy"]) == ""


class _Kind(ABC):
    """An abstract base class that says what a registered class must define."""

    speed: ClassVar[int]
    colour: ClassVar[str] = "blue"

    @abstractmethod
    def go(self) -> None:
        """A method that a subclass must define."""


def test_a_class_without_a_required_member_is_refused_in_one_line() -> None:
    kinds: Registry[type[_Kind]] = Registry("kind")

    class Half(_Kind):
        speed = 3

    class Empty(_Kind):
        pass

    with pytest.raises(InputError, match=r"the kind 'half' \(.*Half\) must define: go$"):
        kinds.register("half")(Half)
    with pytest.raises(InputError, match=r"must define: go, speed$"):
        kinds.register("empty")(Empty)
    assert kinds.names() == []
