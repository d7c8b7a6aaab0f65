"""Checks a whole sweep: its names, its seeds, the keys that it varies, and the number of its runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from orchestrator.base.wording import one_line
from orchestrator.spec.overrides import overlap
from orchestrator.spec.sweep_keys import EXPERIMENT_KEYS, MOST_RUNS
from supsup_core.errors import InputError
from supsup_core.registry import nearest

if TYPE_CHECKING:
    from orchestrator.spec.sweep_config import SweepConfig

_MOST_NAME = 200
"""The largest length of a variant's name, which tables, figures and MLflow show."""


def check_sweep(sweep: SweepConfig) -> None:
    """Raises InputError, whose text begins with the key, if a sweep's seeds, varied keys, number of runs or names are
    invalid."""
    _check_seeds(sweep)
    _check_varied(sweep)
    _check_num_runs(sweep)
    _check_names(sweep)


def _check_seeds(sweep: SweepConfig) -> None:
    """Raises InputError if there is no seed, or if a seed is listed twice."""
    if not sweep.seeds:
        raise InputError("seeds: is empty; list at least one seed, such as [0]")
    if len(set(sweep.seeds)) < len(sweep.seeds):
        raise InputError(f"seeds: the list {sweep.seeds} contains a seed twice; remove one of the two")


def _check_varied(sweep: SweepConfig) -> None:
    """Raises InputError if a grid key has no values, if a key cannot be varied or is varied twice, or if `only` names
    an unknown variant."""
    for key, values in sweep.grid.items():
        where = one_line(f"grid.{key}")
        if not values:
            raise InputError(f"{where}: is empty; list at least one value, or remove the key")
        _check_experiment_key(key, where)
    for name, changes in sweep.variants.items():
        for key in changes:
            where = one_line(f"variants.{name}.{key}")
            _check_experiment_key(key, where)
            if any(overlap(key, axis) for axis in sweep.grid):
                raise InputError(
                    f"{where}: the grid varies this key too; remove the key from the grid or from the variant"
                )
    if sweep.only == []:
        raise InputError("only: is empty; name at least one variant, or remove the key")
    for name in sweep.only or []:
        if name not in sweep.variants:
            known = sorted(sweep.variants)
            raise InputError(
                f"only: there is no variant {name!r}{nearest(name, known)}; the variants are: "
                f"{', '.join(known) or 'none'}"
            )


def _check_names(sweep: SweepConfig) -> None:
    """Raises InputError if the sweep's name cannot be a folder's name, or if the name of a variant cannot be printed.

    A folder's name has at most 255 bytes, and the hash in a sweep's id needs some of these bytes.
    """
    name = sweep.name
    is_folder_name = name and all(c.isalnum() or c in "._-" for c in name) and not name.startswith(".")
    if not is_folder_name or len(name.encode()) > 240:
        raise InputError(
            f"name: {name!r} is not a valid folder name; use only letters, digits, '.', '_' and '-', no '.' at the "
            "beginning, and at most 240 bytes"
        )
    for variant in sweep.variants:
        if not variant.isprintable() or not 1 <= len(variant) <= _MOST_NAME:
            raise InputError(
                f"variants.{one_line(variant)}: the name of a variant must have 1 to {_MOST_NAME} printable characters"
            )


def _check_num_runs(sweep: SweepConfig) -> None:
    """Raises InputError if the variants, the grid and the seeds give more than MOST_RUNS runs.

    Counts the runs without building them.
    """
    num_variants = len(sweep.variants if sweep.only is None else sweep.only) or 1
    lengths = {f"grid.{key}": len(values) for key, values in sweep.grid.items()}
    num_runs = num_variants * len(sweep.seeds) * math.prod(lengths.values())
    if num_runs > MOST_RUNS:
        longest = max({**lengths, "variants": num_variants, "seeds": len(sweep.seeds)}.items(), key=lambda one: one[1])
        raise InputError(
            f"{one_line(longest[0])}: with {longest[1]:,} values here, the sweep has {num_runs:,} runs, but at most "
            f"{MOST_RUNS:,} are possible; remove values, or divide the sweep into several sweeps"
        )


def _check_experiment_key(key: str, where: str) -> None:
    """Raises InputError if a key of a grid or variant is not a key of the experiment. where: the place of the key."""
    if key.split(".")[0] not in EXPERIMENT_KEYS:
        raise InputError(
            f"{where}: is not a key of the experiment{nearest(key, list(EXPERIMENT_KEYS))}; "
            f"the keys of an experiment start with one of: {', '.join(EXPERIMENT_KEYS)}"
        )


def check_server(address: str) -> None:
    """Raises InputError if `address` is not the URL of a server, or if it contains a user name or a password."""
    try:
        parts = urlsplit(address)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # unbalanced brackets, or a port that is not a number
        is_url = False
    if not is_url:
        raise InputError(
            f"tracking: must be the address of an MLflow server, such as http://localhost:5000, not {address!r}"
        )
    if parts.username or parts.password:
        raise InputError(
            "tracking: the address must contain no user or password, because it is written to files; "
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
