"""Runs a sweep for the commands `sweep`, `resume`, `evaluate`, `fork`, `retry` and `fsck --repair`."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from orchestrator.base import environment
from orchestrator.base.environment import usable_cpus
from orchestrator.base.files import is_utf8
from orchestrator.base.folder_lock import owned
from orchestrator.base.memory_limit import LIBRARIES_BYTES, require_memory
from orchestrator.base.wording import count, say
from orchestrator.cli.conclusion import conclude
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.interrupts import Interrupts
from orchestrator.cli.terminal import lossy_streams
from orchestrator.coordination.control_files import forget_waiting
from orchestrator.coordination.settings import GroupSettings
from orchestrator.execution.launch import launch, prepare_data, take_stock
from orchestrator.execution.ray_preparation import prepare_for
from orchestrator.records.ledgers.ledger_file import merge_side_files
from orchestrator.results.event_log import LogFile
from orchestrator.results.progress_line import ProgressLine
from orchestrator.spec.sweep_config import Resources
from orchestrator.sweeps.cost_estimate import check_memory
from orchestrator.sweeps.lookup import read_state
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.sweep_transfer import take_over
from orchestrator.sweeps.training_groups import Group
from orchestrator.tracking.monitor import Monitor
from supsup_core.errors import CorruptError, InputError, SupSupError
from supsup_core.kernels.matmul import set_algorithms

log = logging.getLogger("supsup")

_CROWDED = 2
"""A warning is logged if there are more than this many threads for each CPU."""


def with_workers(sweep: Sweep, num_workers: int | None) -> Sweep:
    """Returns the sweep with at most `num_workers` workers per training group.

    If `num_workers` is None, returns the sweep unchanged.
    """
    if num_workers is None:
        return sweep
    resources = replace(sweep.config.resources, num_workers=num_workers)
    return replace(sweep, config=replace(sweep.config, resources=resources))


def run(sweep: Sweep, cluster: str | None, groups: Sequence[Group] | None = None) -> ExitCode:
    """Runs the remaining work of a sweep, writes its report and its MLflow runs, and prints a summary.

    cluster: the address of a Ray cluster, `local`, or None for this process. groups: the sweep's plan; if None, this
    function computes the plan. Raises InputError, before any training starts, if a device or dataset is missing, or if
    another process is running the sweep. Raises MemoryLimitError if the limit of this process is too low.
    """
    require_memory(LIBRARIES_BYTES)
    groups = groups or sweep.plan()
    refuse_impossible(sweep, cluster)
    if cluster in (None, "local") and sweep.config.resources.device == "cpu":
        for group in groups:
            check_memory(group.experiment)
    prepare_data(groups, sweep.data_root)
    _set_environment(sweep.config.resources, cluster)
    folder = sweep.folder
    with owned(folder.path), lossy_streams(), _logged_to(folder.log_file):
        _prepare_folder(sweep)
        has_rounds = any(group.experiment.allocation is not None for group in groups)
        with Interrupts(folder.pause_file, has_rounds) as interrupts:
            sweep.save(groups)
            _warn_if_crowded(sweep.config.resources, cluster)
            try:
                return _run_to_end(sweep, groups, cluster, interrupts)
            except KeyboardInterrupt:
                interrupts.end_rounds()
                say(
                    "\ninterrupted before the summary was complete; all finished work is committed. "
                    f"Go on with: {sweep.command('resume')}"
                )
                return ExitCode.INTERRUPTED


def refuse_impossible(sweep: Sweep, cluster: str | None) -> None:
    """Raises InputError for a search without Ray, for a command line that Ray cannot read, and for a machine with fewer
    CUDA devices than a group needs."""
    odd = [word for word in sys.argv if not is_utf8(word)]
    if odd and cluster is not None:
        raise InputError(
            f"{odd[0]}: is not valid UTF-8, so Ray cannot read the command line; rename the file or folder, or add "
            "--local"
        )
    if cluster is None and sweep.config.search is not None:
        raise InputError("--local: a search needs Ray Tune, which compares the trials; remove --local")
    resources = sweep.config.resources
    if resources.device == "cpu":
        return
    if cluster not in (None, "local"):
        return  # the cluster's nodes have the devices, and may not have started yet
    num_devices = torch.cuda.device_count()
    if num_devices < resources.num_workers:
        raise InputError(
            f"resources.device: {resources.num_workers} workers need {resources.num_workers} CUDA devices, but this "
            f"machine has {num_devices}; lower resources.num_workers, or set resources.device=cpu"
        )


def _set_environment(resources: Resources, cluster: str | None) -> None:
    """Sets the environment variables that training needs, before this process has several threads. `prepare_for` says
    why."""
    if cluster is not None:
        prepare_for(cluster)
    elif resources.deterministic:
        set_algorithms(deterministic=True)


def _warn_if_crowded(resources: Resources, cluster: str | None) -> None:
    """Logs a warning if the workers of one training group have far more threads than this machine has CPUs."""
    if cluster not in (None, "local"):
        return  # Ray places the workers on nodes with free CPUs
    workers, cpus = 1 if cluster is None else resources.num_workers, usable_cpus()
    if workers * resources.threads > _CROWDED * cpus:
        best = f"threads={cpus}" if cluster is None else f"num_workers={cpus} and resources.threads=1"
        log.warning(
            "this machine has %s for %s with %s per worker, so the threads slow one another down; set resources.%s to "
            "use all CPUs", count(cpus, "CPU"), count(workers, "worker"), count(resources.threads, "thread"), best,
        )  # fmt: skip


@contextlib.contextmanager
def _logged_to(path: Path) -> Iterator[None]:
    """Writes this project's log messages within the `with` block to a file, as JSON lines."""
    file = LogFile(path)
    log.setLevel(logging.INFO)
    log.addHandler(file)
    log.propagate = False  # libraries may log to the terminal through the root logger
    try:
        yield
    finally:
        log.propagate = True
        log.removeHandler(file)
        file.close()


