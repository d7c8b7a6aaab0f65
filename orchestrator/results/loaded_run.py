"""What a run has learned, back from the disk as something that answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from orchestrator.records.learned_tensors import states_of
from orchestrator.spec import user_modules
from orchestrator.spec.experiment import Experiment
from orchestrator.sweeps.lookup import read_state
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.training_groups import Group, Run
from supsup_core.datasets import Dataset
from supsup_core.errors import InputError
from supsup_core.methods import Learner, Problem

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LoadedRun:
    """A run with all it has learned. `states`: of each task learned, in NNs of each live mask; `numbers`: what those
    are called, which in NNs tells more than their places. `tasks`: those it has met; `masks`: the places of each one's
    own masks (in NNs several are possible, or none)."""

    experiment: Experiment
    problem: Problem
    dataset: Dataset
    states: list[dict[str, Tensor]]
    numbers: list[int]
    tasks: list[int]
    masks: list[list[int]]

    @cached_property
    def learner(self) -> Learner:
        """What answers with all that was learned."""
        return self.experiment.method.learner(self.problem, self.states)


def load_run(sweep: Sweep, group: Group, run: Run, device: str = "cpu") -> LoadedRun:
    """A run of a group as it stands at its last point of evaluation.

    InputError when the run has not come there; CorruptArtifactError when what it stored is damaged.
    """
    user_modules.load(sweep.config.imports, sweep.folder)
    experiment = run.experiment
    last = max(experiment.evaluation.points(experiment.num_tasks))
    path = sweep.ledger_path(group.group_id)
    if not path.exists():
        raise InputError(f"{sweep.sweep_id}: {run.name} has not begun; run `{sweep.command('resume')}` first")
    state = read_state(sweep, group.group_id)
    if (run.run_id, last) not in state.points:
        raise InputError(
            f"{sweep.sweep_id}: {run.name} has not come to its {last} tasks; run `{sweep.command('resume')}` first"
        )
    if experiment.allocation is not None:
        due = state.due[last]
        store = sweep.masks(group.group_id)
        keys, numbers, tasks, masks = due["keys"], due["numbers"], due["tasks"], due["right"]
    else:
        store = sweep.store
        keys, tasks = [shard.key for shard in group.shards[:last]], list(range(last))
        numbers, masks = tasks, [[task] for task in tasks]
    dataset = experiment.benchmark.source().load(sweep.data_root)
    states = states_of(keys, store, are_masks=experiment.allocation is not None)
    return LoadedRun(experiment, experiment.problem(device), dataset, states, numbers, tasks, masks)
