"""Looks up names that a user has typed in full or in part."""

from __future__ import annotations

from collections.abc import Collection


def matching_names(wanted: str, names: Collection[str]) -> list[str]:
    """Returns the names that `wanted` may stand for, in the order of `names`. Returns an empty list if none fits.

    Tries three rules in turn, and uses the first that matches any name: (1) the name equals `wanted`; (2) the name
    without its last `-PART`, such as the hash in a sweep's id, equals `wanted`; (3) the name begins with `wanted`.
    """
    return (
        [name for name in names if name == wanted]
        or [name for name in names if name.rpartition("-")[0] == wanted]
        or [name for name in names if name.startswith(wanted)]
    )
