"""Finding things by the names that a person types."""

from __future__ import annotations

from collections.abc import Collection


def matching_names(wanted: str, names: Collection[str]) -> list[str]:
    """The names that `wanted` can mean: the name itself; else those that it is without their last `-PART`; else those
    that begin with it. In the order of `names`; empty when nothing fits."""
    return (
        [name for name in names if name == wanted]
        or [name for name in names if name.rpartition("-")[0] == wanted]
        or [name for name in names if name.startswith(wanted)]
    )
