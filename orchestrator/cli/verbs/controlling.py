"""Verbs that act on a sweep of an output here while it runs, or between two runs: logs, stop, drain, cancel, retry."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

from orchestrator.base.folder_lock import holder_of, host_of, owned
from orchestrator.coordination.control_files import Cancelled
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledger import open_ledger
from orchestrator.results import event_log
from orchestrator.sweeps.lookup import Measured, find_run, find_sweep, read_state
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.sweep_transfer import publish, refresh
from supsup_core.errors import InputError, SupSupError

STOP_SECONDS = 120.0
"""How long a sweep that is stopped may take to commit and end."""


def logs(wanted: str | None, output: Path) -> int:
    """Print a sweep's log; while it runs, as it grows."""
    sweep = find_sweep(output, wanted)
    if not (sweep.path / event_log.NAME).exists():
        raise InputError(
            f"{sweep.sweep_id}: has no log: it has not been run; start it with `{sweep.command('resume')}`"
        )
    event_log.show(sweep.path)
    return 0


def drain(wanted: str | None, output: Path) -> int:
    """Have a running sweep end what is under way, hand out no more, and end."""
    sweep, _ = _running(wanted, output)
    sweep.pause_path.touch()
    print(
        f"{sweep.sweep_id}: ends what is under way, and then itself; look with `{sweep.command('status')}`, "
        f"go on with `{sweep.command('resume')}`"
    )
    return 0


def stop(wanted: str | None, output: Path) -> int:
    """Interrupt a running sweep, as Ctrl-C does, and wait until it has ended."""
    sweep, process = _running(wanted, output)
    if process <= 0 or host_of(sweep.path) != socket.gethostname():
        raise InputError(
            f"{sweep.sweep_id}: is run by a process of {host_of(sweep.path) or 'another machine'}; stop it there, or "
            f"have it end what is under way: {sweep.command('drain')}"
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
    print(f"{sweep.sweep_id}: stopped; what was done is committed, and `{sweep.command('resume')}` goes on with it")
    return 0


def _running(wanted: str | None, output: Path) -> tuple[Sweep, int]:
    """A sweep that a process here runs, and that process; InputError where none does."""
    sweep = find_sweep(output, wanted)
    process = holder_of(sweep.path)
    if process is None:
        raise InputError(f"{sweep.sweep_id}: is not running here; for a job of a cluster, add --address")
    return sweep, process


def cancel(run: str, tasks: list[int], output: Path) -> int:
    """Give a run's training group up, or some of its tasks: at once where it is not running. Where it is, a group ends
    after what is under way, and training of those tasks is abandoned."""
    refresh(output)
    found = find_run(run, output)
    group_id = found.group.group_id
    keys = _keys_of(found, tasks)
    _unfinished(found, keys)
    _tell_shared(found)
    if holder_of(found.sweep.path) is not None:
        if tasks:
            Cancelled(found.sweep.cancel_path(group_id)).add(tasks)
            print(f"{_named(found, tasks)}: asked to be given up; `supsup retry` takes it up again")
        else:
            path = found.sweep.stop_path(group_id)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            print(f"{found.name}: ends after what is under way; `supsup retry` takes it up again")
        return 0
    with owned(found.sweep.path):
        state = _unfinished(found, keys)
        writer, _, _ = open_ledger(found.sweep.ledger_path(group_id))
        if tasks:
            writer.commit([("cancelled", {"key": key, "task": task}, None) for task, key in keys.items()])
        else:
            writer.append("stopped", num_learned=max((n for _, n in state.points), default=0), reason="cancelled")
        writer.close()
        if found.sweep.storage is not None:
            publish(found.sweep, [])
    print(f"{_named(found, tasks)}: cancelled; `supsup retry` takes it up again")
    return 0


def retry(run: str, tasks: list[int], output: Path, cluster: str | None) -> int:
    """Take a run up that failed or was given up, and run its sweep. tasks: those alone, of what was cancelled; such as
    have been trained are trained again, and give the same where the machine is sound."""
    from orchestrator.cli import run_sweep

    refresh(output)
    found = find_run(run, output)
    group_id = found.group.group_id
    _tell_shared(found)
    keys = _keys_of(found, tasks)
    with owned(found.sweep.path):
        found.sweep.stop_path(group_id).unlink(missing_ok=True)
        Cancelled(found.sweep.cancel_path(group_id)).remove(tasks)
        store = found.sweep.store
        writer, _, _ = open_ledger(found.sweep.ledger_path(group_id))
        writer.append("retry", tasks=tasks)
        for task, key in keys.items():
            if store.has(key):
                aside = store.quarantine(key)
                writer.append("lost", key=key, task=task, file=str(aside), reason="asked to be trained again")
        writer.close()
    return run_sweep.run(found.sweep, cluster)


def _unfinished(found: Measured, keys: dict[int, str]) -> GroupState:
    """The state of a run's training group; InputError where it, or one of the tasks with these keys, is done."""
    state = read_state(found.sweep, found.group.group_id)
    if state.stopped is not None or state.status == "done":
        raise InputError(f"{found.name}: has ended already; there is nothing to cancel")
    if done := [task for task, key in keys.items() if key in state.trained]:
        raise InputError(f"--task: task {done[0]} of {found.name} is trained already; there is nothing to cancel")
    return state


def _keys_of(found: Measured, tasks: list[int]) -> dict[int, str]:
    """The keys of some tasks of a run; InputError for one that it has not."""
    numbers = {shard.task: shard.key for shard in found.group.shards}
    for task in tasks:
        if not numbers:
            raise InputError(f"--task: {found.name} is NNs, where no tasks are given; name the run alone")
        if task not in numbers:
            raise InputError(f"--task: {found.name} has no task {task} to train; it has 0 to {max(numbers)}")
    return {task: numbers[task] for task in tasks}


def _named(found: Measured, tasks: list[int]) -> str:
    """A run, or the tasks of it that are meant."""
    if not tasks:
        return found.name
    return f"{'task' if len(tasks) == 1 else 'tasks'} {', '.join(map(str, tasks))} of {found.name}"


def _tell_shared(found: Measured) -> None:
    """Say which other runs are concerned: those that share their training."""
    others = [run.name for run in found.group.runs if run.run_id != found.run.run_id]
    if others:
        print(f"its training is also that of: {'; '.join(others)}")
