"""The coordinator of NNs: rounds of decisions and training, with no task identity given to anyone.

A round takes one segment of every stream: workers compute the slopes' vectors at the superposition of all
masks, the coordinator decides for all streams in order, workers train the chosen masks. What is committed is
always whole rounds: first the masks that changed, as versions on disk, then the ledger's rows in one
transaction. Workers with nothing to do train masks of later rounds ahead (`stream_ahead`). Nothing depends on which
worker does what, or when.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from orchestrator.coordination.coordinator import Coordinator, Points
from orchestrator.coordination.messages import Job, Outcome
from orchestrator.nns.evaluations import StreamEvaluations
from orchestrator.nns.lookahead import Ahead
from orchestrator.nns.mask_versions import Lineages, due_point
from orchestrator.nns.round import Round, decision_of
from orchestrator.nns.version_files import Saving, StreamVersions
from orchestrator.records.artifact_store import CorruptArtifactError
from orchestrator.records.learned_tensors import read_mask
from orchestrator.records.ledger import Entry
from orchestrator.spec import user_modules
from orchestrator.spec.experiment import build_experiment
from supsup_core.evaluation.metrics import AllocationTally
from supsup_core.masks import codec
from supsup_core.nns.allocator import Allocator
from supsup_core.nns.streams import Segment


class _Phase(Enum):
    RECOVER = "recover"  # masks that the ledger knows are missing on disk
    ROUND = "round"
    SAVE = "save"
    OVER = "over"  # no round is left, or the group is paused


_Wanted = tuple[Job, int | None, bool]
"""A job, the worker that does it best (None: any), and whether that one alone is to do it."""


class StreamCoordinator(Coordinator):
    """Runs the rounds of one NNs group, and its evaluations beside or between them."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """settings, beside Coordinator's: imports, folder, commit_every (seconds), state_mb."""
        torch.set_num_threads(1)
        user_modules.load(settings["imports"], Path(settings["folder"]))
        super().__init__(settings)
        self._commit_every: float = settings["commit_every"]
        self._ahead_bytes = settings["state_mb"] * 1_000_000
        experiment = build_experiment(self._group["experiment"], self._group["seed"])
        assert experiment.allocation is not None
        self._allocation = experiment.allocation
        self._schedule = self._allocation.schedule
        problem = experiment.problem("cpu")
        self._lineages = Lineages.of(experiment)
        self._tally = AllocationTally()

        def draw(number: int) -> codec.Bits:
            blob = experiment.method.begin(problem, number).learned()["mask"]
            return codec.decode(blob.numpy().tobytes())[0]

        allocation = self._allocation
        self._allocator = Allocator(problem.layers, allocation.test, allocation.policy, allocation.capacity, draw)
        self._resume()

    @staticmethod
    def _ledger_remedy(restored: bool) -> str:
        if restored:
            return "corrupt ledger set aside; its last snapshot took its place, and what came since is done again"
        return "corrupt ledger set aside, without a snapshot: the run starts again"

    def _resume(self) -> None:
        """Take up what is committed: the books at once, the masks as far as they are on disk."""
        self._num_rounds = self._state.round
        self._round: Round | None = None
        decisions = [decision_of(row.payload) for row in self._state.decisions]
        self._allocator.replay(decisions)
        self._evaluations = StreamEvaluations(self._group, self._state)
        points = [self._schedule.rounds_until(n) for n in self._evaluations.points]
        self._ahead = Ahead(
            self._schedule, self._allocator, self._lineages, points, self._num_workers, self._ahead_bytes
        )
        for row, decision in zip(self._state.decisions, decisions, strict=True):
            segment = Segment(row.payload["task"], row.payload["segment"])
            if decision.mask is not None:
                self._lineages.extend(decision.mask, segment)
            self._ahead.note(segment, decision)
            self._tally.add(segment.task, decision.mask, decision.freed)
        self._ahead.start(self._num_rounds)
        self._kept = StreamVersions(self._versions, self._lineages, self._allocator.live)
        self._saving: Saving | None = None
        self._dirty: dict[int, None] = {}
        self._holders: dict[int, int] = {}
        self._assigned: dict[str, int] = {}
        self._uncommitted: list[Entry] = []
        self._recent = deque(
            ((row.payload["margin"], row.payload["latency"], row.payload["seconds"]) for row in self._state.decisions),
            maxlen=self._schedule.segments_per_task,
        )
        self._training_seconds = 0.0
        self._commit_seconds = 0.0
        self._settling = False
        self._last_commit = time.monotonic()
        for n in self._evaluations.points:
            if n in self._state.due:
                self._queue_evaluations(n)
        self._complete_points()
        self._phase = _Phase.RECOVER
        self._recover()

    def _recover(self) -> None:
        """Read every live mask; go on once none is missing."""
        bits: dict[int, codec.Bits] = {}
        written = {key for row in self._state.commits for key in row.payload["versions"].values()}
        for number, key in self._kept.current.items():
            if key not in written and key not in self._kept.stored:
                self._kept.lose(key, needed=True)  # a fork's, which its origin keeps no longer
                continue
            try:
                bits[number] = codec.decode(read_mask(self._versions, key).numpy().tobytes())[0]
            except CorruptArtifactError as error:
                self._lose(error.key, str(error))
        if not self._kept.missing:
            self._allocator.fill(lambda number: bits[number])
            self._open_round()
        elif self._paused:  # given up: nothing is made again for it
            self._phase = _Phase.OVER

    # --- rounds

    def _open_round(self) -> None:
        if self._paused or self._num_rounds == self._schedule.num_rounds:
            self._phase = _Phase.OVER
            return
        self._phase = _Phase.ROUND
        segments = self._schedule.round(self._num_rounds)
        self._round = Round(self._num_rounds, segments, self._allocator, self._lineages)
        if self._round.steps:
            self._decided(self._round)

    def _decided(self, now: Round) -> None:
        """Take what was trained ahead for a round that has been decided."""
        for outcome, worker in self._ahead.follow(now.steps):
            self._take_mask(now, outcome, worker)
        if now.over:
            self._end_round(now)

    def _take_mask(self, now: Round, outcome: Outcome, worker: int | None) -> bool:
        mask = now.take_mask(outcome)
        if mask is None:
            return False
        self._dirty[mask] = None
        if worker is not None:
            self._holders[mask] = worker
        return True

    def _end_round(self, ended: Round) -> None:
        self._round = None
        self._allocator.end_round()
        self._uncommitted += ended.entries(self._schedule.num_segments(self._num_rounds))
        for step in ended.steps:
            self._tally.add(step.segment.task, step.decision.mask, step.decision.freed)
            if step.decision.freed is not None:
                self._dirty.pop(step.decision.freed, None)
            if step.decision.mask is not None:
                self._dirty[step.decision.mask] = None
            self._training_seconds += step.seconds
            self._recent.append((step.decision.margin, ended.latency, step.seconds))
        before = self._schedule.num_segments(self._num_rounds)
        self._num_rounds += 1
        after = self._schedule.num_segments(self._num_rounds)
        count = self._schedule.segments_per_task
        for n in range(before // count + 1, after // count + 1):
            self._uncommitted.append(("met", self._met_payload(n), None))
        due = [n for n in self._evaluations.points if self._schedule.rounds_until(n) == self._num_rounds]
        if due or self._commits_now(ended) or self._paused or self._num_rounds == self._schedule.num_rounds:
            self._begin_commit(due)
        else:
            self._open_round()

    def _commits_now(self, ended: Round) -> bool:
        """Whether another round would be one too many before a commit.

        A mask that a worker has gone on with, further than is decided, would have to be trained again to be put on
        disk. So from half the time on, a commit waits for a moment without any, and none is gone on with meanwhile.
        """
        now = time.monotonic()
        elapsed = now + (now - ended.started) - self._last_commit
        if elapsed > self._commit_every:
            return True
        self._settling = self._num_workers > self._allocation.stream.num_streams and 2 * elapsed > self._commit_every
        return self._settling and not self._ahead.is_beyond(self._dirty, self._assigned)

    def _met_payload(self, n: int) -> dict[str, Any]:
        """The books after n tasks' worth of data, with the last task's worth of margins and times."""
        margins, latencies, seconds = zip(*self._recent, strict=True)
        return {
            "num_learned": n, "metrics": {**self._tally.metrics(), "margin": fmean(margins)},
            "latency": fmean(latencies), "seconds": sum(seconds),
        }  # fmt: skip

    # --- commits

    def _begin_commit(self, due: Sequence[int]) -> None:
        """Have every mask that changed put on disk; then the rows follow."""
        self._phase = _Phase.SAVE
        self._settling = True
        self._saving = Saving(self._num_rounds, due, self._dirty, self._holders, self._lineages)
        if self._saving.over:
            self._commit(self._saving)

    def _commit(self, saved: Saving) -> None:
        changed = {number: self._lineages[number].keys[-1] for number in self._dirty if number in self._allocator.live}
        current = {number: changed.get(number) or self._kept.current[number] for number in self._allocator.live}
        for n in saved.due:
            tasks = self._schedule.tasks_met(self._num_rounds)
            self._uncommitted.append(("due", due_point(n, tasks, current, self._tally.owners), None))
        self._uncommitted.append(
            ("committed", {
                "round": self._num_rounds, "versions": changed, "num_bytes": saved.num_bytes,
                "training_seconds": self._training_seconds,
                "seconds": self._commit_seconds + time.perf_counter() - saved.started,
            }, None)
        )  # fmt: skip
        started = time.perf_counter()
        self._state.apply(self._ledger.commit(self._uncommitted))
        self._uncommitted = []
        self._kept.wrote(changed.values())
        for n in saved.due:
            self._queue_evaluations(n)
        self._collect(current)
        self._saving = None
        self._dirty = {}
        self._training_seconds = 0.0
        self._copy_when_due(now=self._paused or self._num_rounds == self._schedule.num_rounds)
        self._last_commit = time.monotonic()
        self._commit_seconds = time.perf_counter() - started  # the next row tells it
        self._settling = False
        self._open_round()

    def _collect(self, current: Mapping[int, str]) -> None:
        """Go on to these versions, and delete what none needs any more."""
        self._dropped += self._kept.move_to(current, self._evaluations.needed() | self._ahead.keys())

    # --- evaluations

    def _queue_evaluations(self, n: int) -> None:
        """Queue what a point is still to test; masks that are no longer kept as they were then are made again."""
        for key in self._evaluations.queue(n, self._kept.stored):
            self._kept.lose(key, needed=True)

    def _points(self, run: dict[str, Any]) -> Points:
        return self._evaluations.points_of(run)

    def _metrics_of(self, num_tasks: int, keys: Sequence[str]) -> dict[str, float]:
        books: dict[str, float] = self._state.met[num_tasks].payload["metrics"]
        return {**books, "num_bytes": float(self._state.evaluated[keys[0]].payload["facts"]["state_bytes"])}

    # --- the coordinator's calls

    def next_jobs(self, idle: Sequence[int], exclude: Sequence[str]) -> list[Job]:
        if self._state.hopeless:
            return []
        free, taken = set(idle), set(exclude)
        jobs: list[Job] = []
        num_streams = self._allocation.stream.num_streams
        over = self._phase is _Phase.OVER
        beside = self._num_workers > num_streams and not over
        if not beside:
            jobs += self._hand_out_evaluations(free, taken)
        jobs += self._hand_out(self._round_jobs(), free, taken)
        if beside:
            found = self._hand_out_evaluations({worker for worker in free if worker >= num_streams}, taken)
            free -= {job["worker"] for job in found}
            jobs += found
        return jobs + self._hand_out(self._jobs_ahead(taken), free, taken)

    def _hand_out(self, wanted: Iterator[_Wanted], free: set[int], taken: set[str]) -> list[Job]:
        """Jobs that are not taken, for free workers, which are then free no more."""
        jobs: list[Job] = []
        while free and (found := next(wanted, None)) is not None:
            job, best, only = found
            if job["key"] in taken or (only and best not in free):
                continue
            worker = best if best in free else min(free)
            free.remove(worker)
            jobs.append({**job, "worker": worker})
            self._assigned[job["key"]] = worker
        return jobs

    def _hand_out_evaluations(self, free: set[int], taken: set[str]) -> list[Job]:
        jobs = [] if self._paused or self._kept.missing else self._evaluations.hand_out(free, taken)
        self._assigned |= {job["key"]: job["worker"] for job in jobs}
        return jobs

    def _jobs_ahead(self, taken: set[str]) -> Iterator[_Wanted]:
        """What idle workers could train of later rounds."""
        if self._paused or self._phase not in (_Phase.ROUND, _Phase.SAVE):
            return
        waiting = set(self._dirty) if self._settling else set()
        if self._round is not None:
            waiting |= {
                step.decision.mask for step in self._round.steps if step.decision.mask is not None and not step.done
            }
        for job, mask, holder in self._ahead.jobs(self._kept.stored, taken, waiting, self._num_rounds):
            best = self._holders.get(mask) if holder is None else holder
            yield job, best, best is not None and (holder is not None or mask in self._dirty)

    def _round_jobs(self) -> Iterator[_Wanted]:
        """What the phase waits for."""
        if not self._paused or self._phase is _Phase.SAVE or self._training():
            for job in self._kept.rebuilds():
                yield job, None, False
        match self._phase:
            case _Phase.ROUND:
                assert self._round is not None
                for job, stream, mask in self._round.jobs(self._kept.stored):
                    holder = None if mask is None else self._holders.get(mask)
                    best = stream % self._num_workers if holder is None else holder
                    yield job, best, holder is not None and mask in self._dirty
            case _Phase.SAVE:
                assert self._saving is not None
                for job, holder in self._saving.jobs(self._kept.stored):
                    yield job, holder, holder is not None

    def _done(self, outcome: Outcome) -> None:
        worker = self._assigned.pop(outcome["key"], None)
        self._kept.wrote(outcome.get("evicted", ()), spare=True)
        match outcome.get("kind"):
            case "decide" | "advance":
                self._take_work(outcome, worker)
            case "save":
                self._take_save(outcome)
            case _:
                self._record_results("evaluated", outcome["results"])
                self._kept.spare(self._evaluations.done(outcome["key"]))
                self._complete_points()
                if self._phase is _Phase.OVER and not self._evaluations:
                    self._collect(self._kept.current)

    def _take_work(self, outcome: Outcome, worker: int | None) -> None:
        """Take what a round waits for, or a later one may; what comes too late changes nothing."""
        now = self._round
        if outcome["kind"] == "decide":
            if now is not None and not now.steps:
                now.take_vector(outcome)
                if now.steps:
                    self._decided(now)
        elif now is not None and self._take_mask(now, outcome, worker):
            if now.over:
                self._end_round(now)
        else:
            self._ahead.keep(outcome, worker)

    def _take_save(self, outcome: Outcome) -> None:
        if self._kept.take_rebuilt(outcome):
            if self._phase is _Phase.RECOVER and not self._kept.missing:
                self._recover()
        elif self._saving is not None and self._saving.take(outcome) and self._saving.over:
            self._commit(self._saving)

    def _take(self, key: str, outcome: Outcome) -> None:
        if outcome["status"] != "done":
            worker = self._assigned.pop(key, None)
            if outcome["status"] == "lost" and worker is not None:  # its memory with it; it may never be replaced
                for mask in [mask for mask, holder in self._holders.items() if holder == worker]:
                    del self._holders[mask]
                self._ahead.lose(worker)
            if outcome["status"] in ("failed", "lost") and not self._expects(key):
                self._ahead.bar(key)  # once it is decided it is tried again, and what comes of it counts
                return
        super()._take(key, outcome)

    def _expects(self, key: str) -> bool:
        """Whether a job is more than training ahead."""
        if "-" in key or self._evaluations.what(key) is not None:
            return True
        return self._round is not None and any(step.key == key for step in self._round.steps)

    def _lose(self, key: str, reason: str) -> None:
        decided = self._lineages.knows(key)
        is_version = decided or key in self._kept.stored
        where = self._set_aside(self._versions if is_version else self._store, key)
        if where is None:
            return
        self._kept.lose(key, needed=decided)
        self._record("lost", key=key, task=None, file=str(where), reason=reason)

    def _what(self, key: str) -> str:
        part = key.partition("-")[0] if "-" in key else "training"
        return self._evaluations.what(key) or f"round {self._num_rounds} ({part})"

    def _training(self) -> bool:
        """Whether a round has been decided, and its masks are to be trained."""
        return self._round is not None and bool(self._round.steps)

    def _at_work(self) -> bool:
        """Whether a worker trains for the round."""
        return self._round is not None and any(step.key in self._assigned for step in self._round.steps)

    def pause(self) -> None:
        """End the round if masks are at work in it, and commit; then nothing more is handed out."""
        self._paused = True
        if self._phase is _Phase.SAVE or (self._training() and (self._uncommitted or self._at_work())):
            return
        self._round = None
        if self._uncommitted:
            self._begin_commit([])
        else:
            self._phase = _Phase.OVER

    def finished(self) -> bool:
        if self._state.hopeless:
            return True
        return self._phase is _Phase.OVER and (self._paused or not (self._evaluations or self._kept.missing))

    def progress(self) -> dict[str, float]:
        last = max(self._state.points.values(), key=lambda row: row.seq, default=None)
        return {
            "shards_done": self._state.done_shards(),
            "evaluations_done": self._state.done_evaluations(),
            "accuracy": last.payload["metrics"]["accuracy"] if last else 0.0,
        }
