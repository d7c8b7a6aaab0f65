"""A module for a sweep's `imports` that kills processes at planned moments, each once.

SUPSUP_TEST_FAILPOINTS names a folder with plan.json, a list of {"target", "point", "round"} and perhaps "fault".
A kill fires the first time its point is reached in its round or a later one (commits follow the clock, so that not
every round has one). It leaves fired-<index> behind first, so that it never fires again. Without the variable nothing
is touched. A fault is raised instead of a kill: `disk_full` or `read_only`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import psutil

from orchestrator.execution.worker import Worker
from orchestrator.nns.coordinator import StreamCoordinator
from orchestrator.nns.round import Round
from orchestrator.records import artifact_store
from supsup_core.methods import supsup

POINTS: dict[str, tuple[str, ...]] = {
    "worker": ("deciding", "training", "saving", "saved"),
    "coordinator": ("deciding", "decided", "committing", "in_commit", "committed"),
    "driver": ("deciding", "committing"),
    "all": ("decided", "in_commit", "committed"),
}
"""When each target can be killed: a worker inside its jobs, the others from inside the coordinator."""

_FOLDER = os.environ.get("SUPSUP_TEST_FAILPOINTS")
_now = {"round": -1}
"""The round that this process is at work for."""


def _claim(point: str, in_worker: bool) -> dict[str, Any] | None:
    """The kill that is due here and now, which no other process then has: it must be done."""
    folder = Path(str(_FOLDER))
    for index, kill in enumerate(json.loads((folder / "plan.json").read_text())):
        due = kill["point"] == point and kill["round"] <= _now["round"] and (kill["target"] == "worker") == in_worker
        if due:
            with contextlib.suppress(FileExistsError):
                (folder / f"fired-{index}").touch(exist_ok=False)
                return kill
    return None


def fire(point: str, in_worker: bool = False) -> None:
    """Do what is due at this point, if anything is."""
    if kill := _claim(point, in_worker):
        _do(kill, in_worker)


def _do(kill: dict[str, Any], in_worker: bool) -> None:
    folder = Path(str(_FOLDER))
    if "fault" in kill:
        if in_worker:
            number = errno.ENOSPC if kill["fault"] == "disk_full" else errno.EROFS
            raise OSError(number, os.strerror(number))
        words = "database or disk is full" if kill["fault"] == "disk_full" else "attempt to write a readonly database"
        raise sqlite3.OperationalError(words)
    victims = [os.getpid()]
    if kill["target"] in ("driver", "all"):
        driver = int((folder / "driver").read_text())
        below = psutil.Process(driver).children(recursive=True) if kill["target"] == "all" else []
        victims = [driver, *(process.pid for process in below if process.pid != os.getpid())]
        victims += [os.getpid()] if kill["target"] == "all" else []
    for victim in victims:
        os.kill(victim, signal.SIGKILL)


class _Connection:
    """A database whose transactions can be killed before they end."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def execute(self, text: str, *arguments: Any) -> Any:
        if text == "COMMIT":
            fire("in_commit")
        return self._inner.execute(text, *arguments)


def _arm_coordinator() -> None:
    next_jobs, decide, commit = StreamCoordinator.next_jobs, Round._decide, StreamCoordinator._commit

    def jobs_with_rounds(self: Any, *arguments: Any) -> Any:
        return [{**job, "chaos_round": self._num_rounds} for job in next_jobs(self, *arguments)]

    def decide_and_fire(self: Any) -> None:
        _now["round"] = self.number
        fire("deciding")
        decide(self)
        fire("decided")

    def commit_and_fire(self: Any, saved: Any) -> None:
        _now["round"] = self._num_rounds
        if not isinstance(self._ledger._db, _Connection):
            self._ledger._db = _Connection(self._ledger._db)
        fire("committing")
        commit(self, saved)
        fire("committed")

    StreamCoordinator.next_jobs = jobs_with_rounds  # type: ignore[method-assign]
    Round._decide = decide_and_fire  # type: ignore[method-assign]
    StreamCoordinator._commit = commit_and_fire  # type: ignore[method-assign]


def _arm_worker() -> None:
    run, train, write = Worker.run, supsup.ScoreTrainee.train, artifact_store.write_atomically
    before = {"decide": "deciding", "save": "saving", "evaluate": "evaluating"}

    def run_and_fire(self: Any, job: dict[str, Any]) -> Any:
        _now["round"] = job.get("chaos_round", -1)
        fire(before.get(job["kind"], ""), in_worker=True)
        outcome = run(self, job)
        fire("saved" if job["kind"] == "save" else "", in_worker=True)
        return outcome

    def train_and_fire(self: Any, task: Any, order: Any, num_points: int = 10) -> Any:
        if kill := _claim("training", in_worker=True):
            train(self, task, order[: len(order) // 2], 1)  # what is half trained must not go on
            _do(kill, in_worker=True)
        return train(self, task, order, num_points)

    def write_and_fire(path: Path, content: bytes) -> None:
        fire("writing", in_worker=True)
        write(path, content)

    Worker.run = run_and_fire  # type: ignore[method-assign]
    supsup.ScoreTrainee.train = train_and_fire  # type: ignore[method-assign]
    artifact_store.write_atomically = write_and_fire


if _FOLDER is not None:
    if sys.argv[0].endswith(("supsup", "cli.py")):
        (Path(_FOLDER) / "driver").write_text(str(os.getpid()))
    _arm_coordinator()
    _arm_worker()
