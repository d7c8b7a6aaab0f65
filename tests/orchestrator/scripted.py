"""Driving a group in this process, with workers that fail as a script says."""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.ledger import LedgerReader
from orchestrator.outcomes import Job, Outcome
from orchestrator.state import GroupState
from orchestrator.trial import WorkerPool, drive, open_coordinator
from orchestrator.worker import Worker


class ScriptedPool(WorkerPool):
    """Workers that answer in reverse order.

    The script has a word for each job: `lost` (its worker dies before it), `lost after` (it dies when the job is
    done), `kill` and `kill after` (everything dies then), or None.
    """

    def __init__(self, settings: dict[str, Any], script: Iterator[str | None]) -> None:
        self.num_workers = settings["environment"]["num_workers"]
        self._settings = settings
        self._workers = [self._start(number) for number in range(self.num_workers)]
        self._script = script
        self._jobs: dict[int, Job] = {}
        self.done: list[Job] = []
        self.outcomes: list[Outcome] = []

    def _start(self, number: int) -> Worker:
        return Worker({**self._settings, "number": number})

    def submit(self, worker: int, job: Job) -> None:
        assert worker not in self._jobs
        self._jobs[worker] = job

    def wait(self, timeout: float) -> list[tuple[int, Outcome]]:
        worker, job = sorted(self._jobs.items())[-1]
        del self._jobs[worker]
        fault = next(self._script, None)
        if fault == "kill":
            raise KeyboardInterrupt
        outcome = self._workers[worker].run(job) if fault != "lost" else {}
        if fault == "kill after":
            raise KeyboardInterrupt
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
    with contextlib.suppress(KeyboardInterrupt):
        drive(open_coordinator(settings), pool, lambda progress: None)
    return pool


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
