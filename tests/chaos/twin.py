"""The sweeps of all histories, and what undisturbed commands make of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from orchestrator.base.output_folder import OutputFolder
from orchestrator.results.output_inventory import referenced_keys
from orchestrator.sweeps.lookup import read_state
from tests.chaos.processes import Processes
from tests.chaos.results import Results

COMMON: dict[str, Any] = {
    "benchmark": {"name": "permuted", "base": "digits", "num_tasks": 3},
    "net": {"name": "lenet_300_100", "num_outputs": 30},
    "commit_every": 0.02,
}
SWEEPS: dict[str, dict[str, Any]] = {
    "tasks": {
        **COMMON, "grid": {"scenario": ["GG", "GNu"]}, "training": {"num_batches": 30}, "evaluation": {"at": [1, 3]},
        "inference": {"strict_images": 20},
    },
    "nns": {
        **COMMON, "scenario": "NNs", "training": {"num_batches": 40, "learning_rate": 1e-3},
        "stream": {"segment_batches": 20}, "evaluation": {"at": [2, 3]}, "inference": {"strict_images": 0},
    },
}  # fmt: skip
EVALUATE = ("inference.rule=binary", "--local")
FORK = ("--at-task", "2", "budget.num_masks=10", "--local")


@dataclass(frozen=True)
class Twin:
    """What undisturbed commands make of the sweeps.

    `results`: of all commands. `ids`: the ids of the sweeps `tasks`, `nns` and `fork`. `keys`: the keys of the
    artifacts that each of them needs, and those that `evaluate` adds to `tasks`. `runs`, `groups`: the ids of each
    sweep's runs and training groups. `alone`: each sweep's results when it had ended. `shards`: the keys of the tasks
    of `tasks`.
    """

    results: Results
    ids: dict[str, str]
    keys: dict[str, frozenset[str]]
    runs: dict[str, list[str]]
    groups: dict[str, list[str]]
    alone: dict[str, Results]
    shards: list[str]

    def of(self, name: str, output: Path) -> Results:
        """Returns the results of one sweep in an output."""
        return Results.of(output).only(self.ids[name], self.groups[name], self.keys[name])


def write_sweeps(folder: Path) -> None:
    """Writes the sweep files of all histories."""
    for name, node in SWEEPS.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, **node}))


def make_twin(processes: Processes, folder: Path) -> Twin:
    """Runs all commands that a history can contain, one after the other. folder: the working folder."""
    write_sweeps(folder)
    output = OutputFolder(folder / "wanted")
    twin = Twin(Results({}, {}, {}, {}, {}), {}, {}, {}, {}, {}, [])
    for name, words in (
        ("tasks", ("sweep", "tasks.yaml", "--local")),
        ("nns", ("sweep", "nns.yaml", "--local")),
        ("evaluate", ("evaluate", "tasks", *EVALUATE)),
        ("fork", ("fork", "nns", *FORK)),
    ):
        ended = processes.run(*words, f"output={output.path}")
        assert ended.code == 0, ended.out + ended.err
        made = [sweep for sweep in output.sweeps() if sweep.sweep_id not in twin.ids.values()]
        changed = made[0] if made else output.sweep(twin.ids["tasks"])
        states = [read_state(group) for group in changed.groups()]
        found = frozenset(key for state in states for key in referenced_keys(state))
        if not made:
            twin.keys[name] = found - twin.keys["tasks"]
            continue
        twin.ids[name], twin.keys[name] = changed.sweep_id, found
        twin.runs[name] = [run.run_id for state in states for run in state.group.runs]
        twin.groups[name] = [group.group_id for group in changed.groups()]
        twin.alone[name] = twin.of(name, output.path)
        if name == "tasks":
            twin.shards.extend(shard.key for state in states for shard in state.group.shards)
    return replace(twin, results=Results.of(output.path))
