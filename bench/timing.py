"""Times peers in alternation, so that other load on the machine affects all of them equally."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def alternate(peers: Mapping[str, Callable[[], object]], rounds: int = 5, repeats: int = 1) -> dict[str, list[float]]:
    """Returns, for each peer, the milliseconds of one call in each round, as the mean of `repeats` calls.

    Each peer is called once before the first round, to warm up.
    """
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
    """Returns the time of `peer` divided by the time of `ours`, as the median over rounds."""
    return statistics.median(a / b for a, b in zip(times[peer], times[ours], strict=True))


def medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    """Returns each peer's median over rounds, under the key `<name>_ms`."""
    return {f"{name}_ms": statistics.median(values) for name, values in times.items()}
