"""Rules for class hierarchies: an abstract class states a contract, and no subclass overrides a concrete method.

Behaviour that varies is passed as an argument, or is an abstract method of a separate small class.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

PROJECT = ("supsup_core", "orchestrator")


def classes_of(package: str) -> list[type]:
    """Returns every class that a package defines at the top level of a module."""
    found = {}
    root = importlib.import_module(package)
    for module_info in pkgutil.walk_packages(root.__path__, f"{package}."):
        if module_info.name.endswith("__main__"):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow warns when `served_model` is imported
            module = importlib.import_module(module_info.name)
        for value in vars(module).values():
            if inspect.isclass(value) and value.__module__ == module.__name__:
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return [found[name] for name in sorted(found)]


def is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] in PROJECT


def is_code(attribute: Any) -> bool:
    """Returns whether an attribute of a class is a method or a property."""
    return inspect.isroutine(attribute) or isinstance(attribute, property | functools.cached_property)


def is_generated(cls: type, name: str) -> bool:
    """Returns whether `dataclass` generated this method of a class. It generates dunder methods for every dataclass."""
    if not dataclasses.is_dataclass(cls) or not name.startswith("__"):
        return False
    code = getattr(inspect.unwrap(vars(cls)[name]), "__code__", None)  # dataclass wraps __repr__
    return code is None or code.co_filename == "<string>"


def overrides(cls: type) -> Iterator[str]:
    """Yields the concrete methods and properties of the project's classes that a class overrides."""
    for name, attribute in vars(cls).items():
        if not is_code(attribute) or is_generated(cls, name):
            continue
        for base in cls.__mro__[1:]:
            inherited = vars(base).get(name)
            if inherited is None or not is_ours(base) or is_generated(base, name):
                continue
            if is_code(inherited) and not getattr(inherited, "__isabstractmethod__", False):
                yield f"{cls.__module__}.{cls.__qualname__}.{name} overrides {base.__qualname__}.{name}"
            break


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")  # MLflow warns about its model class
@pytest.mark.parametrize("package", PROJECT)
def test_no_concrete_method_is_overridden(package: str) -> None:
    classes = classes_of(package)
    assert len(classes) > 50
    assert [line for cls in classes for line in overrides(cls)] == []


@pytest.mark.parametrize("package", PROJECT)
def test_classes_that_implement_a_contract_are_final(package: str) -> None:
    """A class with an abstract base class of this project is abstract, or is marked with typing.final."""
    derived = [cls for cls in classes_of(package) if any(is_ours(base) for base in cls.__mro__[1:])]
    contracts = [cls for cls in derived if any(inspect.isabstract(base) for base in cls.__mro__[1:] if is_ours(base))]
    concrete = [cls for cls in contracts if not inspect.isabstract(cls)]
    assert concrete
    assert [cls.__qualname__ for cls in concrete if not getattr(cls, "__final__", False)] == []


def test_an_override_of_a_concrete_method_is_detected() -> None:
    class Parent:
        __module__ = "supsup_core.example"

        def method(self) -> int:
            return 1

        @property
        def shown(self) -> int:
            return 1

    class Child(Parent):
        __module__ = "supsup_core.example"

        def method(self) -> int:
            return 2

        @property
        def shown(self) -> int:
            return 2

        def __repr__(self) -> str:  # overrides object, not Parent
            return ""

    assert [line.rpartition(".")[2] for line in overrides(Child)] == ["method", "shown"]