def _prepare_folder(sweep: Sweep) -> None:
    """Removes outdated control files. If the sweep has a storage, fences off other processes that run this sweep."""
    sweep.folder.pause_file.unlink(missing_ok=True)
    forget_waiting(sweep.folder)
    if sweep.storage is not None:
        take_over(sweep)
    for stop_file in sweep.folder.stop_files():
        with contextlib.suppress(CorruptError):
            if read_state(sweep.folder.group(stop_file.parent.name)).status == "done":
                stop_file.unlink()  # the group ended before it read this request, which must not stop its next run


def _run_to_end(sweep: Sweep, groups: Sequence[Group], cluster: str | None, interrupts: Interrupts) -> ExitCode:
    """Runs the groups while a monitor shows progress and writes to MLflow.

    After the groups have ended, prints the summary and the report.
    """
    described = environment.describe(sweep.imports_folder)
    started = time.monotonic()
    with ProgressLine() as progress:
        monitor = Monitor(sweep, groups, described, progress)
        try:
            with interrupts.contain():
                unfinished = take_stock(sweep, groups, described, cluster)
                progress.update(monitor.status())
                _launch(sweep, unfinished, cluster, monitor, interrupts)
        finally:
            monitor.stop()
    is_done = monitor.status().state_when_idle() == "done"
    interrupted = interrupts.cut_short or (interrupts.requested and not is_done)
    code = conclude(sweep, groups, monitor, interrupted, time.monotonic() - started)
    monitor.close()
    _merge_ledgers(sweep)
    return code


def _merge_ledgers(sweep: Sweep) -> None:
    """Merges the SQLite -wal file of each ledger into the ledger.

    Logs errors instead of raising them, because `supsup resume` can read both files.
    """
    for group in sweep.folder.groups():
        try:
            merge_side_files(group.ledger)
        except sqlite3.Error as error:
            log.warning(
                "%s: the rows in SQLite's -wal file cannot be moved into this ledger (%s); keep both files for "
                "`supsup resume`",
                group.ledger,
                error,
            )


def _launch(
    sweep: Sweep,
    unfinished: Mapping[str, GroupSettings],
    cluster: str | None,
    monitor: Monitor,
    interrupts: Interrupts,
) -> None:
    """Runs each group to its end. Logs an error that stops all groups, such as a full disk.

    The monitor is started after Ray, because the monitor loads MLflow, which would slow down the start of Ray.
    """
    try:
        launch(sweep, unfinished, cluster, lambda: interrupts.raised, monitor.start)
    except InputError:
        raise
    except SupSupError as error:
        log.warning("%s", error)
        log.info("an error stopped the sweep", exc_info=True)
