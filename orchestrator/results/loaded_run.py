"""Loads a finished run from disk as a learner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from orchestrator.records.learned_tensors import provenance_here, states_of
from orchestrator.records.machine_kind import Provenance
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
    """A run with its learned tensors.

    `states`: the learned tensors of each task; in NNs, of each mask in use. `numbers`: the number of the task (in NNs,
    of the mask) for each item of `states`. `tasks`: the numbers of the tasks met so far. `masks`: for each task in
    `tasks`, the indices in `states` of the masks that belong to the task; in NNs, several indices or none are possible.
    `provenance`: the frozen weights, and the kinds of the machines that computed `states`.
    """

    experiment: Experiment
    problem: Problem
    dataset: Dataset
    states: list[dict[str, Tensor]]
    numbers: Sequence[int]
    tasks: Sequence[int]
    masks: Sequence[Sequence[int]]
    provenance: Provenance

    @cached_property
    def learner(self) -> Learner:
        """A learner that holds all of `states`. The learner is built at the first access and then cached."""
        return self.experiment.method.learner(self.problem, self.states)


def load_run(sweep: Sweep, group: Group, run: Run, device: str = "cpu") -> LoadedRun:
    """Load a run as it was at the run's last evaluation point. Imports the user's modules.

    group: the run's training group. Raises InputError if the run has not reached this evaluation point, and
    CorruptArtifactError if an artifact is damaged. Raises SupSupError if the installed libraries draw other frozen
    weights than those with which the masks were trained.
    """
    user_modules.load(sweep.config.imports, sweep.imports_folder)
    experiment = run.experiment
    last = max(experiment.evaluation.points(experiment.num_tasks))
    folder = sweep.folder.group(group.group_id)
    if not folder.ledger.exists():
        raise InputError(f"{sweep.sweep_id}: {run.name} has not started; run `{sweep.command('resume')}` first")
    state = read_state(folder)
    if (run.run_id, last) not in state.points:
        raise InputError(
            f"{sweep.sweep_id}: {run.name} has not completed its last evaluation point, after {last} tasks; "
            f"run `{sweep.command('resume')}` first"
        )
    if experiment.allocation is not None:
        due = state.due[last]
        store = sweep.masks(group.group_id)
        keys, numbers, tasks, masks = due.keys, due.numbers, due.tasks, due.right
    else:
        store = sweep.store
        keys, tasks = tuple(shard.key for shard in group.shards[:last]), tuple(range(last))
        numbers, masks = tasks, tuple((task,) for task in tasks)
    dataset = experiment.benchmark.source().load(sweep.data_root)
    problem = experiment.problem(device)
    here = provenance_here(problem)
    states, machines = states_of(keys, store, experiment.allocation is not None, here)
    provenance = Provenance(machines, here.weights_sha256)
    return LoadedRun(experiment, problem, dataset, states, numbers, tasks, masks, provenance)
