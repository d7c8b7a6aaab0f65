"""Looks up names that a user has typed in full or in part."""

from __future__ import annotations

from collections.abc import Collection


def matching_names(wanted: str, names: Collection[str]) -> list[str]:
    """Returns the names that `wanted` may stand for, in the order of `names`. Returns an empty list if none fits.

    Tried in turn: the name that equals `wanted`; names that equal it without their last `-PART`; names that begin with
    it.
    """
    return (
        [name for name in names if name == wanted]
        or [name for name in names if name.rpartition("-")[0] == wanted]
        or [name for name in names if name.startswith(wanted)]
    )
