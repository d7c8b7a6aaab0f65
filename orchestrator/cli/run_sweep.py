"""What each verb of the command line does that runs a sweep."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from orchestrator.base import environment
from orchestrator.base.folder_lock import owned
from orchestrator.base.wording import duration, in_shell
from orchestrator.execution.launch import launch, prepare_data, take_stock
from orchestrator.nns.fork import Start, fork_sweep
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledger import BehindError, FencedError
from orchestrator.records.object_storage import ASKING_SECONDS, Storage
from orchestrator.results import event_log
from orchestrator.results.progress_line import Progress
from orchestrator.spec.sweep_config import SweepConfig
from orchestrator.sweeps.lookup import open_sweep, read_state, read_states
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.sweep_transfer import fetch, fetched, prepare, publish, stored
from orchestrator.sweeps.training_groups import Group
from orchestrator.tracking.mlflow_writer import told_in_words, uri_of
from orchestrator.tracking.monitor import Monitor
from supsup_core.errors import CorruptError, InputError, SupSupError

if TYPE_CHECKING:  # pandas and matplotlib: a second, in which nothing has begun yet
    from orchestrator.results.report import Report

log = logging.getLogger("supsup")

DONE, FAILED, INTERRUPTED = 0, 1, 130
"""Exit codes; bad input is 2."""


def sweep(file: Path, overrides: Sequence[str], cluster: str | None, num_workers: int | None) -> int:
    """Run a sweep file to its end."""

    def opened() -> Sweep:
        found = open_sweep(file, overrides)
        if found.storage is not None and stored(found):
            fetch(Storage(found.storage.url, ASKING_SECONDS), found.output, found.sweep_id)
            found = open_sweep(file, overrides)
        return found if num_workers is None else replace(found, config=_with_workers(found.config, num_workers))

    return _run_newest(opened, cluster)


def _with_workers(config: SweepConfig, num_workers: int) -> SweepConfig:
    return replace(config, resources=replace(config.resources, num_workers=num_workers))


def resume(
    wanted: str | None,
    output: Path,
    data: str | None,
    storage: str | None,
    cluster: str | None,
    num_workers: int | None,
) -> int:
    """Go on with a sweep from what is on disk, or newer in the storage."""

    def opened() -> Sweep:
        found = fetched(storage, output, wanted)
        config = found.config
        if data is not None:
            config = replace(config, data=str(Path(data).expanduser().absolute()))
        if num_workers is not None:
            config = _with_workers(config, num_workers)
        return replace(found, config=config)

    return _run_newest(opened, cluster)


_FETCHES = 5
"""How often what another machine has stored meanwhile is fetched before it is left to that machine."""


def _run_newest(opened: Callable[[], Sweep], cluster: str | None) -> int:
    """Run a sweep that `opened` fetches. A machine that is at it still, until it finds itself replaced, may store more
    between the fetch and the run; that is then fetched, too."""
    for _ in range(_FETCHES - 1):
        try:
            return run(opened(), cluster)
        except BehindError as error:
            log.warning("fetching again: %s", error)
    return run(opened(), cluster)


def evaluate(wanted: str, overrides: Sequence[str], output: Path, cluster: str | None) -> int:
    """Evaluate a sweep's trained masks with another inference, as new runs of the sweep."""
    found = fetched(None, output, wanted).with_inference(overrides)
    states = read_states(found)
    groups = found.plan()
    there = set(replace(found, patience=ASKING_SECONDS).store)
    missing = 0
    for group in groups:
        state = states.get(group.group_id, GroupState())
        if state.given_up:
            continue  # what is not trained of it is not asked for
        if group.experiment.allocation:
            missing += group.size[0] - state.done_shards()
        else:
            missing += sum(shard.key not in there for shard in group.shards)
    if missing:
        raise InputError(f"{found.sweep_id}: {missing} shards are not trained; run `{found.command('resume')}` first")
    return run(found, cluster, groups)


def fork(
    wanted: str,
    overrides: Sequence[str],
    start: Start,
    output: Path,
    cluster: str | None,
    num_workers: int | None,
) -> int:
    """Start another sweep from what one had committed, and run it to its end."""
    made = fork_sweep(fetched(None, output, wanted), overrides, start)
    if num_workers is not None:
        made = replace(made, config=_with_workers(made.config, num_workers))
    return run(made, cluster)


