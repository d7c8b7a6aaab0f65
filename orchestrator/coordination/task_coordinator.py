"""The coordinator for all scenarios except NNs. The group's plan lists all shards and evaluations in advance."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import final

from orchestrator.coordination.coordinator import Coordinator, Progress, StalledJob
from orchestrator.coordination.evaluation_points import DonePrefix, EvaluationPoints, Points
from orchestrator.coordination.group_journal import GroupJournal
from orchestrator.coordination.messages import (
    Assignment,
    Corrupt,
    Done,
    EvaluateJob,
    Failed,
    Job,
    Lost,
    Reply,
    Result,
    TrainJob,
)
from orchestrator.coordination.settings import GroupSettings
from orchestrator.coordination.shard_stacks import ShardStacks
from orchestrator.coordination.task_checkpoint import StoredCheckpoint
from orchestrator.records.artifact_format import Artifact, CorruptArtifactError
from orchestrator.records.facts import EvaluatedFacts, TrainedFacts
from orchestrator.records.group_state import LaunchStatus
from orchestrator.records.planned_group import Evaluation, PlannedRun, Shard
from orchestrator.records.rows import ArtifactLost, JobSplit, ShardTrained, TaskCancelled, TaskEvaluated
from supsup_core.errors import CorruptError


@final
class TaskCoordinator(Coordinator):
    """Assigns jobs that train tasks, in order of their numbers, and jobs that evaluate trained tasks.

    A task is trained only after the tasks on which it depends. Evaluations usually have priority over training, so that
    a long run reports accuracies early. Training has priority if tasks depend on other tasks and the group has several
    workers. In a search, evaluations always have priority, because the search compares trials by their accuracies.
    """

    def __init__(self, settings: GroupSettings) -> None:
        self._journal = GroupJournal(settings, _ledger_remedy)
        self._group, self._state = settings.group, self._journal.state
        self._keys = [shard.key for shard in self._group.shards]
        self._is_trial = settings.is_trial
        waiting = any(shard.parents for shard in self._group.shards)
        self._evaluations_first = settings.is_trial or settings.num_workers == 1 or not waiting
        self._is_paused = self._state.stopped is not None
        self._abandoned: set[str] = set()
        self._stacks = ShardStacks(self._group.shards, settings.tasks_at_once)
        self._cut_stacks()
        self._trained = DonePrefix(self._keys)
        self._points = EvaluationPoints(self._journal, self._points_of, self._metrics_of)
        if not settings.continues_launch:
            self._verify_artifacts()
        self._points.record_complete()
        needed = self._state.needed_evaluations()
        self._evaluations = [evaluation for evaluation in self._group.evaluations if evaluation.key in needed]
        self._evaluation_queue = deque(self._evaluations)

    def _cut_stacks(self) -> None:
        self._stacks.cut(self._state.split, self._state.cancelled)

    @property
    def _paused(self) -> bool:
        return self._is_paused or self._journal.is_fenced

    def _verify_artifacts(self) -> None:
        """Verifies the artifacts of the group's shards and evaluations.

        Records intact artifacts that the ledger does not list yet, and lists missing and corrupt artifacts as lost.
        Skips evaluations that are in the ledger, because the ledger holds their counts.
        """
        store = self._journal.store
        for key in [*self._keys, *self._group.evaluations_by_key]:
            if key in self._state.evaluated:
                continue
            known = key in self._state.trained
            if not known and not store.has(key):
                continue
            try:
                result = result_of(store.require(key))
            except CorruptArtifactError as error:
                self._lose(error.key, str(error))
                continue
            if not known:
                StoredCheckpoint(store, key).clear()
                self._journal.record_results([result])

    def _lose(self, key: str, reason: str) -> None:
        """Records a missing or corrupt artifact as lost, so that it is computed again. Quarantines a corrupt artifact.

        Does nothing if the artifact is intact. reason: a message that says what is wrong with the artifact.
        """
        aside = self._journal.set_aside(self._journal.store, key)
        self._trained.reset()
        if aside is not None:
            self._journal.record(ArtifactLost(key, str(aside), reason, self._task_of(key)))

    def next_jobs(self, idle: Collection[int], exclude: Collection[str]) -> list[Assignment]:
        if self._state.failed or self._paused:
            return []
        jobs = self._ready(len(idle), set(exclude))
        while self._evaluation_queue and self._evaluation_queue[0].key in self._state.evaluated:
            self._evaluation_queue.popleft()
        return [Assignment(worker, job) for worker, job in zip(sorted(idle, reverse=True), jobs, strict=False)]

    def _ready(self, count: int, exclude: Collection[str]) -> list[Job]:
        """Returns at most `count` jobs that can start now. exclude: keys of jobs that are not returned."""
        kinds: list[Iterator[Job]] = [self._train_jobs(exclude), self._evaluate_jobs(exclude)]
        if self._evaluations_first:
            kinds.reverse()
        return list(itertools.islice(itertools.chain(*kinds), count))

    def _train_jobs(self, exclude: Collection[str]) -> Iterator[TrainJob]:
        trained = self._state.trained
        for key, stack in self._stacks.starting_at(self._num_trained_prefix()):
            if key in exclude or all(shard.key in trained for shard in stack):
                continue
            if all(parent in trained for shard in stack for parent in shard.parents):
                yield TrainJob(key, tuple(stack), self._group.experiment, self._group.seed)

    def _evaluate_jobs(self, exclude: Collection[str]) -> Iterator[EvaluateJob]:
        prefix = self._num_trained_prefix()
        for evaluation in self._evaluation_queue:
            if evaluation.num_learned > prefix:
                return
            if evaluation.key not in self._state.evaluated and evaluation.key not in exclude:
                yield self._evaluate_job(evaluation)

    def _evaluate_job(self, evaluation: Evaluation) -> EvaluateJob:
        run = self._group.runs[evaluation.run]
        return EvaluateJob(
            key=evaluation.key,
            task=evaluation.task,
            num_learned=evaluation.num_learned,
            right=(evaluation.task,),
            experiment=run.experiment,
            inference_id=run.inference_id,
            seed=self._group.seed,
        )

    def _num_trained_prefix(self) -> int:
        return self._trained.length(self._state.trained)

    def report(self, reply: Reply) -> None:
        is_abandoned = reply.key in self._abandoned and not isinstance(reply, Done)
        is_recorded = reply.key in self._state.trained or reply.key in self._state.evaluated
        if not is_abandoned and not is_recorded:
            self._apply(reply)
        self._journal.take_snapshot_after_reply()

    def _apply(self, reply: Reply) -> None:
        match reply:
            case Done(product=tuple() as results):
                self._journal.record_results(results)
                self._points.record_complete()
            case Corrupt():
                self._lose(reply.artifact, reply.reason)
            case Failed(out_of_memory=True) if self._split(reply.key, reply.error):
                pass
            case Lost(out_of_memory=True) if self._split(reply.key, reply.reason):
                pass
            case Failed(diverged=True) if self._is_trial:
                self._give_up(reply.error)
            case Failed():
                self._journal.record_failure(reply, self._describe(reply.key))
            case Lost():
                self._journal.record_death(reply, self._describe(reply.key))

    def _split(self, key: str, reason: str) -> bool:
        """Splits a job that did not fit into memory into two jobs, each with half of the tasks.

        Returns False if the job cannot be split, because it trains only one task or is an evaluation.
        """
        stack = self._stacks.find(key)
        if stack is None or len(stack) == 1:
            return False
        self._journal.record(JobSplit(key, reason.splitlines()[0]))
        self._cut_stacks()
        return True

    def _give_up(self, diverged: str | None = None) -> None:
        self._is_paused = True
        self._journal.record_stop(diverged)

    def pause(self) -> None:
        self._is_paused = True

    def stop(self) -> None:
        if not self.finished():
            self._give_up()

    def cancel(self, tasks: Sequence[int]) -> list[str]:
        cancelled = {
            shard.key: shard.task
            for shard in self._group.shards
            if shard.task in tasks and shard.key not in self._state.trained
        }
        # a task that an earlier process cancelled is in no stack, but a worker may still train it under its own key
        jobs = self._stacks.jobs_with(cancelled) | cancelled.keys()
        for key, task in cancelled.items():
            if key not in self._state.cancelled:
                self._journal.record(TaskCancelled(key, task))
        self._abandoned.update(jobs)
        self._cut_stacks()
        return sorted(jobs)

    def note_stalled(self, stalled: StalledJob) -> None:
        self._journal.record_stalled(stalled, self._describe(stalled.key))

    def _describe(self, key: str) -> str:
        """Returns a description of a job in words, for messages."""
        if key in self._group.evaluations_by_key:
            return f"evaluation of task {self._task_of(key)}"
        stack = self._stacks.find(key)
        if stack is None:
            return "the training of several tasks, of which some are cancelled"
        first, last = stack[0].task, stack[-1].task
        return f"task {first}" if len(stack) == 1 else f"tasks {first} to {last}"

    def _task_of(self, key: str) -> int | None:
        found: Shard | Evaluation | None = self._group.shards_by_key.get(key) or self._group.evaluations_by_key.get(key)
        return None if found is None else found.task

    def _points_of(self, run: PlannedRun) -> Points:
        prefix = self._num_trained_prefix()
        return {n: keys for n, keys in run.points.items() if n <= prefix}

    def _metrics_of(self, num_learned: int, keys: Sequence[str]) -> dict[str, float]:
        facts = [self._state.trained[key].event.facts for key in self._keys[:num_learned]]
        return {"num_bytes": float(sum(fact.num_bytes for fact in facts) + facts[-1].shared_bytes)}

    def finished(self) -> bool:
        if self._state.failed or self._paused:
            return True
        if self._state.cancelled:
            return not any(self._ready(1, ()))
        return all(key in self._state.trained for key in self._keys) and all(
            evaluation.key in self._state.evaluated for evaluation in self._evaluations
        )

    def progress(self) -> Progress:
        accuracies = [row.event.facts.accuracy for row in self._state.trained.values()]
        known = [value for value in accuracies if value is not None]
        mean = sum(known) / len(known) if known else 0.0
        return Progress(self._state.done_shards(), self._state.done_evaluations(), mean)

    def judged(self) -> list[tuple[int, float]]:
        return self._journal.judged()

    def end(self) -> LaunchStatus:
        return self._journal.end(self._paused)

    def close(self) -> None:
        self._journal.close()


def _ledger_remedy(restored: bool) -> str:
    if restored:
        return (
            "the ledger was missing or damaged, and was restored from its intact rows or from its newest snapshot; a "
            "damaged ledger is kept as this file"
        )
    return (
        "the ledger was missing or damaged, and no snapshot is intact; a new ledger was built from the store, and a "
        "damaged ledger is kept as this file"
    )


def result_of(artifact: Artifact) -> Result:
    """Returns the ledger event for a trained task or an evaluation that is in the store.

    Raises CorruptError if the artifact is neither of the two.
    """
    match artifact.facts:
        case TrainedFacts() as facts:
            return ShardTrained(artifact.key, facts, artifact.sha256)
        case EvaluatedFacts() as facts:
            return TaskEvaluated(artifact.key, facts, artifact.sha256)
        case _:
            raise CorruptError(f"the artifact {artifact.key} is neither a trained task nor an evaluation")
