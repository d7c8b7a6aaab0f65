"""Estimates the cost of a whole sweep on this machine from the costs of its training groups."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from orchestrator.base.environment import usable_cpus
from orchestrator.sweeps.cost_estimate import Estimate
from orchestrator.sweeps.sweep import Sweep


def total_cost(sweep: Sweep, costs: Sequence[Estimate]) -> Estimate:
    """Returns the cost of all groups together. costs: the cost of each group; not empty.

    Assumes that as many groups run at the same time as this machine has CPU threads, or GPUs, for their workers. The
    memory is the sum over as many groups as run at the same time, beginning with the groups that need the most memory.
    """
    resources = sweep.config.resources
    slots = torch.cuda.device_count() if resources.device == "cuda" else usable_cpus() // resources.threads
    slots = max(slots, resources.num_workers)
    left = [cost for cost in costs if cost.seconds > 0] or costs[:1]
    widest = max(cost.num_workers for cost in left)
    workers = min(slots // widest * widest, sum(cost.num_workers for cost in left))
    memory, busy = 0, 0
    for cost in sorted(left, key=lambda cost: cost.memory_bytes, reverse=True):
        if busy + cost.num_workers <= workers:
            busy += cost.num_workers
            memory += cost.memory_bytes
    return Estimate(
        seconds=max(sum(cost.seconds * cost.num_workers for cost in left) / workers, *(cost.seconds for cost in left)),
        num_workers=workers,
        disk_bytes=sum(cost.disk_bytes for cost in costs),
        memory_bytes=memory,
        basis=costs[0].basis,
    )
