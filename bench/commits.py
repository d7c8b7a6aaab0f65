"""How much time an NNs run spent on commits and decisions, read from its ledger.

    python -m bench.commits OUTPUT [SWEEP]

`lost_seconds` is the training time between two commits, which is the most that a `kill -9` can lose. It is given as
median and maximum, and as `maximum_without_a_round`, which leaves out the longest round and which `commit_every`
bounds. Evaluations are excluded, because each is committed as soon as it is done.
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
"""The median latency is computed over this many last decisions, which are those with the most masks."""


def measure(group: GroupFolder) -> dict[str, Any]:
    """Returns the seconds of training and commits, the latency of decisions, and the disk use of one training group."""
    state = read_state(group)
    commits = [row.event for row in state.commits]
    decisions = [row.event for row in state.decisions]
    training = sum(commit.training_seconds for commit in commits)
    spent = sum(commit.seconds for commit in commits)
    rounds: dict[int, float] = {}
    for decision in decisions:  # all streams of a round have the same latency, so it is added once
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
    groups = [group for group in record.folder.groups() if read_state(group).commits]  # only NNs groups have commits
    print(json.dumps({group.group_id: measure(group) for group in groups}, indent=1))
