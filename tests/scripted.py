"""Driving a group in this process, with workers that fail as a script says."""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestrator.coordination.messages import Job, Outcome
from orchestrator.execution.drive import WorkerPool, drive, open_coordinator
from orchestrator.execution.worker import Worker
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledger import LedgerReader


class ScriptedPool(WorkerPool):
    """Workers that answer in reverse order.

    The script has a word for each job: `lost` (its worker dies before it), `lost after` (it dies when the job is
    done), `gone` (it dies, and is never replaced), `replace` (the coordinator dies, and another one takes its place),
    `kill` and `kill after` (everything dies then), or None.
    """

    def __init__(self, settings: dict[str, Any], script: Iterator[str | None]) -> None:
        self.num_workers = settings["environment"]["num_workers"]
        self._settings = settings
        self._workers = [self._start(number) for number in range(self.num_workers)]
        self._script = script
        self.replace_coordinator: Callable[[], None] = lambda: None
        self._jobs: dict[int, Job] = {}
        self._gone: set[int] = set()
        self._asked = 0
        self.done: list[Job] = []
        self.outcomes: list[Outcome] = []

    def _start(self, number: int) -> Worker:
        return Worker({**self._settings, "number": number})

    def absent(self) -> set[int]:
        self._asked += 1
        assert self._asked < 20, "nothing is in flight, and nothing is handed out either"
        return self._gone

    def submit(self, worker: int, job: Job) -> None:
        assert worker not in self._jobs
        assert worker not in self._gone
        self._jobs[worker] = job

    def wait(self, timeout: float) -> list[tuple[int, Outcome]]:
        self._asked = 0
        worker, job = sorted(self._jobs.items())[-1]
        del self._jobs[worker]
        fault = next(self._script, None)
        if fault == "kill":
            raise KeyboardInterrupt
        if fault == "replace":
            self.replace_coordinator()
            fault = None
        outcome = self._workers[worker].run(job) if fault not in ("lost", "gone") else {}
        if fault == "kill after":
            raise KeyboardInterrupt
        if fault == "gone":
            self._gone.add(worker)
        if fault is not None:
            self._workers[worker] = self._start(worker)
            return [(worker, {"status": "lost", "key": job["key"], "reason": "killed by the test"})]
        if outcome["status"] == "done":
            self.done.append(job)
        self.outcomes.append(outcome)
        return [(worker, outcome)]


def run(settings: dict[str, Any], script: list[str | None]) -> ScriptedPool:
    """Drive the group until it ends or the script kills it."""
    pool = ScriptedPool(settings, iter(script))
    coordinator: Any = _Replaceable(settings)
    pool.replace_coordinator = coordinator.replace
    with contextlib.suppress(KeyboardInterrupt):
        drive(coordinator, pool, lambda progress: None)
    return pool


class _Replaceable:
    """A coordinator, and after it another one, as where its process dies and Ray starts it again."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._now = open_coordinator(settings)

    def replace(self) -> None:
        self._now.close()
        self._now = open_coordinator(self._settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._now, name)


def needs_torch(outcomes: list[Outcome]) -> bool:
    """Whether a process that receives them has to load torch, which takes it seconds and 150 MB."""
    program = "import pickle, sys; pickle.load(sys.stdin.buffer); print('torch' in sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(outcomes), capture_output=True, check=True
    )
    return told.stdout == b"True\n"


def state_of(settings: dict[str, Any]) -> GroupState:
    """What the group's ledger says."""
    with LedgerReader(Path(settings["ledger"])) as reader:
        return GroupState().apply(reader.rows())
