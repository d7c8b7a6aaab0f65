"""Plans training groups: which tasks must be trained, and which evaluations must be done, for the runs of a sweep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.base.keys import content_key, prefix_keys
from orchestrator.base.plain_values import Node
from orchestrator.records.planned_group import Evaluation, GroupSize, PlannedGroup, PlannedRun, Shard
from orchestrator.spec.experiment import Experiment
from orchestrator.spec.sweep_keys import MOST_RUNS, NNS_KEYS
from orchestrator.spec.user_modules import source_digest
from supsup_core import RECIPE_VERSION
from supsup_core.errors import InputError
from supsup_core.evaluation.protocol import EVALUATION_VERSION
from supsup_core.inference import OBJECTIVES, RULES
from supsup_core.later_fields import identity_fields
from supsup_core.methods import Dependence

VARIANT = "variant"
"""The key of `Run.varied` that holds the name of a run's variant."""


_MOST_PLANNED = 2_000_000
"""The largest number of tasks, segments and evaluations of all runs of a sweep. The plan lists all tasks, segments and
evaluations."""


@dataclass(frozen=True)
class Run:
    """One configuration with one seed. `varied`: the variant's name, and the run's values of the keys that vary."""

    experiment: Experiment
    varied: Node

    @property
    def label(self) -> str:
        """A readable name without the seed: variant, scenario, inference, and the other varied values."""
        inference = self.experiment.inference
        parts = [str(self.varied[VARIANT])] if VARIANT in self.varied else []
        parts.append(self.experiment.scenario.name)
        if not self.experiment.scenario.given_at_inference:
            parts += [inference.rule, inference.objective]
        if self.experiment.allocation is not None:
            parts.append(str(self.experiment.node["allocation"]["name"]))
        shown = {VARIANT, "scenario", "inference.rule", "inference.objective", "allocation.name"}
        for key, value in self.varied.items():
            meant = self.experiment.allocation is not None or key.split(".")[0] not in NNS_KEYS
            if key not in shown and meant:
                last = key.rpartition(".")[2]
                parts.append(str(value) if last == "name" else f"{last}={value}")
        return " ".join(parts)

    @property
    def name(self) -> str:
        """A readable name: the label and the seed."""
        return f"{self.label} seed={self.experiment.seed}"

    @property
    def run_id(self) -> str:
        """The content key of everything that determines the run's accuracies.

        The key does not include `evaluation.forgetting`, which changes no accuracy. The key includes EVALUATION_VERSION
        and, in scenario NNs, NNS_VERSION. Developers raise these numbers when a change of the code alters results.
        """
        experiment = self.experiment
        return content_key(
            {
                "training": experiment.training_identity(),
                "scenario": experiment.scenario.name,
                "inference": inference_identity(experiment),
                "points": experiment.evaluation.points(experiment.num_tasks),
                "num_tasks": experiment.num_tasks,
            },
            12,
        )


