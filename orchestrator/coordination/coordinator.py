"""The coordinator of a training group: what is to be done, what has been, and the only pen in its ledger.

A plain class; `actors` puts it into an actor. Its calls are idempotent, and it keeps nothing in memory
that the ledger does not hold or that cannot be computed again, so it can be killed at any moment and opened
again.
"""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from orchestrator.coordination.messages import Job, Outcome
from orchestrator.records.artifact_store import ArtifactStore, stores_of
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledger import BehindError, FencedError, open_ledger, snapshot_path
from orchestrator.records.ledger_snapshots import COPYING_SECONDS, Copier, Snapshots
from orchestrator.records.object_storage import Storage
from supsup_core.errors import CorruptError
from supsup_core.evaluation import point_metrics

_RECORDED = ("key", "facts", "sha256", "worker", "started_ms", "seconds", "resumed_at")

MAX_RETRIES = 3
"""How often a job may take its worker down before it is given up. A worker that goes with its node does not count."""

SNAPSHOT_SECONDS = 60.0
"""How often the ledger is copied, at most; less often when a copy takes long."""

Points = dict[int, list[str]]
"""The evaluation points of a run that can be named so far: tasks learned to the keys of what is tested."""


class Prefix:
    """How many of some keys are done, from the first on without a gap. Each look goes on where the last one ended, so
    that thousands of keys cost nothing."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys
        self._length = 0

    def length(self, done: Container[str]) -> int:
        """As far as all are in `done`, which has only grown since the last look, or since `forget`."""
        while self._length < len(self._keys) and self._keys[self._length] in done:
            self._length += 1
        return self._length

    def forget(self) -> None:
        """Look at all of them anew: one that was done may be so no longer."""
        self._length = 0


class Coordinator(ABC):
    """Hands out the jobs of one group and commits what comes back. Subclasses say what the jobs are."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """settings: group (Group.to_node), ledger, store, versions and pause (paths), storage (the URLs of the first
        three, `place`, `cache_bytes` and `snapshot_every`; or None), environment (for the plan row), search (whether it
        is a search's trial)."""
        self._group = settings["group"]
        self._store, self._versions = stores_of(settings)
        self._num_workers: int = settings["environment"]["num_workers"]
        self._is_trial: bool = settings["search"]
        path = Path(settings["ledger"])
        self._copier, above = None, 0
        if settings["storage"]:
            place = settings["storage"]["place"]
            there = Snapshots(Storage(settings["storage"]["ledger"]))
            if there.are_ahead_of(path, place):
                raise BehindError(
                    f"{path}: another process has gone on with this, and the storage knows it; "
                    "`supsup resume` fetches it first"
                )
            above = max((epoch for epoch, _ in there.versions()), default=0)
            snapshots = Snapshots(Storage(settings["storage"]["ledger"], COPYING_SECONDS))
            self._copier = Copier(snapshots, self._versions)
        self._ledger, rows, aside = open_ledger(path, above)
        self._version = (self._ledger.epoch, place if self._copier else "")
        self._snapshot_path = snapshot_path(path)
        self._pause_path = Path(settings["pause"])
        self._snapshot_every = settings["storage"]["snapshot_every"] if settings["storage"] else SNAPSHOT_SECONDS
        self._last_snapshot, self._snapshot_cost = time.monotonic(), 0.0
        self._dropped: list[str] = []
        self._state = GroupState().apply(rows)
        self._paused = self._state.stopped is not None
        self._tested: dict[tuple[str, int], Prefix] = {}
        self._record("plan", group=self._group, environment=settings["environment"])
        if aside is not None:
            self._record("lost", key="", file=str(aside), reason=self._ledger_remedy(bool(rows)))
        if self._copier is not None:
            self._copy_when_due(now=True)  # whoever else writes this sweep stops now

    @staticmethod
    @abstractmethod
    def _ledger_remedy(restored: bool) -> str:
        """How a corrupt ledger was made good; `restored`: a snapshot took its place."""

    def _record(self, kind: str, **payload: Any) -> None:
        self._state.apply([self._ledger.append(kind, **payload)])

    @abstractmethod
    def next_jobs(self, idle: Sequence[int], exclude: Sequence[str]) -> list[Job]:
        """At most one job for each idle worker that can be done now, none of them in `exclude` (keys in flight or
        set back)."""

    def report(self, outcome: Outcome) -> None:
        """Take what became of a job. Reporting the same outcome again changes nothing."""
        key = outcome["key"]
        if key not in self._state.trained and key not in self._state.evaluated:
            self._take(key, outcome)
        if self._copier is not None:
            self._copy_when_due()

    def _take(self, key: str, outcome: Outcome) -> None:
        match outcome["status"]:
            case "failed" | "lost" if outcome.get("out_of_memory") and self._halve(key, _first_line(outcome)):
                pass
            case "done":
                self._done(outcome)
            case "corrupt":
                self._lose(outcome["artifact"], outcome["reason"])
            case "failed" if self._is_trial and outcome.get("diverged"):
                self._give_up(diverged=outcome["error"])
            case "failed":
                self._fail(key, outcome["error"], outcome["traceback"])
            case "lost":
                self._record("retried", key=key, reason=outcome["reason"], free=outcome.get("node_lost", False))
                if self._state.retried[key] > MAX_RETRIES:
                    self._fail(key, f"its worker died {self._state.retried[key]} times: {outcome['reason']}", "")

    def _copy_when_due(self, now: bool = False) -> None:
        """Take a snapshot of the ledger, where the last one is a while ago, or `now`; it goes on to the storage beside
        the work. Where another process has taken over meanwhile, come to a stop."""
        try:
            busy = self._copier is not None and self._copier.busy
        except FencedError as error:
            self._paused = True
            self._copier = None
            self._pause_path.write_text(str(error))
            return
        wait = max(self._snapshot_every, 100 * self._snapshot_cost)
        if busy or not (now or time.monotonic() - self._last_snapshot > wait):
            return
        started = time.perf_counter()
        self._ledger.snapshot()
        if self._copier is not None:
            dropped, self._dropped = self._dropped, []
            self._copier.start(self._version, self._snapshot_path.read_bytes(), dropped)
        self._snapshot_cost = time.perf_counter() - started
        self._last_snapshot = time.monotonic()

    @abstractmethod
    def _done(self, outcome: Outcome) -> None:
        """A job has been done."""

    @abstractmethod
    def _lose(self, key: str, reason: str) -> None:
        """An artifact is missing or corrupt: set it aside, and see to it that it is made again."""

    @abstractmethod
    def _what(self, key: str) -> str:
        """A job in words."""

    def _halve(self, key: str, reason: str) -> bool:
        """Have the tasks of a job that did not fit into memory trained in halves; False where there is one alone."""
        return False

    def _fail(self, key: str, error: str, traceback: str) -> None:
        self._record("failed", key=key, what=self._what(key), error=error, traceback=traceback)

    def _set_aside(self, store: ArtifactStore, key: str) -> Path | None:
        """Quarantine an artifact that has turned out bad; None when it is sound after all, made again meanwhile."""
        if not store.has(key):
            return store.path(key)
        with contextlib.suppress(CorruptError, FileNotFoundError):
            store.verify(key)
            return None
        with contextlib.suppress(FileNotFoundError):
            return store.quarantine(key)
        return store.path(key)

    def _record_results(self, kind: str, results: Sequence[dict[str, Any]]) -> None:
        """Record those that have not been: a shard or an evaluation counts once."""
        for result in results:
            if result["key"] not in self._state.trained and result["key"] not in self._state.evaluated:
                self._record(kind, **{name: result[name] for name in _RECORDED})

    @abstractmethod
    def _points(self, run: dict[str, Any]) -> Points:
        """The evaluation points of a run, as far as they can be named."""

    def _complete_points(self) -> None:
        """Record the metrics of every evaluation point that has become complete, in order of tasks learned."""
        for run in self._group["runs"]:
            points = dict(sorted(self._points(run).items()))
            for n, keys in points.items():
                if (run["run_id"], n) in self._state.points:
                    continue
                tested = self._tested.setdefault((run["run_id"], n), Prefix(keys))
                if tested.length(self._state.evaluated) < len(keys):
                    break
                earlier = {m: self._state.tested(its) for m, its in points.items() if m <= n}
                values = point_metrics.point_metrics(run["experiment"]["scenario"], earlier, n)
                values |= self._metrics_of(n, keys)
                self._record("point", run_id=run["run_id"], num_learned=n, metrics=values, keys=keys)

    @abstractmethod
    def _metrics_of(self, num_tasks: int, keys: Sequence[str]) -> dict[str, float]:
        """What else there is to say of the learner after so many tasks, which the evaluations with these keys tested;
        `num_bytes` at least, what it stores."""

    @abstractmethod
    def finished(self) -> bool:
        """Whether nothing is left to hand out, now or later: all is done, a job has failed for good, or the group
        is paused."""

    def pause(self) -> None:
        """Come to a stop where nothing is lost, and hand out nothing beyond. By default that is here."""
        self._paused = True

    def note_stalled(self, key: str, worker: int, seconds: float, usual_seconds: float | None) -> None:
        """Note that a job has been with a worker for far longer than others of its kind took."""
        self._record(
            "stalled", key=key, what=self._what(key), worker=worker, seconds=seconds, usual_seconds=usual_seconds
        )

    @abstractmethod
    def progress(self) -> dict[str, float]:
        """Counts for whoever schedules the group."""

    def stop(self) -> None:
        """Give the group up where it is, as a search does with a trial that falls behind; a resume will not go on.

        A group that has finished, or was stopped before, stays as it is.
        """
        if self.finished():
            return
        self._give_up()
        self.pause()

    def cancel(self, tasks: Sequence[int]) -> list[str]:
        """Give up those of some tasks that are not trained; what does not need them is done all the same. Returns the
        keys of the jobs that train any of them. In NNs, where no tasks are given, nothing is given up."""
        return []

    def _give_up(self, **reason: str) -> None:
        """Note that a trial goes no further."""
        self._paused = True
        if self._state.stopped is None:
            last = max((n for _, n in self._state.points), default=0)
            self._record("stopped", num_learned=last, **reason)

    def judged(self) -> list[tuple[int, float]]:
        """How accurate the group's first run was found after how many tasks, in the order found."""
        first = self._group["runs"][0]["run_id"]
        rows = [row.payload for (run, _), row in self._state.points.items() if run == first]
        return [(row["num_learned"], row["metrics"]["accuracy"]) for row in rows]

    def end(self) -> str:
        """Note how it ended, and say so: done, stopped, failed or interrupted. Called once nothing is in flight."""
        if self._state.failed:
            status = "failed"
        elif self._state.stopped is not None or (self._state.cancelled and not self._paused):
            status = "stopped"
        else:
            status = "interrupted" if self._paused else "done"
        if status != "interrupted":
            self._record("ended", status=status)
        if self._copier is not None:
            self._copier.wait()
            self._copy_when_due(now=True)
        self.close()
        return status

    def close(self) -> None:
        """Let go of the ledger, leaving the group as it is."""
        if self._copier is not None:
            self._copier.close()
        self._ledger.close()


def _first_line(outcome: Outcome) -> str:
    return str(outcome.get("error") or outcome["reason"]).splitlines()[0]
