"""The state of a training group: a replay of its ledger's rows, whole or up to any of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from orchestrator.records.ledger import Row
from supsup_core.errors import CorruptError

ENDED = ("done", "stopped", "failed")
"""How a group can come to an end of its own."""


@dataclass
class GroupState:
    """What is known of a group. Feed it rows in order; the same rows give the same state."""

    plan: dict[str, Any] = field(default_factory=dict)
    trained: dict[str, Row] = field(default_factory=dict)
    evaluated: dict[str, Row] = field(default_factory=dict)
    points: dict[tuple[str, int], Row] = field(default_factory=dict)
    failed: dict[str, Row] = field(default_factory=dict)
    lost: list[Row] = field(default_factory=list)
    retried: dict[str, int] = field(default_factory=dict)
    split: set[str] = field(default_factory=set)
    decisions: list[Row] = field(default_factory=list)
    met: dict[int, Row] = field(default_factory=dict)
    due: dict[int, dict[str, Any]] = field(default_factory=dict)
    commits: list[Row] = field(default_factory=list)
    earlier_commits: int = 0
    stalled: dict[str, Row] = field(default_factory=dict)
    cancelled: dict[str, Row] = field(default_factory=dict)
    stopped: Row | None = None
    status: str = "planned"
    at_work: bool = False
    last: Row | None = None

    def apply(self, rows: Iterable[Row]) -> GroupState:
        """Take further rows; returns itself. CorruptError for one that does not hold what its kind does."""
        for row in rows:
            try:
                self._apply(row)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise CorruptError(
                    f"ledger row {row.seq}: not a row {row.kind!r} of this version ({error!r})"
                ) from error
            self.last = row
        return self

    def _apply(self, row: Row) -> None:
        key = row.payload.get("key", "")
        match row.kind:
            case "plan":
                self.plan = row.payload
                if self.status in ENDED:
                    self.lost.clear()  # told, and mended, by the launch that ended
                self.failed.clear()
                self.retried.clear()
                self.stalled.clear()
                self.at_work = False
                self.earlier_commits = len(self.commits)
                self.status = "planned"
            case "trained":
                self.status = "running"
                self.at_work |= bool(row.payload.get("seconds"))
                self.trained.setdefault(key, row)
                self.cancelled.pop(key, None)
                self._moves_on(row.payload.get("worker"))
            case "evaluated":
                self.status = "running"
                self.at_work |= bool(row.payload.get("seconds"))
                self.evaluated.setdefault(key, row)
                self._moves_on(row.payload.get("worker"))
            case "point":
                self.points.setdefault((row.payload["run_id"], row.payload["num_learned"]), row)
            case "decision":
                self.status = "running"
                self.at_work = True
                self.decisions.append(row)
            case "met":
                self.met.setdefault(row.payload["num_learned"], row)
            case "due":
                self.due.setdefault(row.payload["num_learned"], row.payload)
            case "committed":
                self.commits.append(row)
                self.stalled.clear()
            case "lost":
                self.trained.pop(key, None)
                self.lost.append(row)
            case "retried":
                self.retried[key] = self.retried.get(key, 0) + (not row.payload.get("free", False))
                self.stalled.pop(key, None)
            case "split":
                self.split.add(key)
                self.stalled.pop(key, None)
            case "stalled":
                self.stalled[key] = row
            case "failed":
                self.failed[key] = row
                self.stalled.pop(key, None)
            case "cancelled":
                self.cancelled[key] = row
                self.stalled.pop(key, None)
                self.failed.pop(key, None)
            case "stopped":
                self.stopped = row
                self.status = "stopped"
            case "retry":
                self.stopped = None
                self.failed.clear()
                asked = row.payload.get("tasks")
                self.cancelled = {
                    key: row for key, row in self.cancelled.items() if asked and row.payload["task"] not in asked
                }
                self.status = "interrupted"
            case "ended":
                self.status = row.payload["status"]
                self.at_work = False

    def _moves_on(self, worker: int | None) -> None:
        """A worker has done what it was at."""
        self.stalled = {key: row for key, row in self.stalled.items() if row.payload["worker"] != worker}

    def tested(self, keys: Iterable[str]) -> dict[int, dict[str, Any]]:
        """The results of evaluations that are done, by task."""
        facts = [self.evaluated[key].payload["facts"] for key in keys]
        return {found["task"]: found["results"] for found in facts}

    @property
    def group(self) -> dict[str, Any]:
        """The planned group, as Group.to_node wrote it."""
        node: dict[str, Any] = self.plan["group"]
        return node

    @property
    def given_up(self) -> bool:
        """Whether it has come to an end with less than was planned, because a search or the user wanted no more."""
        return self.stopped is not None or self.status == "stopped"

    @property
    def ended(self) -> str:
        """How the last launch ended: done, stopped (a trial of a search) or failed, or else interrupted."""
        return self.status if self.status in ENDED else "interrupted"

    @property
    def hopeless(self) -> bool:
        """Whether nothing more can be done: a job has failed for good, or a search's trial has diverged."""
        return bool(self.failed) or (self.stopped is not None and "diverged" in self.stopped.payload)

    @property
    def round(self) -> int:
        """Rounds of NNs that are committed."""
        return int(self.commits[-1].payload["round"]) if self.commits else 0

    def segments_not_trained(self) -> int:
        """Segments of NNs that no mask was trained on."""
        return sum(row.payload["mask"] is None for row in self.decisions)

    def num_masks(self) -> int | None:
        """Masks in use in NNs; None elsewhere."""
        if not self.decisions:
            return None
        return sum(
            (row.payload["mask"] is not None) - (row.payload["freed"] is not None)
            for row in self.decisions
            if row.payload["outcome"] in ("allocate", "reclaim")
        )

    def done_shards(self) -> int:
        """Planned shards that are trained; in NNs, whole tasks' worth of data."""
        if not self.plan:
            return 0
        if self.group["segments_per_task"]:
            return len(self.decisions) // int(self.group["segments_per_task"])
        return sum(shard["key"] in self.trained for shard in self.group["shards"])

    def done_evaluations(self) -> int:
        """Planned evaluations that are done."""
        if not self.plan:
            return 0
        if self.group["segments_per_task"]:
            return len(self.evaluated)
        return sum(item["key"] in self.evaluated for item in self.group["evaluations"])

    def seconds_per_task(self) -> float | None:
        """NNs: how long a task's worth of data has taken lately; None before this launch has committed twice."""
        recent = self.commits[self.earlier_commits :][-20:]
        rounds = int(recent[-1].payload["round"]) - int(recent[0].payload["round"]) if recent else 0
        if not rounds:
            return None
        seconds = (recent[-1].time_ms - recent[0].time_ms) / 1000
        return seconds * int(self.group["segments_per_task"]) / (rounds * int(self.group["num_streams"]))

    def shard_seconds(self) -> list[float]:
        """Seconds of work of the shards that were really trained, not found."""
        if self.plan and self.group["segments_per_task"]:
            count = int(self.group["segments_per_task"])
            spent = [row.payload["seconds"] + row.payload["latency"] for row in self.decisions]
            return [sum(spent[i : i + count]) for i in range(0, len(spent) - count + 1, count)]
        return [row.payload["seconds"] for row in self.trained.values() if row.payload["seconds"]]