@dataclass(frozen=True)
class Group:
    """A training group: all runs of a sweep that need the same trained tasks.

    `points[r][n]`: for run r and evaluation point n, the keys of the evaluations of tasks 0..n-1. `when_learned[r][i]`:
    for run r and task i, the key of the task's evaluation directly after it was learned (see PlannedRun). In scenario
    NNs, `shards`, `evaluations`, `points[r][n]` and `when_learned[r]` are empty, because decisions during training
    determine the masks. In scenario NNs, `size` counts the data of one task as one shard.
    """

    group_id: str
    runs: tuple[Run, ...]
    shards: tuple[Shard, ...]
    evaluations: tuple[Evaluation, ...]
    points: tuple[dict[int, tuple[str, ...]], ...]
    when_learned: tuple[tuple[str, ...], ...]

    @property
    def experiment(self) -> Experiment:
        """The experiment of the run with the most tasks.

        The shards of this run include those of the other runs, because all runs of the group have the same training
        settings.
        """
        return max((run.experiment for run in self.runs), key=lambda experiment: experiment.num_tasks)

    @property
    def width(self) -> int | None:
        """The number of tasks that can be trained at the same time; None in NNs, where idle workers do look-ahead
        training."""
        if self.experiment.allocation is not None:
            return None
        return 1 if self.experiment.method.dependence is Dependence.SEQUENTIAL else len(self.shards)

    @property
    def size(self) -> GroupSize:
        """The number of shards to train, and the number of evaluations."""
        allocation = self.experiment.allocation
        if allocation is None:
            return GroupSize(len(self.shards), len(self.evaluations))
        schedule = allocation.schedule
        wanted = {
            (content_key(inference_identity(run.experiment)), n)
            for run, points in zip(self.runs, self.points, strict=True)
            for n in points
        }
        met = [schedule.tasks_met(schedule.rounds_until(n)) for _, n in wanted]
        return GroupSize(self.experiment.num_tasks, sum(map(len, met)))

    def planned(self) -> PlannedGroup:
        """Returns the group in the form that its ledger records and that coordinators and workers receive."""
        experiment = self.experiment
        allocation = experiment.allocation
        return PlannedGroup(
            group_id=self.group_id,
            seed=experiment.seed,
            size=self.size,
            num_streams=allocation.stream.num_streams if allocation else None,
            segments_per_task=allocation.schedule.segments_per_task if allocation else None,
            experiment=experiment.node,
            shards=self.shards,
            evaluations=self.evaluations,
            runs=tuple(
                PlannedRun(
                    run_id=run.run_id,
                    name=run.name,
                    label=run.label,
                    varied=run.varied,
                    experiment=run.experiment.node,
                    inference_id=content_key(inference_identity(run.experiment)),
                    points=points,
                    when_learned=when_learned,
                )
                for run, points, when_learned in zip(self.runs, self.points, self.when_learned, strict=True)
            ),
        )


def training_id(experiment: Experiment) -> str:
    """Returns the id of an experiment's training group: the content key of all settings that affect training."""
    return content_key(experiment.training_identity(), 12)


def mask_id(experiment: Experiment) -> str:
    """Returns a content key of everything that determines a trained mask, except its task and that task's parents."""
    return content_key({"recipe_version": RECIPE_VERSION, **experiment.mask_identity()})


def shard_keys(experiment: Experiment, num_tasks: int) -> list[Shard]:
    """Returns the shards of tasks 0..num_tasks-1.

    A shard's key is a hash that includes the keys of the shard's parents. The key therefore depends on all tasks that
    the shard's task builds on.
    """
    identity = mask_id(experiment)
    shards: list[Shard] = []
    for task in range(num_tasks):
        parents = tuple(shards[parent].key for parent in experiment.method.dependence.parents(task))
        key = content_key({"training": identity, "task": task, "parents": parents})
        shards.append(Shard(key, task, parents))
    return shards


def limited_runs(runs: Iterable[Run]) -> Iterator[Run]:
    """Yields the runs.

    Raises InputError, which names the keys, when the runs so far are together too large to be planned. The size of a
    run is the number of its tasks and evaluations. In scenario NNs, the size is the number of segments, times one plus
    the number of evaluation points.
    """
    size = 0
    for number, run in enumerate(runs, start=1):
        experiment = run.experiment
        points = experiment.evaluation.points(experiment.num_tasks)
        if experiment.allocation is None:
            size += 2 * experiment.num_tasks + sum(points)
        else:
            size += experiment.allocation.schedule.num_segments(experiment.allocation.schedule.num_rounds) * (
                1 + len(points)
            )
        if number > MOST_RUNS or size > _MOST_PLANNED:
            raise InputError(
                f"benchmark.num_tasks: the first {number:,} runs have {size:,} tasks, segments and evaluations, but a "
                f"sweep may have at most {_MOST_PLANNED:,}, and at most {MOST_RUNS:,} runs; lower benchmark.num_tasks, "
                "list fewer numbers in evaluation.at, or divide the sweep into several sweeps"
            )
        yield run


def make_plan(runs: Sequence[Run]) -> list[Group]:
    """Returns the training groups of these runs, in order of their first runs. Runs with equal ids are deduplicated."""
    grouped: dict[str, dict[str, Run]] = {}
    for run in runs:
        group_id = training_id(run.experiment)
        grouped.setdefault(group_id, {}).setdefault(run.run_id, run)
    return [_group(group_id, tuple(members.values())) for group_id, members in grouped.items()]


