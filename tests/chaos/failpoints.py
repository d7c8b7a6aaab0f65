"""A module for a sweep's `imports` that kills processes at planned moments. Each kill is done once.

The environment variable SUPSUP_TEST_FAILPOINTS names a folder with plan.json: a list of {"target", "point", "round"},
optionally with "fault". Without the variable no failpoint is set. A kill is done when its point is first reached in
its round or in a later round, because commits depend on the clock and not every round has one. Before the kill, the
process creates the file fired-<index>, so that the kill is not repeated. With a "fault", the failpoint raises an error
(`disk_full` or `read_only`) and kills nothing. The coordinator writes the number of the current round into the folder,
and workers read it there. A commit counts as after that round.
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

from orchestrator.base.failpoints import set_failpoint
from orchestrator.base.files import write_atomically
from orchestrator.coordination.messages import DecideJob, EvaluateJob, SaveJob
from orchestrator.nns.mask_trainer import SegmentTraining
from orchestrator.nns.round import Round

POINTS: dict[str, tuple[str, ...]] = {
    "worker": ("deciding", "training", "saving", "saved", "evaluating"),
    "coordinator": ("deciding", "decided", "committing", "in_commit", "committed"),
    "driver": ("deciding", "committing"),
    "all": ("decided", "in_commit", "committed"),
}
"""The points at which each target can be killed. A worker kills itself inside a job. The coordinator's process kills
the other targets."""

AFTER_A_ROUND = ("saving", "saved", "evaluating", "committing", "in_commit", "committed")

_FOLDER = Path(os.environ.get("SUPSUP_TEST_FAILPOINTS", ""))
_committing: list[object] = []
"""Contains an entry while this process commits rounds. A ledger has other commits too, at which nothing is killed."""


def round_at(point: str) -> int:
    """Returns the round in which a point is reached; -1 before the first round."""
    try:
        number = int((_FOLDER / "round").read_text())
    except FileNotFoundError:
        return -1
    return number + (point in AFTER_A_ROUND)


def claim(point: str, in_worker: bool) -> dict[str, Any] | None:
    """Returns the planned kill that is due at this point, or None. Only one process gets it, and must then kill."""
    for index, kill in enumerate(json.loads((_FOLDER / "plan.json").read_text())):
        is_due = kill["point"] == point and kill["round"] <= round_at(point)
        if is_due and (kill["target"] == "worker") == in_worker:
            with contextlib.suppress(FileExistsError):
                (_FOLDER / f"fired-{index}").touch(exist_ok=False)
                return kill
    return None


def fire(point: str, in_worker: bool = False) -> None:
    """Performs the kill or fault that is due at this point, if there is one."""
    if kill := claim(point, in_worker):
        do(kill, in_worker)


def do(kill: dict[str, Any], in_worker: bool) -> None:
    """Kills the target, or raises the fault."""
    if "fault" in kill:
        if in_worker:
            number = errno.ENOSPC if kill["fault"] == "disk_full" else errno.EROFS
            raise OSError(number, os.strerror(number))
        words = "database or disk is full" if kill["fault"] == "disk_full" else "attempt to write a readonly database"
        raise sqlite3.OperationalError(words)
    victims = [os.getpid()]
    if kill["target"] in ("driver", "all"):
        driver = int((_FOLDER / "driver").read_text())
        below = psutil.Process(driver).children(recursive=True) if kill["target"] == "all" else []
        victims = [driver, *(process.pid for process in below if process.pid != os.getpid())]
        victims += [os.getpid()] if kill["target"] == "all" else []
    for victim in victims:
        os.kill(victim, signal.SIGKILL)


def open_round(subject: object) -> None:
    """A round begins: writes its number to the folder, for the workers."""
    write_atomically(_FOLDER / "round", str(subject).encode())


def decide(subject: object) -> None:
    """All decisions of a round are made."""
    if isinstance(subject, Round):
        fire("decided")


def begin_commit(subject: object) -> None:
    """The coordinator begins to commit rounds."""
    _committing.append(subject)
    fire("committing")


def commit_rows(subject: object) -> None:
    """A ledger is about to commit."""
    if _committing:
        fire("in_commit")


def end_commit(subject: object) -> None:
    """The coordinator has committed rounds."""
    _committing.clear()
    fire("committed")


def begin_job(subject: object) -> None:
    """A worker begins a job."""
    if isinstance(subject, DecideJob):
        fire("deciding", in_worker=True)
    elif isinstance(subject, SaveJob):
        fire("saving", in_worker=True)
    elif isinstance(subject, EvaluateJob):
        fire("evaluating", in_worker=True)


def end_job(subject: object) -> None:
    """A worker has finished a job."""
    if isinstance(subject, SaveJob):
        fire("saved", in_worker=True)


def begin_segment(subject: object) -> None:
    """A worker begins to train a segment. It trains half of the segment before the kill, so that the test detects a
    resume from this partial state."""
    if isinstance(subject, SegmentTraining) and (kill := claim("training", in_worker=True)):
        subject.trainee.train(subject.task, subject.order[: len(subject.order) // 2], num_points=1)
        do(kill, in_worker=True)


def set_all() -> None:
    """Sets all failpoints of this process."""
    if sys.argv[0].endswith(("supsup", "cli/__main__.py")):
        (_FOLDER / "driver").write_text(str(os.getpid()))
    set_failpoint("round_opened", open_round)
    set_failpoint("decided", decide)
    set_failpoint("job_begins", begin_job)
    set_failpoint("job_done", end_job)
    set_failpoint("segment_begins", begin_segment)
    set_failpoint("deciding", lambda subject: fire("deciding"))
    set_failpoint("committing", begin_commit)
    set_failpoint("in_commit", commit_rows)
    set_failpoint("committed", end_commit)
    set_failpoint("writing_artifact", lambda subject: fire("writing", in_worker=True))


if "SUPSUP_TEST_FAILPOINTS" in os.environ:
    set_all()
