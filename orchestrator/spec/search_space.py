"""Defines a search: the configurations that a search tries, and the numbers of tasks after which it compares them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from orchestrator.base.keys import canonical
from orchestrator.base.plain_values import Node
from orchestrator.spec.sweep_keys import MOST_RUNS
from supsup_core import seeding
from supsup_core.errors import InputError
from supsup_core.field_limits import check_limits, limited

SEARCHABLE = ("net", "method", "training", "stream", "allocation")
"""Sections of an experiment that may be searched: they define how to learn. The other sections define the problem, and
accuracies on different problems cannot be compared."""

_MOST_CHOICES = 1000
"""The largest number of choices of a key."""

_DIGITS = 3
"""Drawn numbers are rounded to this many significant digits, so that they are readable."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search for the configuration with the highest accuracy on held-out training images. No trial sees test images.

    space: maps a dotted key to a list of choices, or to a range {low: …, high: …, log: true|false}. num_trials: how
    many different configurations to draw from the space; None means every combination of the choices. seed: determines
    the draws. held_out: the share of the training images that is held out for evaluating trials.

    grace_tasks, reduction: a trial is evaluated after `grace_tasks` tasks, and then each time that the number of
    learned tasks has grown by the factor `reduction`. A trial continues only if its accuracy is among the highest
    1/`reduction` of the trials before it in the plan, after the same number of tasks (ASHA, Li et al. 2020).

    Raises InputError if a value is out of its range.
    """

    space: Node
    num_trials: int | None = limited(None, least=2, most=MOST_RUNS)
    seed: int = 0
    held_out: float = 0.1
    grace_tasks: int = limited(1, least=1)
    reduction: int = limited(4, least=2)

    def __post_init__(self) -> None:
        check_limits(self)
        if not self.space:
            raise InputError("space: is empty; name at least one key to search, such as training.learning_rate")
        for key, values in self.space.items():
            if key.split(".")[0] not in SEARCHABLE:
                raise InputError(
                    f"space.{key}: cannot be searched; searchable keys start with one of: {', '.join(SEARCHABLE)}"
                )
            _check_axis(key, values)
        if self.num_trials is None and (ranges := [key for key in self.space if isinstance(self.space[key], dict)]):
            raise InputError(
                f"num_trials: is missing; set how many configurations to draw, because search.space.{ranges[0]} is a "
                "range"
            )
        if self.num_trials is None and (num_trials := math.prod(map(len, self.space.values()))) > MOST_RUNS:
            raise InputError(
                f"num_trials: is missing, and the space has {num_trials:,} configurations; set how many configurations "
                f"to draw, at most {MOST_RUNS:,}"
            )
        if not 0 < self.held_out < 1:
            raise InputError(f"held_out: must be a share of the training images between 0 and 1, not {self.held_out}")

    def rungs(self, num_tasks: int) -> list[int]:
        """Returns the numbers of tasks after which a trial is evaluated, ascending.

        The last number is `num_tasks`: a trial that has learned all tasks is complete and is not stopped.
        """
        rungs = itertools.takewhile(
            lambda n: n < num_tasks, (self.grace_tasks * self.reduction**power for power in itertools.count())
        )
        return [*rungs, num_tasks]

    def trials(self) -> list[Node]:
        """Returns the configurations to try. Each configuration maps every key of the space to a value.

        The result is deterministic. Raises InputError if the space seems to have fewer than `num_trials` different
        configurations.
        """
        if self.num_trials is None:
            return [dict(zip(self.space, values, strict=True)) for values in itertools.product(*self.space.values())]
        found: dict[tuple[object, ...], Node] = {}
        most = min(self.num_trials, self._most_different())
        last, number = 0, 0
        while len(found) < most and number - last <= 1000 + 10 * len(found) and number < 100 * self.num_trials:
            drawn = {key: self._draw(key, values, number) for key, values in self.space.items()}
            number += 1
            values = tuple(canonical(one) if isinstance(one, (dict, list)) else one for one in drawn.values())
            if values not in found:
                found[values] = drawn
                last = number
        if len(found) == self.num_trials:
            return list(found.values())
        raise InputError(
            f"num_trials: {self.num_trials} different configurations are requested, but the space has only about "
            f"{len(found)}; lower search.num_trials, or widen search.space"
        )

    def _most_different(self) -> int:
        """Returns the number of different configurations that can be drawn, but at most MOST_RUNS."""
        sizes = [
            len(values) if isinstance(values, list) else values["high"] - values["low"] + 1
            for values in self.space.values()
            if isinstance(values, list) or isinstance(values["high"] - values["low"], int)
        ]
        return min(math.prod(sizes), MOST_RUNS) if len(sizes) == len(self.space) else MOST_RUNS

    def _draw(self, key: str, values: object, number: int) -> object:
        """Returns the value of a key in draw `number`."""
        child = seeding.child_seed(self.seed, f"search/{key}", number)
        unit = (int(seeding.raw_bits(child, 1)[0]) >> 11) * 2.0**-53
        if isinstance(values, list):
            return values[int(unit * len(values))]
        assert isinstance(values, dict)
        low, high, log = values["low"], values["high"], values.get("log", False)
        if isinstance(low, int) and isinstance(high, int):
            return min(int(_interpolate(low, high + 1, log, unit)), high)
        drawn = float(f"{_interpolate(low, high, log, unit):.{_DIGITS}g}")
        return min(max(drawn, low), high)


def _interpolate(low: float, high: float, log: bool, unit: float) -> float:
    """Interpolates between low and high at `unit` in [0, 1): geometrically if `log` is true, else linearly."""
    return float(low * (high / low) ** unit if log else low + (high - low) * unit)


def _check_axis(key: str, values: object) -> None:
    """Raises InputError if the values of a key are neither a list of different choices nor a valid range."""
    if isinstance(values, dict):
        if unknown := sorted(set(map(str, values)) - {"low", "high", "log"}):
            raise InputError(f"space.{key}.{unknown[0]}: unknown key; the keys of a range are low, high and log")
        for name in ("low", "high"):
            value = values.get(name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise InputError(f"space.{key}.{name}: must be a finite number, not {value!r}")
        if not isinstance(values.get("log", False), bool):
            raise InputError(f"space.{key}.log: must be true or false, not {values['log']!r}")
        if values["low"] >= values["high"]:
            raise InputError(f"space.{key}: low ({values['low']}) must be below high ({values['high']})")
        if values.get("log", False) and values["low"] <= 0:
            raise InputError(f"space.{key}.low: must be positive if log is true, not {values['low']}")
    elif not isinstance(values, list) or not values:
        raise InputError(
            f"space.{key}: must be a list of choices, or a range such as {{low: 1.0e-5, high: 1.0e-2, log: true}}"
        )
    elif len(values) > _MOST_CHOICES:
        raise InputError(
            f"space.{key}: lists {len(values):,} choices, but the maximum is {_MOST_CHOICES:,}; remove some"
        )
    elif any(value in values[:number] for number, value in enumerate(values)):
        raise InputError(f"space.{key}: the list {values} contains a value twice; remove one of the two")