def share_workers(groups: Sequence[Group], most: int) -> dict[str, int]:
    """Returns how many workers each group gets, by group id. most: the largest number of workers per group.

    A group that cannot train `most` tasks at once gets fewer workers, so that several such groups run at the same time.
    A group with fewer workers gets one worker for each task that the group can train at once, but at least `most`
    divided by the number of such groups. Workers that cannot train do evaluations.
    """
    narrow = sum(group.width is not None and group.width < most for group in groups)
    share = most // max(1, narrow)
    return {group.group_id: most if group.width is None else min(most, max(group.width, share)) for group in groups}


def _group(group_id: str, runs: tuple[Run, ...]) -> Group:
    longest = max(runs, key=lambda run: run.experiment.num_tasks).experiment
    if longest.allocation is not None:
        wanted = [run.experiment.evaluation.points(run.experiment.num_tasks) for run in runs]
        unknown: list[dict[int, tuple[str, ...]]] = [dict.fromkeys(points, ()) for points in wanted]
        return Group(group_id, runs, (), (), tuple(unknown), ((),) * len(runs))
    shards = shard_keys(longest, longest.num_tasks)
    all_masks = prefix_keys([shard.key for shard in shards])
    evaluations: dict[str, Evaluation] = {}
    points, when_learned = [], []
    for number, run in enumerate(runs):
        experiment = run.experiment
        at = experiment.evaluation.points(experiment.num_tasks)
        alone = experiment.scenario.given_at_inference and _is_final(experiment)
        keys = _EvaluationKeys(shards, all_masks, content_key(inference_identity(experiment)), alone)
        per_point = {n: keys.after(n, range(n)) for n in at}
        num_earlier = max(at) - 1 if experiment.evaluation.forgetting else 0
        earlier = tuple(keys.after(task + 1, [task])[0] for task in range(num_earlier))
        for n, its_keys in per_point.items():  # before `earlier`, because one learner then evaluates several tasks
            for task, key in enumerate(its_keys):
                evaluations.setdefault(key, Evaluation(key, task, n, number))
        for task, key in enumerate(earlier):
            evaluations.setdefault(key, Evaluation(key, task, task + 1, number))
        points.append(per_point)
        when_learned.append(earlier)
    ordered = sorted(evaluations.values(), key=lambda evaluation: evaluation.num_learned)
    return Group(group_id, runs, tuple(shards), tuple(ordered), tuple(points), tuple(when_learned))


class _EvaluationKeys(NamedTuple):
    """Computes the keys of the evaluations of one run.

    `all_masks[n]`: the content key of the keys of the first n shards. `inference`: the content key of the inference
    settings. `alone`: whether the other tasks learned so far do not affect an evaluation.
    """

    shards: Sequence[Shard]
    all_masks: Sequence[str]
    inference: str
    alone: bool

    def after(self, num_learned: int, tasks: Iterable[int]) -> tuple[str, ...]:
        """Returns the keys of the evaluations of `tasks` after `num_learned` tasks were learned."""
        return tuple(
            content_key(
                {
                    "inference": self.inference,
                    "masks": self.shards[task].key if self.alone else self.all_masks[num_learned],
                    "task": task,
                }
            )
            for task in tasks
        )


def _is_final(experiment: Experiment) -> bool:
    """Returns whether a learned task never changes later.

    If a learned task never changes and the task is given at inference, one evaluation is valid at all evaluation
    points.
    """
    return experiment.method.dependence is not Dependence.SEQUENTIAL


def inference_identity(experiment: Experiment) -> Node:
    """Returns everything that determines an evaluation, except the masks and the task. Content keys include the
    result."""
    inference = experiment.inference
    return {
        "version": EVALUATION_VERSION,
        "given": experiment.scenario.given_at_inference,
        "inference": identity_fields(inference),
        "rule_source": source_digest(RULES[inference.rule]),
        "objective_source": source_digest(OBJECTIVES[inference.objective]),
    }
