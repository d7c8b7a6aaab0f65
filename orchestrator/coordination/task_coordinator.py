"""The coordinator where tasks are given: shards to train, each with a key known beforehand."""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Container, Iterator, Sequence
from typing import Any

from orchestrator.base.keys import content_key
from orchestrator.coordination.coordinator import Coordinator, Points, Prefix
from orchestrator.coordination.messages import Job, Outcome, result_of
from orchestrator.coordination.task_checkpoint import StoredCheckpoint
from orchestrator.records.artifact_store import CorruptArtifactError


class TaskCoordinator(Coordinator):
    """Tasks are trained in order, each once its parents are. An evaluation follows once the tasks it needs are all
    trained, before any further task, so that a long run's curve grows with it. Only where a task waits for the one
    before, and there is more than one worker, is it left to those with nothing to train; but in a search, which judges
    by it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self._shards = {shard["key"]: shard for shard in self._group["shards"]}
        self._keys = [shard["key"] for shard in self._group["shards"]]
        self._at_once: int = settings["tasks_at_once"]
        waiting = any(shard["parents"] for shard in self._group["shards"])
        self._tests_first = self._is_trial or self._num_workers == 1 or not waiting
        self._abandoned: set[str] = set()
        self._cut()
        self._trained = Prefix(self._keys)
        self._evaluations = {item["key"]: item for item in self._group["evaluations"]}
        self._take_stock()
        self._evaluation_queue = deque(self._evaluations)

    def _cut(self) -> None:
        """Which shards are trained together: cut from all, so that they are the same after a crash, halved where they
        have not fitted into memory, and without those that are cancelled."""
        shards = self._group["shards"]
        self._batches, self._starts = [], []
        for start in range(0, len(shards), self._at_once):
            first = start
            for part in _halved(shards[start : start + self._at_once], self._state.split):
                if left := [shard for shard in part if shard["key"] not in self._state.cancelled]:
                    self._batches.append(left)
                    self._starts.append(first)
                first += len(part)

    @staticmethod
    def _ledger_remedy(restored: bool) -> str:
        return "corrupt ledger set aside and rebuilt from the store"

    def _take_stock(self) -> None:
        """Verify every artifact of this group that is there; note the found, the lost and the corrupt."""
        for key in [*self._keys, *self._evaluations]:
            if key in self._state.evaluated:
                continue  # its counts are in the ledger, which is all that is asked of it
            known = key in self._state.trained
            if not known and not self._store.has(key):
                continue
            try:
                result = result_of(self._store.require(key))
            except CorruptArtifactError as error:
                self._lose(error.key, str(error))
                continue
            if not known:
                StoredCheckpoint(self._store, key).clear()
                self._record_results("trained" if key in self._shards else "evaluated", [result])
        self._complete_points()

    def _lose(self, key: str, reason: str) -> None:
        where = self._set_aside(self._store, key)
        self._trained.forget()
        if where is not None:  # else made again in the meantime, by another sweep or after an earlier report
            self._record("lost", key=key, task=self._task_of(key), file=str(where), reason=reason)

    def next_jobs(self, idle: Sequence[int], exclude: Sequence[str]) -> list[Job]:
        if self._state.failed or self._paused:
            return []
        jobs = self._ready(len(idle), set(exclude))
        while self._evaluation_queue and self._evaluation_queue[0] in self._state.evaluated:
            self._evaluation_queue.popleft()
        return [{**job, "worker": worker} for worker, job in zip(sorted(idle, reverse=True), jobs, strict=False)]

    def _ready(self, count: int, taken: set[str]) -> list[Job]:
        kinds = [self._to_train(taken), self._to_test(taken)]
        if self._tests_first:
            kinds.reverse()
        return list(itertools.islice(itertools.chain(*kinds), count))

    def _to_train(self, taken: set[str]) -> Iterator[Job]:
        first = bisect.bisect_right(self._starts, self._num_trained_prefix()) - 1
        for batch in self._batches[max(0, first) :]:
            done = all(shard["key"] in self._state.trained for shard in batch)
            ready = all(parent in self._state.trained for shard in batch for parent in shard["parents"])
            key = _job_key(batch)
            if not done and ready and key not in taken:
                yield self._train_job(key, batch)

    def _to_test(self, taken: set[str]) -> Iterator[Job]:
        prefix = self._num_trained_prefix()
        for key in self._evaluation_queue:
            item = self._evaluations[key]
            if item["num_learned"] > prefix:
                return
            if key not in self._state.evaluated and key not in taken:
                yield self._evaluation_job(item)

    def _num_trained_prefix(self) -> int:
        return self._trained.length(self._state.trained)

    def _train_job(self, key: str, batch: Sequence[dict[str, Any]]) -> Job:
        return {
            "kind": "train", "key": key, "shards": list(batch),
            "experiment": self._group["experiment"], "seed": self._group["seed"],
        }  # fmt: skip

    def _evaluation_job(self, item: dict[str, Any]) -> Job:
        run = self._group["runs"][item["run"]]
        return {
            "kind": "evaluate", "key": item["key"], "task": item["task"], "right": [item["task"]],
            "num_learned": item["num_learned"],
            "experiment": run["experiment"], "inference_id": run["inference_id"], "seed": self._group["seed"],
        }  # fmt: skip

    def _done(self, outcome: Outcome) -> None:
        self._record_results("evaluated" if outcome["key"] in self._evaluations else "trained", outcome["results"])
        self._complete_points()

    def report(self, outcome: Outcome) -> None:
        if outcome["key"] not in self._abandoned or outcome["status"] == "done":
            super().report(outcome)

    def cancel(self, tasks: Sequence[int]) -> list[str]:
        given_up = {
            shard["key"]: shard["task"]
            for shard in self._group["shards"]
            if shard["task"] in tasks and shard["key"] not in self._state.trained
        }
        jobs = {_job_key(batch) for batch in self._batches if any(shard["key"] in given_up for shard in batch)}
        jobs |= given_up.keys()  # one that was cancelled before this process began may be under way all the same
        for key, task in given_up.items():
            if key not in self._state.cancelled:
                self._record("cancelled", key=key, task=task)
        self._abandoned.update(jobs)
        self._cut()
        return sorted(jobs)

    def _halve(self, key: str, reason: str) -> bool:
        if not any(len(batch) > 1 and _job_key(batch) == key for batch in self._batches):
            return False
        self._record("split", key=key, reason=reason)
        self._cut()
        return True

    def _what(self, key: str) -> str:
        if key in self._evaluations:
            return f"evaluation of task {self._task_of(key)}"
        found = [[shard["task"] for shard in batch] for batch in self._batches if _job_key(batch) == key]
        if not found:
            return "tasks of which some are cancelled"
        (tasks,) = found
        return f"task {tasks[0]}" if len(tasks) == 1 else f"tasks {tasks[0]} to {tasks[-1]}"

    def _task_of(self, key: str) -> int | None:
        item = self._shards.get(key) or self._evaluations.get(key)
        return item["task"] if item else None

    def _points(self, run: dict[str, Any]) -> Points:
        prefix = self._num_trained_prefix()
        return {int(n): keys for n, keys in run["points"].items() if int(n) <= prefix}

    def _metrics_of(self, num_tasks: int, keys: Sequence[str]) -> dict[str, float]:
        facts = [self._state.trained[key].payload["facts"] for key in self._keys[:num_tasks]]
        return {"num_bytes": float(sum(fact["num_bytes"] for fact in facts) + facts[-1].get("shared_bytes", 0))}

    def finished(self) -> bool:
        if self._state.failed or self._paused:
            return True
        if self._state.cancelled:
            return not any(self._ready(1, set()))
        return all(key in self._state.trained for key in self._keys) and all(
            key in self._state.evaluated for key in self._evaluations
        )

    def progress(self) -> dict[str, float]:
        accuracies = [row.payload["facts"]["accuracy"] for row in self._state.trained.values()]
        known = [value for value in accuracies if value is not None]
        return {
            "shards_done": self._state.done_shards(),
            "evaluations_done": self._state.done_evaluations(),
            "accuracy": sum(known) / len(known) if known else 0.0,
        }


def _halved(batch: Sequence[dict[str, Any]], split: Container[str]) -> Iterator[Sequence[dict[str, Any]]]:
    """A batch, or its halves where its job is among those that were split, and so on."""
    if len(batch) > 1 and _job_key(batch) in split:
        middle = len(batch) // 2
        yield from _halved(batch[:middle], split)
        yield from _halved(batch[middle:], split)
    else:
        yield batch


def _job_key(batch: Sequence[dict[str, Any]]) -> str:
    """The key of the job that trains some shards: a single one's own."""
    keys = [shard["key"] for shard in batch]
    return str(keys[0]) if len(keys) == 1 else content_key(keys)
