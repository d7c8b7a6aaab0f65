"""torch.no_grad as a decorator that does not load torch where a function is only defined."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def without_gradients(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which autograd does not follow. Not for generators, whose bodies run later."""
    assert not inspect.isgeneratorfunction(function)

    @functools.wraps(function)
    def unfollowed(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.no_grad():
            return function(*args, **kwargs)

    return unfollowed