def run(sweep: Sweep, cluster: str | None, groups: Sequence[Group] | None = None) -> int:
    """Run what is left of a sweep, show it, project it, report it; returns the exit code."""
    groups = groups or sweep.plan()
    _refuse_hopeless(sweep, cluster)
    prepare_data(groups, sweep.data_root)
    interrupt = _Interrupt(sweep, any(group.experiment.allocation for group in groups))
    with owned(sweep.path), _LoggingTo(sweep.path / event_log.NAME), contextlib.ExitStack() as handlers:
        sweep.pause_path.unlink(missing_ok=True)
        if sweep.storage is not None:
            prepare(sweep)
        for asked in sweep.path.glob("groups/*/stop"):
            with contextlib.suppress(CorruptError):
                if read_state(sweep, asked.parent.name).status == "done":
                    asked.unlink()  # it came too late, and is not meant for what follows
        handlers.callback(interrupt.settle)
        handlers.callback(setattr, sys, "unraisablehook", sys.unraisablehook)
        sys.unraisablehook = interrupt.unraisable
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers.callback(signal.signal, number, signal.signal(number, interrupt))
        sweep.save(groups)
        described = environment.describe(sweep.folder)
        started = time.monotonic()
        interrupted = False
        try:
            with Progress() as progress:
                monitor = Monitor(sweep, groups, described, progress)
                try:
                    unfinished = take_stock(sweep, groups, described, cluster)
                    monitor.start()
                    _launch(sweep, unfinished, cluster, interrupt)
                    wanted = sweep.pause_path.exists() or interrupt.raised
                    interrupted = wanted and monitor.status().state_when_idle() != "done"
                except KeyboardInterrupt:
                    interrupted = True
                except Exception:
                    if not interrupt.raised:
                        raise
                    log.info("an error after the interrupt", exc_info=True)  # which a library has caught
                    interrupted = True
                finally:
                    interrupt.settle()
                    monitor.stop()
            return _conclude(sweep, groups, monitor, interrupted, time.monotonic() - started)
        except KeyboardInterrupt:
            interrupt.settle()
            print(
                "\ninterrupted before all of it was told; everything finished is committed. "
                f"Go on with: {sweep.command('resume')}"
            )
            return INTERRUPTED


def _launch(sweep: Sweep, unfinished: dict[str, dict[str, Any]], cluster: str | None, interrupt: _Interrupt) -> None:
    """Run groups to their end. What stops them all, such as a full disk, is told; the ledgers say what was done."""
    try:
        launch(sweep, unfinished, cluster, lambda: interrupt.raised)
    except InputError:
        raise
    except SupSupError as error:
        log.warning("%s", error)
        log.info("the sweep was stopped", exc_info=True)


def _refuse_hopeless(sweep: Sweep, cluster: str | None) -> None:
    """InputError for what could not be had, before anything waits for it."""
    if cluster is None and sweep.config.search is not None:
        raise InputError("--local: Ray Tune compares the trials of a search; leave --local out")
    resources = sweep.config.resources
    if resources.device == "cpu":
        return
    if cluster not in (None, "local"):
        return  # devices are on its nodes, which may have yet to come
    found = torch.cuda.device_count()
    if found < resources.num_workers:
        raise InputError(
            f"resources.device: {resources.num_workers} workers need a CUDA device each and {found} are here; "
            "set resources.num_workers, or resources.device=cpu"
        )


PAUSE_SECONDS = 60.0
"""How long a round that is under way may take to end before a pause becomes an interrupt."""

SOON_SECONDS = 0.05
"""How long an interrupt waits at a time where it cannot be raised."""


