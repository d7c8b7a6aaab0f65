"""Ends a command that ran a sweep: ends its MLflow runs, then writes the report and prints a summary.

The MLflow runs are ended first, because the report, a figure or the terminal may fail.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.base.wording import count, duration, first_line, in_shell, say
from orchestrator.cli.arguments import run_command
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.records.ledgers.ledger import FencedError
from orchestrator.results.machines import MEANING, computed_on
from orchestrator.results.status import SweepStatus
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.sweep_transfer import publish
from orchestrator.sweeps.training_groups import Group
from orchestrator.tracking.mlflow_address import explained, tracking_uri_of
from orchestrator.tracking.monitor import Monitor
from supsup_core.errors import SupSupError

if TYPE_CHECKING:  # loads pandas and matplotlib
    from orchestrator.results.report import Report

log = logging.getLogger("supsup")


def conclude(sweep: Sweep, groups: Sequence[Group], monitor: Monitor, interrupted: bool, seconds: float) -> ExitCode:
    """Ends the sweep's MLflow runs, writes the report, and prints a summary. Returns the exit code.

    interrupted: whether Ctrl-C, SIGTERM or `supsup drain` stopped the sweep before its end. seconds: the time since
    the command started to run the sweep.
    """
    status = monitor.status()
    is_done = status.state_when_idle() == "done"
    written = _write_to_mlflow(sweep, monitor.finish)
    report = None
    has_results = any(state.points for state in monitor.states.values())
    if has_results:
        report = _write_report(sweep, groups, monitor)
        written &= report is not None and report.trouble is None
    files = report.files if report else []
    if written and files:
        written &= _write_to_mlflow(sweep, lambda: monitor.attach(files))
    _print_summary(sweep, status, monitor, seconds)
    _print_report(sweep, report, is_done and not has_results)
    _print_warnings(sweep, groups, status, monitor)
    if interrupted:
        say(f"interrupted; all finished work is committed. Go on with: {sweep.command('resume')}")
    elif status.state_when_idle() == "interrupted":
        say(f"an error stopped the sweep; correct its cause, then continue with: {sweep.command('resume')}")
    elif not is_done:
        say(
            f"some runs failed; read the tracebacks with: {sweep.command('logs')}\n"
            f"Fix the cause, then continue with: {sweep.command('resume')}"
        )
    if report is not None and report.trouble is not None:
        log.warning("%s", report.trouble)
    if sweep.storage is not None:
        written &= _complete_storage(sweep, files)
    if interrupted:
        return ExitCode.INTERRUPTED
    return ExitCode.DONE if written and is_done else ExitCode.FAILED


def _write_report(sweep: Sweep, groups: Sequence[Group], monitor: Monitor) -> Report | None:
    """Writes the report and returns it. If the report cannot be written, logs the error and returns None."""
    try:
        from orchestrator.results.report import write_report  # pandas and matplotlib take a second to load

        return write_report(sweep, groups, monitor.states)
    except Exception as error:
        log.warning(
            "the report cannot be written (%s: %s); correct the cause, then run `%s`",
            type(error).__name__,
            first_line(error),
            sweep.command("report"),
        )
        log.info("the report could not be written", exc_info=True)
        return None


def _print_summary(sweep: Sweep, status: SweepStatus, monitor: Monitor, seconds: float) -> None:
    """Prints how many shards and evaluations are done, and how many shards the store already had."""
    trained = [row.event for state in monitor.states.values() for row in state.trained.values()]
    num_found = sum(event.seconds is None for event in trained)
    found = f" ({count(num_found, 'shard')} already in the store)" if num_found else ""
    say(
        f"\n{sweep.sweep_id}: {status.shards_done}/{status.shards} shards, "
        f"{status.evaluations_done}/{status.evaluations} evaluations in {duration(seconds)}{found}"
    )


def _print_report(sweep: Sweep, report: Report | None, ended_without_results: bool) -> None:
    """Prints the table of results, the folder of the report, and the address of the MLflow runs."""
    if report is not None:
        say(f"\n{report.text}")
        if report.trouble is None:
            say(f"\nreport:  {report.folder}")
    elif sweep.config.search is not None and ended_without_results:
        say(
            "\nno trial has a result, because every trial diverged or was cancelled before its first evaluation point; "
            "if the trials diverged, lower the learning rates in search.space"
        )
    how = "" if sweep.config.tracking else f"  (open it with: supsup ui output={in_shell(sweep.output.path)})"
    say(f"MLflow:  {tracking_uri_of(sweep)}{how}")


def _print_warnings(sweep: Sweep, groups: Sequence[Group], status: SweepStatus, monitor: Monitor) -> None:
    """Prints the number of untrained segments, the runs that were computed on several machine kinds, recomputed files,
    cancelled tasks, failures, and the reason of a pause."""
    for state in monitor.states.values():
        num_skipped = state.segments_not_trained()
        if num_skipped:
            say(
                f"WARNING  {state.group.runs[0].name}: no mask was trained on {num_skipped} of {len(state.decisions)} "
                "segments, because all masks of the budget were in use; raise budget.num_masks, or set "
                "budget.on_exhausted=reclaim"
            )
    for found in computed_on(groups, monitor.states):
        if found.is_mixed:
            say(f"WARNING  {', '.join(found.runs)}: computed on {len(found.machines)} machine kinds; {MEANING}")
    for group in status.groups:
        for lost in group.lost:
            say(f"recomputed: {lost}")
        for task in group.cancelled:
            retry = run_command("retry", sweep.folder, group.runs[0], [task])
            say(f"cancelled: task {task} of {group.runs[0]}; retry the task with: {retry}")
        for failure in group.failures:
            say(f"FAILED  {failure}")
    if sweep.folder.pause_file.exists() and (reason := sweep.folder.pause_file.read_text()):
        say(f"WARNING  {reason}")


def _write_to_mlflow(sweep: Sweep, write: Callable[[], None]) -> bool:
    """Calls a function that writes to MLflow. If the function raises an error, logs the error and returns False."""
    try:
        with explained(sweep):
            write()
    except SupSupError as error:
        log.warning("%s", error)
        log.info("the runs could not be written to MLflow", exc_info=True)
        return False
    return True


def _complete_storage(sweep: Sweep, files: Sequence[Path]) -> bool:
    """Uploads snapshots of the ledgers, and the files of the report. Returns False, and logs the error, if this
    fails."""
    try:
        publish(sweep, files)
    except FencedError as error:
        log.warning("%s", error)
        return False
    except SupSupError as error:
        log.warning("%s", error)
        say(
            "all results are in the output folder, but some results are not in the storage yet; upload them with: "
            f"{sweep.command('resume')}"
        )
        return False
    say(f"storage: {sweep.config.storage}")
    return True
