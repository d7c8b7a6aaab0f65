"""A launch of a sweep: what `sweep`, `resume`, `evaluate`, `fork`, `retry` and `fsck --repair` have in common."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from orchestrator.base import environment
from orchestrator.base.folder_lock import owned
from orchestrator.cli.conclusion import conclude
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.interrupts import Interrupts
from orchestrator.coordination.settings import GroupSettings
from orchestrator.execution.launch import launch, prepare_data, take_stock
from orchestrator.results.event_log import LogFile
from orchestrator.results.progress_line import ProgressLine
from orchestrator.sweeps.lookup import read_state
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.sweep_transfer import take_over
from orchestrator.sweeps.training_groups import Group
from orchestrator.tracking.monitor import Monitor
from supsup_core.errors import CorruptError, InputError, SupSupError

log = logging.getLogger("supsup")


def with_workers(sweep: Sweep, num_workers: int | None) -> Sweep:
    """The sweep with at most so many workers per training group; None: as it is."""
    if num_workers is None:
        return sweep
    resources = replace(sweep.config.resources, num_workers=num_workers)
    return replace(sweep, config=replace(sweep.config, resources=resources))


def run(sweep: Sweep, cluster: str | None, groups: Sequence[Group] | None = None) -> ExitCode:
    """Run what is left of a sweep, write its report and its MLflow runs, and print a summary.

    cluster: see `launch`. groups: the sweep's plan, where it is known already. InputError, before anything starts, for
    a missing device or dataset, and when another process runs the sweep.
    """
    groups = groups or sweep.plan()
    refuse_impossible(sweep, cluster)
    prepare_data(groups, sweep.data_root)
    folder = sweep.folder
    with owned(folder.path), _logged_to(folder.log_file):
        _prepare_folder(sweep)
        has_rounds = any(group.experiment.allocation is not None for group in groups)
        with Interrupts(folder.pause_file, has_rounds) as interrupts:
            sweep.save(groups)
            try:
                return _run_to_end(sweep, groups, cluster, interrupts)
            except KeyboardInterrupt:
                interrupts.end_rounds()
                print(
                    "\ninterrupted before the summary was complete; everything finished is committed. "
                    f"Go on with: {sweep.command('resume')}"
                )
                return ExitCode.INTERRUPTED


def refuse_impossible(sweep: Sweep, cluster: str | None) -> None:
    """InputError for a search without Ray, and where this machine has fewer CUDA devices than workers need."""
    if cluster is None and sweep.config.search is not None:
        raise InputError("--local: Ray Tune compares the trials of a search; leave --local out")
    resources = sweep.config.resources
    if resources.device == "cpu":
        return
    if cluster not in (None, "local"):
        return  # its nodes have the devices, and may still have to start
    num_devices = torch.cuda.device_count()
    if num_devices < resources.num_workers:
        raise InputError(
            f"resources.device: {resources.num_workers} workers need a CUDA device each and {num_devices} are here; "
            "set resources.num_workers, or resources.device=cpu"
        )


@contextlib.contextmanager
def _logged_to(path: Path) -> Iterator[None]:
    """Within the block, this project's messages go to a file as JSON lines, and warnings also to standard error."""
    file = LogFile(path)
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(logging.WARNING)
    console.setFormatter(logging.Formatter("supsup: %(message)s"))
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(file)
    log.addHandler(console)
    try:
        yield
    finally:
        log.removeHandler(file)
        log.removeHandler(console)
        file.close()


def _prepare_folder(sweep: Sweep) -> None:
    """Remove requests of an earlier launch, and become the only writer of the sweep in its storage."""
    sweep.folder.pause_file.unlink(missing_ok=True)
    if sweep.storage is not None:
        take_over(sweep)
    for stop_file in sweep.folder.stop_files():
        with contextlib.suppress(CorruptError):
            if read_state(sweep.folder.group(stop_file.parent.name)).status == "done":
                stop_file.unlink()  # the group had ended before it could stop; the request must not stop this launch


def _run_to_end(sweep: Sweep, groups: Sequence[Group], cluster: str | None, interrupts: Interrupts) -> ExitCode:
    """Run the groups while a monitor shows progress and writes MLflow; then conclude."""
    described = environment.describe(sweep.imports_folder)
    started = time.monotonic()
    with ProgressLine() as progress:
        monitor = Monitor(sweep, groups, described, progress)
        try:
            with interrupts.contain():
                unfinished = take_stock(sweep, groups, described, cluster)
                monitor.start()
                _launch(sweep, unfinished, cluster, interrupts)
        finally:
            monitor.stop()
    is_done = monitor.status().state_when_idle() == "done"
    interrupted = interrupts.cut_short or (interrupts.requested and not is_done)
    return conclude(sweep, groups, monitor, interrupted, time.monotonic() - started)


def _launch(sweep: Sweep, unfinished: Mapping[str, GroupSettings], cluster: str | None, interrupts: Interrupts) -> None:
    """Run groups to their end. An error that stops all of them, such as a full disk, is logged."""
    try:
        launch(sweep, unfinished, cluster, lambda: interrupts.raised)
    except InputError:
        raise
    except SupSupError as error:
        log.warning("%s", error)
        log.info("the sweep was stopped", exc_info=True)