class _Interrupt:
    """What Ctrl-C and SIGTERM do: in NNs, ask for a pause at the next round boundary; else, or again, interrupt."""

    def __init__(self, sweep: Sweep, has_rounds: bool) -> None:
        self._sweep = sweep
        self._has_rounds = has_rounds
        self._timers: list[threading.Timer] = []
        self.raised = False
        """Whether KeyboardInterrupt was raised."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if _is_importing(frame):  # what is raised there can leave a lock of the interpreter's taken for ever
            self._again(number, SOON_SECONDS)
            return
        if not self._has_rounds or self._sweep.pause_path.exists():
            self.raised = True
            raise KeyboardInterrupt
        self._sweep.pause_path.touch()
        print("pausing at the end of the round, which is then committed; again to stop at once", file=sys.stderr)
        self._again(number, PAUSE_SECONDS)

    def _again(self, number: int, seconds: float) -> None:
        timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def unraisable(self, ignored: sys.UnraisableHookArgs) -> None:
        """In the place of sys.unraisablehook: Python ignores what is raised in a callback, as of a weak reference."""
        if ignored.exc_type is KeyboardInterrupt:
            self._again(signal.SIGINT, SOON_SECONDS)
        else:
            sys.__unraisablehook__(ignored)

    def settle(self) -> None:
        """The rounds are over, and what was asked for is done. It does not come again; what comes now interrupts."""
        self._has_rounds = False
        for timer in self._timers:
            timer.cancel()


def _is_importing(frame: FrameType | None) -> bool:
    """Whether this is within the loading of a module."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _conclude(sweep: Sweep, groups: Sequence[Group], monitor: Monitor, interrupted: bool, seconds: float) -> int:
    """Print the summary, attach the report, and choose the exit code."""
    from orchestrator.results.report import write_report

    now = monitor.status()
    report: Report | None = None
    if any(state.points for state in monitor.states.values()):
        report = write_report(sweep, groups, monitor.states)
    trained = [row for state in monitor.states.values() for row in state.trained.values()]
    reused = sum(row.payload["seconds"] is None for row in trained)
    found = f" ({reused} shards found already trained)" if reused else ""
    print(
        f"\n{sweep.sweep_id}: {now.shards_done}/{now.shards} shards, "
        f"{now.evaluations_done}/{now.evaluations} evaluations in {duration(seconds)}{found}"
    )
    if report is not None:
        print(f"\n{report.text}")
        if report.trouble is None:
            print(f"\nreport:  {report.folder}")
    elif sweep.config.search is not None and now.state_when_idle() == "done":
        print("\nno trial was judged: all of them diverged; search.space asks for too high rates, or too much else")
    how = "" if sweep.config.tracking else f"  (open it with: supsup ui output={in_shell(sweep.output)})"
    print(f"MLflow:  {uri_of(sweep)}{how}")
    for state in monitor.states.values():
        unlearned = state.segments_not_trained()
        if unlearned:
            print(
                f"WARNING  {state.group['runs'][0]['name']}: {unlearned} of {len(state.decisions)} segments were not "
                "trained on, because all masks of the budget were taken; raise budget.num_masks, or set "
                "budget.on_exhausted=reclaim"
            )
    for group in now.groups:
        for lost in group.lost:
            print(f"made again: {lost}")
        for task in group.cancelled:
            print(f"cancelled: task {task} of {group.runs[0]}; `supsup retry` takes it up again")
        for failure in group.failures:
            print(f"FAILED  {failure}")
    if sweep.pause_path.exists() and (told := sweep.pause_path.read_text()):
        print(f"WARNING  {told}")
    if interrupted:
        print(f"interrupted; everything finished is committed. Go on with: {sweep.command('resume')}")
    elif now.state_when_idle() != "done":
        print(
            f"some runs failed; the tracebacks: {sweep.command('logs')}\n"
            f"Mend the cause, then: {sweep.command('resume')}"
        )
    if report is not None and report.trouble is not None:
        log.warning("%s", report.trouble)
    written = _close_tracking(sweep, monitor, report) and (report is None or report.trouble is None)
    if sweep.storage is not None:
        written &= _close_storage(sweep, report)
    if interrupted:
        return INTERRUPTED
    return DONE if written and now.state_when_idle() == "done" else FAILED


def _close_tracking(sweep: Sweep, monitor: Monitor, report: Report | None) -> bool:
    """Write what MLflow is owed and end its runs. The results stand without it: trouble is told, not raised."""
    try:
        with told_in_words(sweep):
            monitor.finish(report.files if report else [])
    except SupSupError as error:
        log.warning("%s", error)
        log.info("MLflow could not be written", exc_info=True)
        return False
    return True


def _close_storage(sweep: Sweep, report: Report | None) -> bool:
    """Have in the storage what it is owed. The results are here without it: trouble is told, not raised."""
    try:
        publish(sweep, report.files if report else [])
    except FencedError as error:
        log.warning("%s", error)
        return False
    except SupSupError as error:
        log.warning("%s", error)
        print(f"what the storage is owed is here, and goes there with: {sweep.command('resume')}")
        return False
    print(f"storage: {sweep.config.storage}")
    return True


class _LoggingTo:
    """Log warnings of this project to standard error and all its messages to a file, for a while."""

    def __init__(self, path: Path) -> None:
        self._file = event_log.LogFile(path)
        self._console = logging.StreamHandler(sys.stderr)
        self._console.setLevel(logging.WARNING)
        self._console.setFormatter(logging.Formatter("supsup: %(message)s"))

    def __enter__(self) -> None:
        log.setLevel(logging.INFO)
        log.propagate = False
        log.addHandler(self._file)
        log.addHandler(self._console)

    def __exit__(self, *_: object) -> None:
        log.removeHandler(self._file)
        log.removeHandler(self._console)
        self._file.close()
