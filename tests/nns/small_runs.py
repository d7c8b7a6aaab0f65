"""Settings of small NNs runs, and functions that read their results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.coordination.settings import GroupSettings
from tests.outputs import nns_science

Make = Callable[..., GroupSettings]

NNS: dict[str, Any] = {
    "scenario": "NNs",
    "benchmark": {"name": "permuted", "base": "digits", "num_tasks": 5},
    "training": {"num_batches": 60, "learning_rate": 3e-3},
    "stream": {"segment_batches": 20, "order": "recurring", "visits": 2},
    "evaluation": {"at": [2, 5]},
    "inference": {"strict_images": 10},
    "commit_every": 0.001,
}


SHARED: dict[str, Any] = {
    "stream": {**NNS["stream"], "num_streams": 3},
    "allocation": {"name": "ratio", "epsilon": 50.0},
    "budget": {"num_masks": 3, "on_exhausted": "reuse"},
}
"""A run with three streams, two of which often choose the same mask in one round."""

SURE: dict[str, Any] = {
    "net": {"name": "lenet_300_100", "num_outputs": 200},
    "training": {"num_batches": 150, "learning_rate": 1e-3},
    "stream": {"segment_batches": 50},
    "commit_every": 60.0,
}
"""A run with one stream in blocks, in which no decision is wrong: five tasks of three segments each."""


def science(settings: GroupSettings, whole_files: bool = True) -> Any:
    """Returns the results of a run, which must not depend on faults during the run. whole_files: see `nns_science`."""
    return nns_science(settings.folder.ledger, whole_files)


def files_of(settings: GroupSettings) -> list[Path]:
    """Returns the files of the mask versions, sorted."""
    return sorted(settings.folder.masks.files())
