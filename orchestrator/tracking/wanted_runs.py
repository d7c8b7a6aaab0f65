"""Computes which MLflow runs a sweep must have, with their names, params, tags and final statuses.

Does not import MLflow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.base.plain_values import Node, flatten
from orchestrator.records.group_state import GroupState, LaunchStatus
from orchestrator.records.machine_kind import MachineKind, Machines, joined
from orchestrator.spec.experiment import Experiment
from orchestrator.sweeps.training_groups import VARIANT, Group
from orchestrator.tracking.mlflow_points import RunKey

UID, KIND, SWEEP, ENDED = "supsup.uid", "supsup.kind", "supsup.sweep", "supsup.ended"
"""Tags of an MLflow run: its id within this project, its kind, its sweep, and how its training group ended."""

PARENT = "mlflow.parentRunId"
"""The tag by which MLflow's pages show a run below its parent run."""

SUPERSEDED = "superseded"
"""The value of the tag `supsup.kind` for MLflow runs that are no longer part of the sweep."""

_STATUSES = {"done": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}
"""Maps `GroupState.ended` to MLflow's run status. Any other value of `ended` means KILLED."""

_ALWAYS = ("scenario", "benchmark.name", "benchmark.num_tasks", "net.name", "net.num_outputs", "method.name",
           "inference.rule", "inference.objective", "stream.order", "allocation.name", "budget.num_masks",
           "budget.on_exhausted")  # fmt: skip
"""Config keys that are always logged as params, so that MLflow's pages can filter by them."""

_MOST_CHARACTERS = 8000
"""The largest length of a tag that MLflow accepts."""

_LONG_PARAM = 500
"""MLflow cuts values of params that are too long. The limit depends on the server's version, but is at least this
number of characters."""


@dataclass(frozen=True)
class WantedRun:
    """An MLflow run that a sweep must have.

    `group_id`: the id of the training group; None for the run of the sweep. `links`: tags whose values are the ids of
    other MLflow runs. `experiment`: None for the run of the sweep, which also has no params.
    """

    key: RunKey
    name: str
    tags: dict[str, str]
    links: dict[str, RunKey] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    group_id: str | None = None
    experiment: Experiment | None = None

    @property
    def uid(self) -> str:
        """The value of the tag `supsup.uid`, which identifies the MLflow run."""
        return self.tags[UID]

    def conflicting_params(self, found: Mapping[str, str]) -> list[str]:
        """Returns the names of the params that have another value in MLflow. MLflow cannot change the value of a
        param."""
        return [name for name, value in self.params.items() if name in found and not _is_same(value, found[name])]

    def machines(self, states: Mapping[str, GroupState]) -> Machines:
        """Returns the machine kinds that contributed to the run's results. states: the training groups' states."""
        if self.group_id is None:
            return joined(*(state.machines for state in states.values()))
        state = states.get(self.group_id, GroupState())
        return state.machines_of(self.key.id) if self.key.kind == "evaluation" else state.machines


def wanted_runs(sweep_id: str, groups: Sequence[Group]) -> list[WantedRun]:
    """Returns the MLflow runs of a sweep: the parent run first, then those of each training group.

    The params are the keys that the sweep varies and the keys in `_ALWAYS`. The params of a training run are only the
    keys that affect training.
    """
    parent = RunKey("sweep", sweep_id)
    found = [WantedRun(parent, sweep_id, _tags(sweep_id, parent))]
    for group in groups:
        training = RunKey("training", group.group_id)
        found.append(
            WantedRun(
                key=training,
                name=training_label(group),
                tags=_tags(sweep_id, training),
                links={PARENT: parent},
                params=_params(group.experiment, group.runs[0].varied, is_evaluated=False),
                group_id=group.group_id,
                experiment=group.experiment,
            )
        )
        for run in group.runs:
            evaluation = RunKey("evaluation", run.run_id)
            found.append(
                WantedRun(
                    key=evaluation,
                    name=run.name,
                    tags=_tags(sweep_id, evaluation) | {"supsup.configuration": run.label},
                    links={PARENT: parent, "supsup.training_run": training},
                    params=_params(run.experiment, run.varied, is_evaluated=True),
                    group_id=group.group_id,
                    experiment=run.experiment,
                )
            )
    return found


def _tags(sweep_id: str, key: RunKey) -> dict[str, str]:
    return {UID: f"{sweep_id}/{key.kind}/{key.id}", KIND: key.kind, SWEEP: sweep_id}


def _params(experiment: Experiment, varied: Node, *, is_evaluated: bool) -> dict[str, str]:
    flat = {key: value for key, value in flatten(experiment.node).items() if is_evaluated or not _is_of_inference(key)}
    shown = {key: flat[key] for key in (*varied, *_ALWAYS) if key in flat}
    shown |= {key: value for key, value in varied.items() if key == VARIANT}
    return {key: str(value) for key, value in {**shown, "seed": experiment.seed}.items()}


def _is_of_inference(key: str) -> bool:
    return key == "scenario" or key.startswith(("inference.", "evaluation."))


def training_label(group: Group) -> str:
    """Returns a readable name of a group: its values of the training keys that the sweep varies, and its seed."""
    varied = [
        str(value) if key == VARIANT else f"{key.rpartition('.')[2]}={value}"
        for key, value in group.runs[0].varied.items()
        if not _is_of_inference(key)
    ]
    return " ".join(["train", *varied, f"seed={group.experiment.seed}"])


def _is_same(wanted: str, found: str) -> bool:
    return wanted == found or (len(found) >= _LONG_PARAM and wanted.startswith(found))


class FinalState(NamedTuple):
    """How an MLflow run ends. `status`: MLflow's status. `ended`: the value of the tag `supsup.ended`, or None."""

    status: str
    ended: str | None


def final_states(runs: Sequence[WantedRun], ended: Mapping[str, LaunchStatus]) -> dict[RunKey, FinalState]:
    """Returns how the MLflow runs of a sweep end, with the parent run last.

    The parent run gets the worst status of all training groups.

    ended: maps a training group's id to the group's `GroupState.ended`. A group that `ended` does not contain counts as
    interrupted.
    """
    found: dict[RunKey, FinalState] = {}
    of_groups = [ended.get(run.group_id, "interrupted") for run in runs if run.group_id is not None]
    worst = next((status for status in ("interrupted", "failed") if status in of_groups), "done")
    for run in reversed(runs):
        its = worst if run.group_id is None else ended.get(run.group_id, "interrupted")
        tag = its if run.key.kind == "evaluation" else None
        found[run.key] = FinalState(_STATUSES.get(its, "KILLED"), tag)
    return found


def machine_tags(machines: Collection[MachineKind]) -> dict[str, str]:
    """Returns the tags of an MLflow run with results from these machine kinds; {} if there are no machine kinds.

    `supsup.mixed_machines` is `true` if there are several kinds. `supsup.machines` is at most _MOST_CHARACTERS long.
    """
    if not machines:
        return {}
    text = " | ".join(str(machine) for machine in sorted(machines))
    return {
        "supsup.mixed_machines": str(len(machines) > 1).lower(),
        "supsup.machines": text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…",
    }
