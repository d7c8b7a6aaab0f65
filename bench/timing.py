"""Peers timed in turn, so that what disturbs a machine disturbs them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def alternate(peers: Mapping[str, Callable[[], object]], rounds: int = 5, repeats: int = 1) -> dict[str, list[float]]:
    """Milliseconds of one call of each peer, in each round the mean of `repeats` calls; one call of each before."""
    found: dict[str, list[float]] = {name: [] for name in peers}
    for call in peers.values():
        call()
    for _ in range(rounds):
        for name, call in peers.items():
            started = time.perf_counter()
            for _ in range(repeats):
                call()
            found[name].append((time.perf_counter() - started) / repeats * 1e3)
    return found


def ratio(times: Mapping[str, list[float]], peer: str, ours: str) -> float:
    """How many times as long as `ours` the `peer` takes: the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(times[peer], times[ours], strict=True))


def medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    """Of each peer, by `<name>_ms`."""
    return {f"{name}_ms": statistics.median(values) for name, values in times.items()}
