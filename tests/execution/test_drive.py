"""The loop between a coordinator and its workers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pytest

from orchestrator.coordination.control_files import Requests
from orchestrator.coordination.coordinator import Coordinator, Progress, StalledJob
from orchestrator.coordination.messages import Assignment, Busy, Done, Job, Lost, Reply, TrainJob
from orchestrator.execution import drive as module
from orchestrator.execution import stall_watch
from orchestrator.execution.drive import drive
from orchestrator.execution.worker_pool import WorkerPool, WorkerReply
from orchestrator.records.group_state import LaunchStatus


class Recorder(Coordinator):
    """A fake coordinator that hands out each job until its reply is reported, and records how it is called."""

    def __init__(self, *keys: str) -> None:
        self.left = list(keys)
        self.asked: list[tuple[list[int], set[str]]] = []
        self.reported: list[Reply] = []
        self.calls: list[Any] = []
        self.stalled: list[StalledJob] = []
        self.is_paused = False

    def next_jobs(self, idle: Collection[int], exclude: Collection[str]) -> list[Assignment]:
        self.asked.append((list(idle), set(exclude)))
        keys = [] if self.is_paused else [key for key in self.left if key not in exclude]
        return [Assignment(worker, TrainJob(key, (), {}, 0)) for worker, key in zip(idle, keys, strict=False)]

    def report(self, reply: Reply) -> None:
        self.reported.append(reply)
        if isinstance(reply, Done):
            self.left = [key for key in self.left if key != reply.key]

    def finished(self) -> bool:
        return self.is_paused or not self.left

    def pause(self) -> None:
        self.is_paused = True

    def stop(self) -> None:
        self.calls.append("stop")
        self.is_paused = True

    def cancel(self, tasks: Sequence[int]) -> list[str]:
        self.calls.append(list(tasks))
        self.left = [key for key in self.left if key not in {str(task) for task in tasks}]
        return [str(task) for task in tasks]

    def note_stalled(self, stalled: StalledJob) -> None:
        self.stalled.append(stalled)

    def progress(self) -> Progress:
        return Progress(len(self.reported), 0, 0.0)

    def judged(self) -> list[tuple[int, float]]:
        return []

    def end(self) -> LaunchStatus:
        self.calls.append("end")
        return "interrupted" if self.is_paused else "done"

    def close(self) -> None:
        raise AssertionError("end() closes the ledger")


class Pool(WorkerPool):
    """A fake pool whose workers finish each job immediately, or give the replies that a test sets for the job."""

    def __init__(self, num_workers: int, **replies: list[Reply]) -> None:
        self.num_workers = num_workers
        self.replies = replies
        self.jobs: dict[int, Job] = {}
        self.abandoned: list[int] = []
        self.missing: set[int] = set()

    def absent(self) -> set[int]:
        return self.missing

    def submit(self, worker: int, job: Job) -> None:
        assert worker not in self.jobs
        self.jobs[worker] = job

    def abandon(self, worker: int) -> None:
        self.abandoned.append(worker)

    def wait(self, timeout: float) -> list[WorkerReply]:
        if not self.jobs:
            return []
        worker, job = self.jobs.popitem()
        told = self.replies.get(job.key) or [Done(job.key, ())]
        return [WorkerReply(worker, told.pop(0))]


def test_jobs_go_to_idle_workers_and_replies_to_the_coordinator() -> None:
    coordinator, pool = Recorder("a", "b", "c"), Pool(2)
    assert drive(coordinator, pool, lambda progress: None) == "done"
    assert {reply.key for reply in coordinator.reported} == {"a", "b", "c"}
    assert coordinator.asked[0] == ([0, 1], set())
    assert coordinator.asked[1] == ([1], {"a"})
    assert coordinator.calls == ["end"]


def test_progress_is_reported_periodically_and_at_the_end() -> None:
    told: list[Progress] = []
    drive(Recorder("a", "b"), Pool(1), told.append, every=0.0)
    assert [progress.shards_done for progress in told] == [1, 2, 2]
    told.clear()
    drive(Recorder("a", "b"), Pool(1), told.append, every=60.0)
    assert [progress.shards_done for progress in told] == [1, 2]


def test_a_worker_that_is_absent_gets_no_job() -> None:
    coordinator, pool = Recorder("a", "b"), Pool(2)
    pool.missing = {0}
    assert drive(coordinator, pool, lambda progress: None) == "done"
    assert coordinator.asked
    assert {tuple(idle) for idle, _ in coordinator.asked} == {(1,)}


def test_a_busy_job_is_postponed_and_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    coordinator, pool = Recorder("a", "b"), Pool(1, a=[Busy("a"), Done("a", ())])
    assert drive(coordinator, pool, lambda progress: None) == "done"
    assert coordinator.asked[1] == ([0], {"a"})
    assert [reply.key for reply in coordinator.reported] == ["b", "a"]


def test_a_lost_job_is_reported_and_handed_out_again() -> None:
    coordinator, pool = Recorder("a"), Pool(1, a=[Lost("a", "train", "killed"), Done("a", ())])
    assert drive(coordinator, pool, lambda progress: None) == "done"
    assert [type(reply) for reply in coordinator.reported] == [Lost, Done]


def test_a_pause_waits_for_the_jobs_in_flight() -> None:
    coordinator = Recorder("a", "b", "c")
    calls = iter([False])
    status = drive(coordinator, Pool(1), lambda progress: None, Requests(pause=lambda: next(calls, True)))
    assert status == "interrupted"
    assert [reply.key for reply in coordinator.reported] == ["a"]


def test_a_stop_request_is_passed_to_the_coordinator() -> None:
    coordinator = Recorder("a")
    drive(coordinator, Pool(1), lambda progress: None, Requests(stop=lambda: True))
    assert coordinator.calls == ["stop", "end"]


def test_the_worker_of_a_cancelled_task_is_abandoned_once() -> None:
    coordinator, pool = Recorder("7", "8", "9"), Pool(2)
    wanted: list[set[int]] = [set(), {7}, {7}, {7, 9}]
    requests = Requests(cancel=lambda: wanted.pop(0) if len(wanted) > 1 else wanted[0])
    assert drive(coordinator, pool, lambda progress: None, requests) == "done"
    assert [call for call in coordinator.calls if call != "end"] == [[7], [7, 9]]
    assert pool.abandoned == [0]


def test_a_stalled_job_is_reported_to_the_coordinator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stall_watch, "STALLED_UNKNOWN_SECONDS", -1.0)

    class Slow(Pool):
        waits = 0

        def wait(self, timeout: float) -> list[WorkerReply]:
            self.waits += 1
            return super().wait(timeout) if self.waits > 2 else []

    coordinator = Recorder("a")
    drive(coordinator, Slow(1), lambda progress: None)
    assert [(stalled.key, stalled.worker) for stalled in coordinator.stalled] == [("a", 0)]
