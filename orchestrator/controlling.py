"""Verbs that act on a sweep of an output here while it runs, or between two runs: logs, stop, drain, cancel, retry."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

from orchestrator import logbook
from orchestrator.comparison import Measured, find_run
from orchestrator.files import holder_of, host_of, owned
from orchestrator.ledger import open_ledger
from orchestrator.state import read_state
from orchestrator.stored_sweeps import publish, refresh
from orchestrator.sweep import Sweep, find_sweep
from supsup_core.errors import InputError, SupSupError

STOP_SECONDS = 120.0
"""How long a sweep that is stopped may take to commit and end."""


def logs(wanted: str | None, output: Path) -> int:
    """Print a sweep's log; while it runs, as it grows."""
    sweep = find_sweep(output, wanted)
    if not (sweep.path / logbook.NAME).exists():
        raise InputError(f"{sweep.sweep_id}: has no log: it has not been run; start it with `supsup resume`")
    logbook.show(sweep.path)
    return 0


def drain(wanted: str | None, output: Path) -> int:
    """Have a running sweep end what is under way, hand out no more, and end."""
    sweep, _ = _running(wanted, output)
    sweep.pause_path.touch()
    print(
        f"{sweep.sweep_id}: ends what is under way, and then itself; look with `supsup status`, "
        "go on with `supsup resume`"
    )
    return 0


def stop(wanted: str | None, output: Path) -> int:
    """Interrupt a running sweep, as Ctrl-C does, and wait until it has ended."""
    sweep, process = _running(wanted, output)
    if process <= 0 or host_of(sweep.path) != socket.gethostname():
        raise InputError(
            f"{sweep.sweep_id}: is run by a process of {host_of(sweep.path) or 'another machine'}; stop it there, or "
            f"have it end what is under way: supsup drain {sweep.sweep_id}"
        )
    try:
        os.kill(process, signal.SIGINT)
    except ProcessLookupError:
        pass  # it has just ended
    except PermissionError as error:
        raise InputError(f"{sweep.sweep_id}: process {process} is another user's; they can stop it") from error
    deadline = time.monotonic() + STOP_SECONDS
    while holder_of(sweep.path) is not None:
        if time.monotonic() > deadline:
            raise SupSupError(f"{sweep.sweep_id}: process {process} has not ended within {STOP_SECONDS:.0f} s")
        time.sleep(0.2)
    print(
        f"{sweep.sweep_id}: stopped; what was done is committed, and `supsup resume {sweep.sweep_id}` goes on with it"
    )
    return 0


def _running(wanted: str | None, output: Path) -> tuple[Sweep, int]:
    """A sweep that a process here runs, and that process; InputError where none does."""
    sweep = find_sweep(output, wanted)
    process = holder_of(sweep.path)
    if process is None:
        raise InputError(f"{sweep.sweep_id}: is not running here; for a job of a cluster, add --address")
    return sweep, process


def cancel(run: str, output: Path) -> int:
    """Give a run's training group up: at once where it is not running, else after what is under way."""
    refresh(output)
    found = find_run(run, output)
    path = found.sweep.stop_path(found.group.group_id)
    _tell_shared(found)
    if holder_of(found.sweep.path) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        print(f"{found.name}: ends after what is under way; `supsup retry` takes it up again")
        return 0
    with owned(found.sweep.path):
        state = read_state(found.sweep, found.group.group_id)
        if state.stopped is not None or state.status == "done":
            raise InputError(f"{found.name}: has ended already; there is nothing to cancel")
        writer, _, _ = open_ledger(found.sweep.ledger_path(found.group.group_id))
        writer.append("stopped", num_learned=max((n for _, n in state.points), default=0), reason="cancelled")
        writer.close()
        if found.sweep.storage is not None:
            publish(found.sweep, [])
    print(f"{found.name}: cancelled; `supsup retry` takes it up again")
    return 0


def retry(run: str, tasks: list[int], output: Path, cluster: str | None) -> int:
    """Take a run up that failed or was given up, and run its sweep. tasks: those that are to be trained again although
    they have been; what they give is the same, where the machine is sound."""
    from orchestrator import commands

    refresh(output)
    found = find_run(run, output)
    group_id = found.group.group_id
    _tell_shared(found)
    numbers = {shard.task: shard.key for shard in found.group.shards}
    for task in tasks:
        if task not in numbers:
            raise InputError(
                f"--task: {found.name} has no task {task} to train; it has 0 to {max(numbers, default=-1)}"
            )
    with owned(found.sweep.path):
        found.sweep.stop_path(group_id).unlink(missing_ok=True)
        store = found.sweep.store
        writer, _, _ = open_ledger(found.sweep.ledger_path(group_id))
        writer.append("retry", tasks=tasks)
        for task in tasks:
            key = numbers[task]
            if store.has(key):
                aside = store.quarantine(key)
                writer.append("lost", key=key, task=task, file=str(aside), reason="asked to be trained again")
        writer.close()
    return commands.run(found.sweep, cluster)


def _tell_shared(found: Measured) -> None:
    """Say which other runs are concerned: those that share their training."""
    others = [run.name for run in found.group.runs if run.run_id != found.run.run_id]
    if others:
        print(f"its training is also that of: {'; '.join(others)}")
