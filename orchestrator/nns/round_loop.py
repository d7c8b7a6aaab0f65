"""The loop of an NNs run: open a round, decide, train, end the round, commit if a commit is due, open the next round.

A commit always covers whole rounds. Workers first write the changed masks to disk as mask versions. Then the
coordinator writes the ledger rows in one transaction. Idle workers do look-ahead training for later rounds
(`lookahead`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import Enum
from typing import final

from orchestrator.coordination.group_journal import GroupJournal
from orchestrator.coordination.messages import AdvancedMask, DecisionVector, SavedMasks
from orchestrator.coordination.settings import GroupSettings
from orchestrator.nns.allocation_record import AllocationRecord
from orchestrator.nns.commit import Commits
from orchestrator.nns.evaluations import NNsEvaluations
from orchestrator.nns.lookahead import Lookahead
from orchestrator.nns.mask_holders import MaskHolders, Preference
from orchestrator.nns.mask_versions import Lineages, evaluation_due
from orchestrator.nns.round import Round, decision_of
from orchestrator.nns.version_files import VersionFiles
from orchestrator.records.artifact_format import CorruptArtifactError
from orchestrator.records.learned_tensors import read_version
from orchestrator.records.ledgers.ledger import Entry
from orchestrator.records.machine_kind import Provenance
from orchestrator.records.rows import ArtifactLost
from orchestrator.spec.experiment import Experiment
from supsup_core.masks import codec
from supsup_core.nns.allocator import Allocator
from supsup_core.nns.streams import Segment


class Phase(Enum):
    """The phase of the loop."""

    RECOVER = "recover"  # loads the masks in use, and waits until missing versions are rebuilt
    ROUND = "round"  # waits for the decision vectors or trained masks of the current round
    SAVE = "save"  # waits until the changed masks are on disk
    OVER = "over"  # no round is left, or the group is paused or stopped


@final
class RoundLoop:
    """Runs the rounds of one NNs training group. `holders`: which worker holds each mask and does each job. `phase`:
    what the loop waits for now."""

    def __init__(
        self, settings: GroupSettings, experiment: Experiment, journal: GroupJournal, evaluations: NNsEvaluations,
        here: Provenance, paused: Callable[[], bool],
    ) -> None:  # fmt: skip
        """here: the provenance of this process. paused: a function that returns whether the group is paused or stopped.

        While `paused` returns True, the loop opens no round.
        """
        assert experiment.allocation is not None
        self.holders = MaskHolders.empty()
        self.phase = Phase.RECOVER
        self._journal, self._state = journal, journal.state
        self._evaluations = evaluations
        self._here = here
        self._paused = paused
        self._num_workers = settings.num_workers
        self._schedule = experiment.allocation.schedule
        self._lineages = Lineages.of(experiment)
        self._allocator = _make_allocator(experiment)
        rounds = [self._schedule.rounds_until(n) for n in evaluations.points]
        self._lookahead = Lookahead(
            self._schedule, self._allocator, self._lineages, rounds, self._num_workers, settings.state_mb * 1_000_000
        )
        self._record = AllocationRecord(self._schedule.segments_per_task)
        settles = self._num_workers > experiment.allocation.stream.num_streams
        self._commits = Commits(journal, self._lineages, settings.commit_every, settles)
        self._num_rounds = self._state.round
        self._round: Round | None = None
        self._replay()
        self._files = VersionFiles(journal.masks, self._lineages, self._allocator.live)
        for n in evaluations.points:
            if n in self._state.due:
                self._queue_evaluations(n)

    @property
    def is_rebuilding(self) -> bool:
        """Whether any mask version is missing on disk and must be rebuilt."""
        return bool(self._files.missing)

    def _replay(self) -> None:
        """Applies the decisions that the ledger holds."""
        decisions = [decision_of(row.event) for row in self._state.decisions]
        self._allocator.replay(decisions)
        self._record.replay(self._state.decisions)
        for row, decision in zip(self._state.decisions, decisions, strict=True):
            segment = Segment(row.event.task, row.event.segment)
            if decision.mask is not None:
                self._lineages.extend(decision.mask, segment)
            self._lookahead.add_decision(segment, decision)
        self._lookahead.start(self._num_rounds)

    def recover(self) -> None:
        """Reads every mask in use from disk. Opens the next round if no mask version is missing.

        If a version is missing, `add_rebuilt` calls this method again when all missing versions are rebuilt. Raises
        SupSupError if a mask belongs to other frozen weights than this process draws.
        """
        bits: dict[int, codec.Bits] = {}
        written = {key for row in self._state.commits for key in row.event.versions.values()}
        for number, key in self._files.current.items():
            if key not in written and key not in self._files.stored:
                self._files.mark_lost(key, needed=True)  # this run is a fork, and its origin had deleted the version
                continue
            try:
                mask, _ = read_version(self._journal.masks, key, self._here)
                bits[number] = codec.decode(mask.numpy().tobytes())[0]
            except CorruptArtifactError as error:
                self.lose(error.key, str(error))
        if not self._files.missing:
            self._allocator.fill(lambda number: bits[number])
            self._open_round()
        elif self._paused():  # a paused or stopped group rebuilds nothing
            self.phase = Phase.OVER

    def _open_round(self) -> None:
        if self._paused() or self._num_rounds == self._schedule.num_rounds:
            self.phase = Phase.OVER
            return
        self.phase = Phase.ROUND
        segments = self._schedule.round(self._num_rounds)
        self._round = Round(self._num_rounds, segments, self._allocator, self._lineages)
        if self._round.decided:
            self._use_trained_ahead(self._round)

    def _use_trained_ahead(self, now: Round) -> None:
        """Adds the look-ahead versions that round `now` needs. Ends the round if it is then complete."""
        for ahead in self._lookahead.follow_round(now.decided):
            self._add_mask(now, ahead.key, ahead.product, ahead.worker)
        if now.over:
            self._end_round(now)

    def _add_mask(self, now: Round, key: str, product: AdvancedMask, worker: int | None) -> bool:
        """Adds a trained mask to round `now`. Returns False if the round does not wait for this version.

        worker: the worker that holds the mask in memory, or None.
        """
        mask = now.add_mask(key, product)
        if mask is None:
            return False
        self._commits.dirty[mask] = None
        if worker is not None:
            self.holders.worker_of[mask] = worker
        return True

    def _end_round(self, ended: Round) -> None:
        self._round = None
        self._allocator.end_round()
        before = self._schedule.num_segments(self._num_rounds)
        self._commits.add(ended.entries(before))
        self._record.add_round(ended)
        for entry in ended.decided:
            if entry.decision.freed is not None:
                self._commits.dirty.pop(entry.decision.freed, None)
            if entry.decision.mask is not None:
                self._commits.dirty[entry.decision.mask] = None
        self._num_rounds += 1
        after = self._schedule.num_segments(self._num_rounds)
        count = self._schedule.segments_per_task
        for n in range(before // count + 1, after // count + 1):
            self._commits.add([Entry(self._record.tasks_met(n))])
        due = [n for n in self._evaluations.points if self._schedule.rounds_until(n) == self._num_rounds]
        is_last = self._num_rounds == self._schedule.num_rounds
        if due or self._commits.is_due(ended.started, self._is_beyond) or self._paused() or is_last:
            self._begin_commit(due)
        else:
            self._open_round()

    def _is_beyond(self, masks: Collection[int]) -> bool:
        return self._lookahead.is_beyond(masks, self.holders.assigned)

    def _begin_commit(self, due: Sequence[int]) -> None:
        """Begins a commit: workers write every changed mask to disk, and then `_commit` writes the rows."""
        self.phase = Phase.SAVE
        if self._commits.begin(self._num_rounds, due, self.holders.worker_of).over:
            self._commit(due)

    def _commit(self, due: Sequence[int]) -> None:
        live = self._allocator.live
        changed = {number: self._lineages.latest(number) for number in self._commits.dirty if number in live}
        current = {number: changed.get(number) or self._files.current[number] for number in live}
        tasks = self._schedule.tasks_met(self._num_rounds)
        started = time.perf_counter()
        self._commits.write(
            self._num_rounds,
            changed,
            [evaluation_due(n, tasks, current, self._record.owners) for n in due],
            self._record.training_seconds,
        )
        self._record.training_seconds = 0.0
        self._files.add(changed.values())
        for n in due:
            self._queue_evaluations(n)
        self._delete_unused(current)
        self._journal.take_snapshot_if_due(now=self._paused() or self._num_rounds == self._schedule.num_rounds)
        self._commits.end(started)
        self._open_round()

    def _delete_unused(self, current: Mapping[int, str]) -> None:
        """Makes `current` the current versions, and deletes versions that nothing references any more."""
        used = self._evaluations.needed_versions() | self._lookahead.keys()
        self._journal.dropped += self._files.advance(current, used)

    def _queue_evaluations(self, n: int) -> None:
        """Queues the evaluations of evaluation point n that are not done yet. Schedules the rebuild of the mask
        versions that these evaluations need and that are not on disk."""
        for key in self._evaluations.queue(n, self._files.stored):
            self._files.mark_lost(key, needed=True)

    def round_jobs(self) -> Iterator[Preference]:
        """Yields the jobs that the current phase waits for, and the jobs that rebuild missing versions."""
        if not self._paused() or self.phase is Phase.SAVE or self._is_training():
            for job in self._files.rebuild_jobs():
                yield Preference(job, None, only=False)
        if self.phase is Phase.ROUND and self._round is not None:
            for wanted in self._round.jobs(self._files.stored):
                holder = None if wanted.mask is None else self.holders.worker_of.get(wanted.mask)
                best = wanted.stream % self._num_workers if holder is None else holder
                yield Preference(wanted.job, best, only=holder is not None and wanted.mask in self._commits.dirty)
        elif self.phase is Phase.SAVE and self._commits.saving is not None:
            yield from self._commits.saving.jobs(self._files.stored)

    def jobs_ahead(self, exclude: Collection[str]) -> Iterator[Preference]:
        """Yields look-ahead jobs, which train masks for later rounds. exclude: the keys of jobs in flight or
        postponed."""
        if self._paused() or self.phase not in (Phase.ROUND, Phase.SAVE):
            return
        waiting = set(self._commits.dirty) if self._commits.is_settling else set()
        if self._round is not None:
            waiting |= self._round.masks_in_training()
        for ahead in self._lookahead.jobs(self._files.stored, exclude, waiting, self._num_rounds):
            best = self.holders.worker_of.get(ahead.mask) if ahead.holder is None else ahead.holder
            only = best is not None and (ahead.holder is not None or ahead.mask in self._commits.dirty)
            yield Preference(ahead.job, best, only)

    def add_vector(self, key: str, product: DecisionVector) -> None:
        """Receives the decision vector of one stream. After the last vector, the round makes its decisions."""
        if self._round is not None and self._round.add_vector(key, product):
            self._use_trained_ahead(self._round)

    def add_mask(self, key: str, product: AdvancedMask, worker: int | None) -> None:
        """Adds a trained mask to the current round, or keeps it for a later round if this round does not need it."""
        now = self._round
        if now is not None and self._add_mask(now, key, product, worker):
            if now.over:
                self._end_round(now)
        else:
            self._lookahead.keep(key, product, worker)

    def add_saved(self, key: str, product: SavedMasks) -> None:
        """Records that the save job `key` is done. Writes the rows of the commit if all save jobs are done."""
        saving = self._commits.saving
        if saving is not None and saving.add_saved(key, product) and saving.over:
            self._commit(saving.due)

    def add_rebuilt(self, version: str) -> None:
        """Records that a version was rebuilt. In phase RECOVER, continues the recovery if no version is missing now."""
        self._files.mark_rebuilt(version)
        if self.phase is Phase.RECOVER and not self._files.missing:
            self.recover()

    def add_evicted(self, keys: Collection[str]) -> None:
        """Records versions that a worker wrote to disk only to free memory. keys: the keys of these versions."""
        self._files.add_evicted(keys)

    def delete_evaluated(self, versions: set[str]) -> None:
        """Marks versions that were rebuilt for evaluations as deletable. Deletes them now if no commit follows."""
        self._files.mark_deletable(versions)
        if self.phase is Phase.OVER and not self._evaluations:
            self._delete_unused(self._files.current)

    def lose(self, key: str, reason: str) -> None:
        """Records an artifact that is missing or corrupt as lost. Quarantines a corrupt artifact.

        Schedules the rebuild of a mask version that belongs to a lineage. Does nothing if the artifact is intact.
        reason: what is wrong with the artifact.
        """
        decided = self._lineages.knows(key)
        is_version = decided or key in self._files.stored
        aside = self._journal.set_aside(self._journal.masks if is_version else self._journal.store, key)
        if aside is None:
            return
        self._files.mark_lost(key, needed=decided)
        self._journal.record(ArtifactLost(key, str(aside), reason))

    def forget_worker(self, worker: int) -> None:
        """Records that a worker died and no longer holds any mask in memory."""
        self.holders.forget_worker(worker)
        self._lookahead.forget_worker(worker)

    def bar(self, key: str) -> None:
        """Excludes a version from look-ahead training, because its training failed or its worker died."""
        self._lookahead.bar(key)

    def waits_for(self, key: str) -> bool:
        """Returns whether a decision of the current round needs the mask version with this key."""
        return self._round is not None and self._round.waits_for(key)

    def describe(self) -> str:
        """Returns a description of the current round in words, for messages."""
        return f"round {self._num_rounds}"

    def _is_training(self) -> bool:
        """Returns whether the current round is decided but not all its masks are trained."""
        return self._round is not None and bool(self._round.decided)

    def _is_worker_at_round(self) -> bool:
        """Returns whether a worker is training a mask for the current round."""
        return self._round is not None and any(self._round.waits_for(key) for key in self.holders.assigned)

    def pause(self) -> None:
        """Pauses the group: opens no further round, and commits all rows that are not committed yet.

        A commit in progress is finished first. The current round is finished if its decisions are made and one of two
        conditions holds: a worker is training for the round, or earlier rounds are not committed. In all other cases,
        the current round is discarded.
        """
        if self.phase is Phase.SAVE:
            return
        if self._is_training() and (self._commits.has_entries or self._is_worker_at_round()):
            return
        self._round = None
        if self._commits.has_entries:
            self._begin_commit([])
        else:
            self.phase = Phase.OVER


def _make_allocator(experiment: Experiment) -> Allocator:
    """Returns the allocator of an experiment. The experiment's method draws the allocator's untrained masks."""
    allocation, problem = experiment.allocation, experiment.problem("cpu")
    assert allocation is not None

    def draw(number: int) -> codec.Bits:
        blob = experiment.method.begin(problem, number).learned()["mask"]
        return codec.decode(blob.numpy().tobytes())[0]

    return Allocator(problem.layers, allocation.test, allocation.policy, allocation.capacity, draw)
