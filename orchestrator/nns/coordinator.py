"""The coordinator of scenario NNs, in which the learner is never given a task identity.

A round handles one segment of every stream. Workers compute a decision vector for each stream at the superposition of
all masks. The coordinator then makes the decisions for all streams in order, and workers train the chosen masks
(`round_loop`). The results do not depend on which worker does which job, or when.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import final

import torch

from orchestrator.coordination.coordinator import Coordinator, Progress, StalledJob
from orchestrator.coordination.evaluation_points import EvaluationPoints
from orchestrator.coordination.group_journal import GroupJournal
from orchestrator.coordination.messages import (
    AdvancedMask,
    Assignment,
    Corrupt,
    DecisionVector,
    Done,
    Failed,
    JobKind,
    Lost,
    RebuiltMask,
    Reply,
    SavedMasks,
)
from orchestrator.coordination.settings import GroupSettings
from orchestrator.nns.evaluations import NNsEvaluations
from orchestrator.nns.round_loop import Phase, RoundLoop
from orchestrator.records.group_state import LaunchStatus
from orchestrator.records.learned_tensors import provenance_here
from orchestrator.records.machine_kind import Provenance
from orchestrator.records.rows import JobFailed
from orchestrator.spec import user_modules
from orchestrator.spec.experiment import build_experiment


@final
class NNsCoordinator(Coordinator):
    """Runs the rounds of one NNs training group, and its evaluations.

    With more workers than streams, evaluations run in parallel with the rounds, on the workers with numbers
    `num_streams` and above. With fewer workers, and after the last round, evaluations are assigned before all other
    jobs.
    """

    def __init__(self, settings: GroupSettings) -> None:
        torch.set_num_threads(1)
        user_modules.load(settings.imports, settings.imports_folder)
        self._journal = GroupJournal(settings, _ledger_remedy)
        self._state = self._journal.state
        self._is_paused = self._state.stopped is not None
        self._is_trial = settings.is_trial
        self._num_workers = settings.num_workers
        experiment = build_experiment(settings.group.experiment, settings.group.seed)
        assert experiment.allocation is not None
        self._num_streams = experiment.allocation.stream.num_streams
        self._here = provenance_here(experiment.problem("cpu"), settings.threads)
        # on CUDA, the workers' kind always differs from the kind of the coordinator, which decides on a CPU
        self._deciding = self._here.machines if settings.device == "cpu" else ()
        self._evaluations = NNsEvaluations(settings.group, self._state)
        self._loop = RoundLoop(settings, experiment, self._journal, self._evaluations, self._here, lambda: self._paused)
        self._points = EvaluationPoints(self._journal, self._evaluations.points_of, self._metrics_of)
        self._points.record_complete()
        self._loop.recover()

    @property
    def _paused(self) -> bool:
        return self._is_paused or self._journal.is_fenced

    def _metrics_of(self, num_learned: int, keys: Sequence[str]) -> dict[str, float]:
        metrics = self._state.met[num_learned].event.metrics
        return {**metrics, "num_bytes": float(self._state.evaluated[keys[0]].event.facts.state_bytes)}

    def next_jobs(self, idle: Collection[int], exclude: Collection[str]) -> list[Assignment]:
        if self._state.hopeless:
            return []
        holders, free = self._loop.holders, set(idle)
        assignments: list[Assignment] = []
        beside = self._num_workers > self._num_streams and self._loop.phase is not Phase.OVER
        if not beside:
            assignments += self._assign_evaluations(free, exclude)
        assignments += holders.assign(self._loop.round_jobs(), free, exclude)
        if beside:
            found = self._assign_evaluations({worker for worker in free if worker >= self._num_streams}, exclude)
            free -= {assignment.worker for assignment in found}
            assignments += found
        return assignments + holders.assign(self._loop.jobs_ahead(exclude), free, exclude)

    def _assign_evaluations(self, free: set[int], exclude: Collection[str]) -> list[Assignment]:
        if self._paused or self._loop.is_rebuilding:
            return []
        assignments = self._evaluations.assign(free, exclude)
        self._loop.holders.assigned |= {assignment.job.key: assignment.worker for assignment in assignments}
        return assignments

    def report(self, reply: Reply) -> None:
        if reply.key not in self._state.evaluated:
            worker = self._loop.holders.release(reply.key)
            if isinstance(reply, Done):
                self._apply_done(reply, worker)
            else:
                self._apply_trouble(reply, worker)
        self._journal.take_snapshot_after_reply()

    def _apply_done(self, reply: Done, worker: int | None) -> None:
        if reply.provenance is not None and not self._accepts(reply.key, reply.provenance):
            return
        self._loop.add_evicted(reply.evicted)
        match reply.product:
            case DecisionVector() as vector:
                self._loop.add_vector(reply.key, vector)
            case AdvancedMask() as mask:
                self._loop.add_mask(reply.key, mask, worker)
            case SavedMasks() as saved:
                self._loop.add_saved(reply.key, saved)
            case RebuiltMask(version=version):
                self._loop.add_rebuilt(version)
            case results:
                self._journal.record_results(results)
                self._loop.delete_evaluated(self._evaluations.remove(reply.key))
                self._points.record_complete()

    def _accepts(self, key: str, provenance: Provenance) -> bool:
        """Adds the machines of a product to the next commit. Returns False, and records that the job failed, if the
        product was computed with other frozen weights than this process draws."""
        if provenance.fits(self._here):
            self._journal.machines.update(provenance.machines, self._deciding)
            return True
        error = (
            "a worker and the coordinator draw different frozen weights from the same seed (the worker has "
            f"{provenance.versions}, and the coordinator has {self._here.versions}); install the same versions on "
            "every node"
        )
        self._journal.record(JobFailed(key, self._loop.describe(), error, ""))
        return False

    def _apply_trouble(self, reply: Reply, worker: int | None) -> None:
        if isinstance(reply, Lost) and worker is not None:
            self._loop.forget_worker(worker)  # the worker's masks are lost; no job may wait for this worker
        if isinstance(reply, Failed | Lost) and reply.kind == "advance" and not self._loop.waits_for(reply.key):
            self._loop.bar(reply.key)
            return
        match reply:
            case Corrupt():
                self._loop.lose(reply.artifact, reply.reason)
            case Failed(diverged=True) if self._is_trial:
                self._give_up(reply.error)
            case Failed():
                self._journal.record_failure(reply, self._describe(reply.key, reply.kind))
            case Lost():
                self._journal.record_death(reply, self._describe(reply.key, reply.kind))

    def _describe(self, key: str, kind: JobKind) -> str:
        """Returns a description of the job in words, for messages."""
        words = "training" if kind == "advance" else kind
        return self._evaluations.describe(key) or f"{self._loop.describe()} ({words})"

    def _give_up(self, diverged: str | None = None) -> None:
        self._is_paused = True
        self._journal.record_stop(diverged)

    def pause(self) -> None:
        self._is_paused = True
        self._loop.pause()

    def stop(self) -> None:
        if not self.finished():
            self._give_up()
            self._loop.pause()

    def cancel(self, tasks: Sequence[int]) -> list[str]:
        return []

    def note_stalled(self, stalled: StalledJob) -> None:
        self._journal.record_stalled(stalled, self._describe(stalled.key, stalled.kind))

    def finished(self) -> bool:
        if self._state.hopeless:
            return True
        return self._loop.phase is Phase.OVER and (self._paused or not (self._evaluations or self._loop.is_rebuilding))

    def progress(self) -> Progress:
        last = max(self._state.points.values(), key=lambda row: row.seq, default=None)
        accuracy = last.event.metrics["accuracy"] if last else 0.0
        return Progress(self._state.done_shards(), self._state.done_evaluations(), accuracy)

    def judged(self) -> list[tuple[int, float]]:
        return self._journal.judged()

    def end(self) -> LaunchStatus:
        return self._journal.end(self._paused)

    def close(self) -> None:
        self._journal.close()


def _ledger_remedy(restored: bool) -> str:
    if restored:
        return (
            "the ledger was missing or damaged, and was restored from its intact rows or from its newest snapshot; "
            "later rounds are repeated, and a damaged ledger is kept as this file"
        )
    return (
        "the ledger was missing or damaged, and no snapshot is intact; the run starts from its first round, and a "
        "damaged ledger is kept as this file"
    )
