"""What an NNs run spent on commits and decisions, from its own ledger.

    python -m bench.commits OUTPUT [SWEEP]

`lost_seconds`: the work between two commits, which is what a kill -9 can cost, as median and maximum; and the
maximum without its longest round, which `commit_every` bounds. Evaluations are not in it: each is committed when it is
done.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from orchestrator.base.output_folder import GroupFolder, OutputFolder
from orchestrator.sweeps.lookup import read_state
from orchestrator.sweeps.sweep_record import find_record

LAST = 100
"""Decisions whose latency is told: the last, with the most masks."""


def measure(group: GroupFolder) -> dict[str, Any]:
    """Seconds of training, commits and decisions of one group, and its disk use."""
    state = read_state(group)
    commits = [row.event for row in state.commits]
    decisions = [row.event for row in state.decisions]
    training = sum(commit.training_seconds for commit in commits)
    spent = sum(commit.seconds for commit in commits)
    rounds: dict[int, float] = {}
    for decision in decisions:  # the streams of a round share its latency
        rounds[decision.round] = rounds.get(decision.round, decision.latency) + decision.seconds
    ends = [0, *(commit.round for commit in commits)]
    stretches = [[rounds[number] for number in range(begin, end)] for begin, end in itertools.pairwise(ends)]
    work = [sum(stretch) for stretch in stretches if stretch]
    masks = sum(path.stat().st_size for path in group.masks.files())
    return {
        "commits": len(commits),
        "training_seconds": training,
        "commit_seconds": spent,
        "commit_share": spent / training,
        "lost_seconds": {
            "median": statistics.median(work),
            "maximum": max(work),
            "maximum_without_a_round": max(sum(stretch) - max(stretch) for stretch in stretches if stretch),
        },
        "num_masks": decisions[-1].num_masks,
        "median_latency_ms": 1000 * statistics.median(decision.latency for decision in decisions[-LAST:]),
        "masks_mb": masks / 1e6,
        "ledger_mb": sum(path.stat().st_size for path in group.path.glob(f"{group.ledger.name}*")) / 1e6,
    }


if __name__ == "__main__":
    record = find_record(OutputFolder(Path(sys.argv[1]).absolute()), sys.argv[2] if len(sys.argv) > 2 else None)
    groups = [group for group in record.folder.groups() if read_state(group).commits]  # of NNs alone
    print(json.dumps({group.group_id: measure(group) for group in groups}, indent=1))
