"""What a search tries: configurations drawn from a space, or all of it, and when it judges them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.spec.strict_merge import Node
from supsup_core import seeding
from supsup_core.errors import InputError

SEARCHABLE = ("net", "method", "training", "stream", "allocation")
"""Sections of an experiment that may be searched: what is learned, and how. Others would change the problem."""

TASKS, ACCURACY = "tasks", "accuracy"
"""What a trial reports: after how many tasks it was judged, and the average validation accuracy."""

_DIGITS = 3
"""Significant digits of a number that is drawn: a config that people read."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A sweep that looks for the best configuration, judged on training images that are held out.

    `space` maps dotted keys to a list of choices, or to {low: …, high: …, log: true|false}. `num_trials`
    configurations are drawn from it by `seed`, each different; without it every combination of the lists is tried.
    `held_out`: the share of the training images that judges; test images are never seen. A trial is judged after
    `grace_tasks` tasks, and again each time it has learned `reduction` times as many; there it is stopped unless it is
    among the best 1/`reduction` of those that were judged after as many (ASHA, Li et al. 2020).
    """

    space: dict[str, Any]
    num_trials: int | None = None
    seed: int = 0
    held_out: float = 0.1
    grace_tasks: int = 1
    reduction: int = 4

    def __post_init__(self) -> None:
        if not self.space:
            raise InputError("space: empty; name at least one key to search, such as training.learning_rate")
        for key, values in self.space.items():
            if key.split(".")[0] not in SEARCHABLE:
                raise InputError(f"space.{key}: not searched; keys start with one of: {', '.join(SEARCHABLE)}")
            _check_axis(key, values)
        if self.num_trials is None and (ranges := [key for key in self.space if isinstance(self.space[key], Mapping)]):
            raise InputError(f"num_trials: missing; space.{ranges[0]} is a range, of which so many values are drawn")
        for name, least in (("num_trials", 2), ("grace_tasks", 1), ("reduction", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name}: must be at least {least}, not {value}")
        if not 0 < self.held_out < 1:
            raise InputError(f"held_out: a share of the training images between 0 and 1, not {self.held_out}")

    def rungs(self, num_tasks: int) -> list[int]:
        """After how many tasks a trial is judged, ascending; the last is `num_tasks`, where none is stopped."""
        rungs = itertools.takewhile(
            lambda n: n < num_tasks, (self.grace_tasks * self.reduction**power for power in itertools.count())
        )
        return [*rungs, num_tasks]

    def trials(self) -> list[Node]:
        """The configurations to try, as values of the space's keys; the same for the same search.

        InputError when the space has fewer than `num_trials`.
        """
        if self.num_trials is None:
            return [dict(zip(self.space, values, strict=True)) for values in itertools.product(*self.space.values())]
        found: list[Node] = []
        for number in range(100 * self.num_trials):
            drawn = {key: self._draw(key, values, number) for key, values in self.space.items()}
            if drawn not in found:
                found.append(drawn)
            if len(found) == self.num_trials:
                return found
        raise InputError(
            f"num_trials: {self.num_trials} different ones were asked for, and the space has about {len(found)}; "
            "ask for fewer, or widen it"
        )

    def _draw(self, key: str, values: Any, number: int) -> Any:
        child = seeding.child_seed(self.seed, f"search/{key}", number)
        unit = (int(seeding.raw_bits(child, 1)[0]) >> 11) * 2.0**-53
        if not isinstance(values, Mapping):
            return values[int(unit * len(values))]
        low, high = values["low"], values["high"]
        if isinstance(low, int) and isinstance(high, int):
            return _between(low, high + 1, values.get("log", False), unit)
        drawn = float(f"{_scaled(low, high, values.get('log', False), unit):.{_DIGITS}g}")
        return min(max(drawn, low), high)


def _between(low: int, end: int, log: bool, unit: float) -> int:
    return min(int(_scaled(low, end, log, unit)), end - 1)


def _scaled(low: float, high: float, log: bool, unit: float) -> float:
    """From low, at unit 0, to high, at 1: by equal steps, or by equal factors."""
    return float(low * (high / low) ** unit if log else low + (high - low) * unit)


def _check_axis(key: str, values: Any) -> None:
    """InputError unless values are a list of choices or a range."""
    if isinstance(values, Mapping):
        if unknown := sorted(set(values) - {"low", "high", "log"}):
            raise InputError(f"space.{key}.{unknown[0]}: unknown key; a range has low, high and log")
        for name in ("low", "high"):
            value = values.get(name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise InputError(f"space.{key}.{name}: must be a number, not {value!r}")
        if not isinstance(values.get("log", False), bool):
            raise InputError(f"space.{key}.log: true or false, not {values['log']!r}")
        if values["low"] >= values["high"]:
            raise InputError(f"space.{key}: low ({values['low']}) must be below high ({values['high']})")
        if values.get("log", False) and values["low"] <= 0:
            raise InputError(f"space.{key}.low: must be positive where log is true, not {values['low']}")
    elif not isinstance(values, list) or not values:
        raise InputError(f"space.{key}: a list of choices, or a range such as {{low: 1.0e-5, high: 1.0e-2, log: true}}")
    elif any(value in values[:number] for number, value in enumerate(values)):
        raise InputError(f"space.{key}: {values} has one twice; each would be the same trial")
