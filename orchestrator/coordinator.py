"""The coordinator of a training group: what is to be done, what has been, and the only pen in its ledger.

A plain class; `actors` puts it into an actor. Its calls are idempotent, and it keeps nothing in memory
that the ledger does not hold, so it can be killed at any moment and opened again.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator import results
from orchestrator.ledger import LedgerWriter, set_aside
from orchestrator.state import GroupState
from orchestrator.store import ArtifactStore
from orchestrator.worker import CorruptArtifactError, Job, Outcome, outcome_of, read_artifact
from supsup_core.errors import CorruptError

_RECORDED = ("key", "facts", "sha256", "worker", "started_ms", "seconds")

MAX_RETRIES = 3
"""How often a job may take its worker down before it is given up."""


class Coordinator:
    """Hands out the jobs of one group and commits what comes back.

    Tasks are trained in order, each once its parents are; an evaluation follows once the tasks it needs
    are all trained.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        """settings: group (Group.to_node), ledger and store (paths), environment (for the plan row)."""
        self._group = settings["group"]
        self._store = ArtifactStore(Path(settings["store"]))
        path = Path(settings["ledger"])
        aside = None
        try:
            self._ledger = LedgerWriter(path)
            rows = self._ledger.rows()
        except CorruptError:
            aside = set_aside(path)
            self._ledger = LedgerWriter(path)
            rows = []
        self._state = GroupState().apply(rows)
        self._shards = {shard["key"]: shard for shard in self._group["shards"]}
        self._keys = [shard["key"] for shard in self._group["shards"]]
        self._evaluations = {item["key"]: item for item in self._group["evaluations"]}
        self._record("plan", group=self._group, environment=settings["environment"])
        if aside is not None:
            self._record("lost", key="", file=str(aside), reason="corrupt ledger set aside and rebuilt from the store")
        self._take_stock()
        self._evaluation_queue = deque(self._evaluations)

    def _record(self, kind: str, **payload: Any) -> None:
        self._state.apply([self._ledger.append(kind, **payload)])

    def _take_stock(self) -> None:
        """Verify every artifact of this group that is there; note the found, the lost and the corrupt."""
        for key in [*self._keys, *self._evaluations]:
            if key in self._state.evaluated:
                continue  # its counts are in the ledger, which is all that is asked of it
            known = key in self._state.trained
            if not known and not self._store.has(key):
                continue
            try:
                outcome = outcome_of(read_artifact(self._store, key))
            except CorruptArtifactError as error:
                self._lose(error.key, str(error))
                continue
            if not known:
                self._commit(outcome)

    def _lose(self, key: str, reason: str) -> None:
        """An artifact is missing or corrupt: keep its file aside, and let its task be done again."""
        where = str(self._store.path(key))
        if self._store.has(key):
            with contextlib.suppress(CorruptError, FileNotFoundError):
                self._store.get(key)
                return  # made again in the meantime, by another sweep or after an earlier report
            with contextlib.suppress(FileNotFoundError):
                where = str(self._store.quarantine(key))
        self._record("lost", key=key, task=self._task_of(key), file=where, reason=reason)

    def next_jobs(self, count: int, exclude: Sequence[str]) -> list[Job]:
        """Up to `count` jobs that can be done now, none of them in `exclude` (keys in flight or set back)."""
        if self._state.failed:
            return []
        taken = set(exclude)
        jobs: list[Job] = []
        for key in self._keys:
            if len(jobs) == count:
                return jobs
            shard = self._shards[key]
            ready = all(parent in self._state.trained for parent in shard["parents"])
            if key not in self._state.trained and key not in taken and ready:
                jobs.append(self._train_job(shard))
        prefix = self._num_trained_prefix()
        for key in self._evaluation_queue:
            if len(jobs) == count:
                break
            item = self._evaluations[key]
            if item["num_learned"] > prefix:
                break
            if key not in self._state.evaluated and key not in taken:
                jobs.append(self._evaluation_job(item))
        while self._evaluation_queue and self._evaluation_queue[0] in self._state.evaluated:
            self._evaluation_queue.popleft()
        return jobs

    def _num_trained_prefix(self) -> int:
        for number, key in enumerate(self._keys):
            if key not in self._state.trained:
                return number
        return len(self._keys)

    def _train_job(self, shard: dict[str, Any]) -> Job:
        return {
            "kind": "train", "key": shard["key"], "task": shard["task"], "parents": shard["parents"],
            "experiment": self._group["experiment"], "seed": self._group["seed"],
        }  # fmt: skip

    def _evaluation_job(self, item: dict[str, Any]) -> Job:
        run = self._group["runs"][item["run"]]
        return {
            "kind": "evaluate", "key": item["key"], "task": item["task"],
            "masks": self._keys[: item["num_learned"]],
            "experiment": run["experiment"], "inference_id": run["inference_id"], "seed": self._group["seed"],
        }  # fmt: skip

    def report(self, outcome: Outcome) -> None:
        """Commit what became of a job. Reporting the same outcome again changes nothing."""
        key = outcome["key"]
        if key in self._state.trained or key in self._state.evaluated:
            return
        match outcome["status"]:
            case "done":
                self._commit(outcome)
            case "corrupt":
                self._lose(outcome["artifact"], outcome["reason"])
            case "failed":
                self._fail(key, outcome["error"], outcome["traceback"])
            case "lost":
                self._record("retried", key=key, reason=outcome["reason"])
                if self._state.retried[key] > MAX_RETRIES:
                    self._fail(key, f"its worker died {self._state.retried[key]} times: {outcome['reason']}", "")

    def _fail(self, key: str, error: str, traceback: str) -> None:
        kind = "task" if key in self._shards else "evaluation of task"
        what = f"{kind} {self._task_of(key)}"
        self._record("failed", key=key, what=what, error=error, traceback=traceback)

    def _task_of(self, key: str) -> int | None:
        item = self._shards.get(key) or self._evaluations.get(key)
        return item["task"] if item else None

    def _commit(self, outcome: Outcome) -> None:
        key = outcome["key"]
        kind = "trained" if key in self._shards else "evaluated"
        self._record(kind, **{name: outcome[name] for name in _RECORDED})
        self._complete_points()

    def _complete_points(self) -> None:
        """Record the metrics of every evaluation point that has become complete, in order of n."""
        prefix = self._num_trained_prefix()
        for run in self._group["runs"]:
            rows: dict[int, list[dict[str, Any]]] = {}
            for n, keys in sorted((int(n), keys) for n, keys in run["points"].items()):
                if n > prefix or not all(other in self._state.evaluated for other in keys):
                    break
                rows[n] = [self._state.evaluated[other].payload["facts"]["results"] for other in keys]
                if (run["run_id"], n) in self._state.points:
                    continue
                earlier = {m: past for m, past in rows.items() if m < n}
                values = results.point_metrics(run["experiment"]["scenario"], rows[n], earlier)
                values["num_bytes"] = self._bytes_of(n)
                self._record("point", run_id=run["run_id"], num_learned=n, metrics=values)

    def _bytes_of(self, num_tasks: int) -> float:
        """Bytes stored of the first tasks."""
        return float(sum(self._state.trained[key].payload["facts"]["num_bytes"] for key in self._keys[:num_tasks]))

    def finished(self) -> bool:
        """Whether nothing is left to hand out, now or later: all is done, or a job has failed for good."""
        if self._state.failed:
            return True
        return all(key in self._state.trained for key in self._keys) and all(
            key in self._state.evaluated for key in self._evaluations
        )

    def progress(self) -> dict[str, float]:
        """Counts for whoever schedules the group."""
        accuracies = [row.payload["facts"]["accuracy"] for row in self._state.trained.values()]
        known = [value for value in accuracies if value is not None]
        return {
            "shards_done": self._state.done_shards(),
            "evaluations_done": self._state.done_evaluations(),
            "accuracy": sum(known) / len(known) if known else 0.0,
        }

    def end(self) -> str:
        """Note how it ended, and say so: done or failed. Called once nothing is in flight."""
        status = "failed" if self._state.failed else "done"
        self._record("ended", status=status)
        self.close()
        return status

    def close(self) -> None:
        """Let go of the ledger, leaving the group as it is."""
        self._ledger.close()
