"""Finding things by the names that a person types."""

from __future__ import annotations

from collections.abc import Collection


def matching_names(wanted: str, names: Collection[str]) -> list[str]:
    """The names that `wanted` can mean: the name itself; else those that it is without their last `-PART`; else those
    that begin with it. In the order of `names`; empty when nothing fits."""
    for fits in (
        lambda name: name == wanted,
        lambda name: name.rpartition("-")[0] == wanted,
        lambda name: name.startswith(wanted),
    ):
        if found := [name for name in names if fits(name)]:
            return found
    return []
