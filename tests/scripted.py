"""Runs a training group in this process, with workers that fail as a script says."""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.base.environment import describe
from orchestrator.base.output_folder import OutputFolder
from orchestrator.coordination.control_files import NO_REQUESTS, Requests
from orchestrator.coordination.coordinator import Coordinator, Progress, StalledJob
from orchestrator.coordination.messages import Assignment, Done, Job, Lost, Reply
from orchestrator.coordination.settings import GroupSettings
from orchestrator.execution.drive import drive
from orchestrator.execution.launch import settings_of
from orchestrator.execution.open_coordinator import open_coordinator
from orchestrator.execution.worker import Worker
from orchestrator.execution.worker_pool import WorkerPool, WorkerReply
from orchestrator.records.group_state import GroupState, LaunchStatus
from orchestrator.records.ledgers.ledger import LedgerReader
from orchestrator.sweeps.sweep import open_sweep

MOST_EMPTY_ROUNDS = 20
"""How many times in a row the loop may ask for jobs while no job is in flight. After that, the pool fails the test,
because the coordinator hands out no job."""


class ScriptedPool(WorkerPool):
    """A pool of workers that reply in reverse order. `done`: the finished jobs; `worked`: the workers that did them.

    The script has one word for each job, or None for no fault. `lost`: the worker dies before the job. `lost after`:
    the worker dies after the job. `gone`: the worker dies and is never replaced. `replace`: the coordinator is closed
    and opened again, as after a crash of its process. `kill` and `kill after`: all processes die before or after the
    job.
    """

    def __init__(
        self, settings: GroupSettings, script: Iterator[str | None], coordinator: ReplaceableCoordinator | None = None
    ) -> None:
        """coordinator: the coordinator that `replace` opens again."""
        self.num_workers = settings.num_workers
        self._settings = settings
        self._coordinator = coordinator
        self._workers = [self._start(number) for number in range(self.num_workers)]
        self._script = script
        self._jobs: dict[int, Job] = {}
        self._gone: set[int] = set()
        self._asked = 0
        self.done: list[Job] = []
        self.worked: list[int] = []
        self.replies: list[Reply] = []

    def _start(self, number: int) -> Worker:
        return Worker(self._settings, number)

    def absent(self) -> set[int]:
        self._asked += 1
        assert self._asked < MOST_EMPTY_ROUNDS, "no job is in flight, and none is handed out"
        return self._gone

    def submit(self, worker: int, job: Job) -> None:
        assert worker not in self._jobs
        assert worker not in self._gone
        self._jobs[worker] = job

    def abandon(self, worker: int) -> None:
        return

    def lose(self, worker: int) -> WorkerReply:
        """Returns the reply for a worker that died during its job."""
        job = self._jobs.pop(worker)
        return WorkerReply(worker, Lost(job.key, job.kind, "killed by the test"))

    def wait(self, timeout: float) -> list[WorkerReply]:
        self._asked = 0
        worker, job = sorted(self._jobs.items())[-1]
        fault = next(self._script, None)
        if fault == "kill":
            raise KeyboardInterrupt
        if fault == "replace":
            assert self._coordinator is not None
            self._coordinator.replace()
            fault = None
        reply = self._workers[worker].run(job) if fault not in ("lost", "gone") else None
        if fault == "kill after":
            raise KeyboardInterrupt
        if fault == "gone":
            self._gone.add(worker)
        if fault is not None:
            self._workers[worker] = self._start(worker)
            return [self.lose(worker)]
        assert reply is not None
        del self._jobs[worker]
        if isinstance(reply, Done):
            self.done.append(job)
            self.worked.append(worker)
        self.replies.append(reply)
        return [WorkerReply(worker, reply)]


class ReplaceableCoordinator(Coordinator):
    """A coordinator that can be closed and opened again while its jobs are in flight."""

    def __init__(self, settings: GroupSettings) -> None:
        self._settings = settings
        self._now = open_coordinator(settings)

    def replace(self) -> None:
        """Closes the coordinator and opens a new one, which continues the launch."""
        self._now.close()
        self._now = open_coordinator(replace(self._settings, continues_launch=True))

    def next_jobs(self, idle: Collection[int], exclude: Collection[str]) -> list[Assignment]:
        return self._now.next_jobs(idle, exclude)

    def report(self, reply: Reply) -> None:
        self._now.report(reply)

    def finished(self) -> bool:
        return self._now.finished()

    def pause(self) -> None:
        self._now.pause()

    def stop(self) -> None:
        self._now.stop()

    def cancel(self, tasks: Sequence[int]) -> list[str]:
        return self._now.cancel(tasks)

    def note_stalled(self, stalled: StalledJob) -> None:
        self._now.note_stalled(stalled)

    def progress(self) -> Progress:
        return self._now.progress()

    def judged(self) -> list[tuple[int, float]]:
        return self._now.judged()

    def end(self) -> LaunchStatus:
        return self._now.end()

    def close(self) -> None:
        self._now.close()


def settings_for(file: Path, num_workers: int = 2, *overrides: str) -> GroupSettings:
    """Returns the settings of the first training group of a sweep file. The output is in the folder of the file."""
    sweep = open_sweep(file, [f"output={file.parent / 'runs'}", *overrides])
    return settings_of(sweep, sweep.plan()[0], describe(file.parent), num_workers)


def run(settings: GroupSettings, script: Sequence[str | None] = ()) -> ScriptedPool:
    """Runs the group until it ends or the script kills it. Returns the pool."""
    coordinator = ReplaceableCoordinator(settings)
    pool = ScriptedPool(settings, iter(script), coordinator)
    with contextlib.suppress(KeyboardInterrupt):
        drive(coordinator, pool, lambda progress: None)
    return pool


def run_with(settings: GroupSettings, pool: WorkerPool, requests: Requests = NO_REQUESTS) -> LaunchStatus:
    """Runs the group to its end with this pool. Returns the status of the launch."""
    return drive(open_coordinator(settings), pool, lambda progress: None, requests)


def needs_torch(replies: Sequence[Reply]) -> bool:
    """Returns whether unpickling the replies imports torch, which takes seconds and 150 MB."""
    program = "import pickle, sys; pickle.load(sys.stdin.buffer); print('torch' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(replies), capture_output=True, check=True
    )
    return found.stdout == b"True\n"


def state_of(settings: GroupSettings) -> GroupState:
    """Returns the state of the group, replayed from its ledger."""
    with LedgerReader(settings.folder.ledger) as reader:
        return GroupState().apply(reader.rows())


def in_output(settings: GroupSettings, output: Path) -> GroupSettings:
    """Returns the settings of the same group in another output."""
    sweep_id, group_id = settings.folder.sweep.sweep_id, settings.folder.group_id
    return replace(settings, folder=OutputFolder(output).sweep(sweep_id).group(group_id))
