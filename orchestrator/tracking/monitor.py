"""Monitors a running sweep in a thread, which reads the sweep's ledgers, shows the progress and writes to MLflow."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

from orchestrator.base.environment import Environment
from orchestrator.base.output_folder import GroupFolder
from orchestrator.base.wording import first_line
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledgers.ledger import LedgerReader
from orchestrator.records.ledgers.ledger_file import read_newest
from orchestrator.records.rows import AnyRow
from orchestrator.results.event_log import log_row
from orchestrator.results.progress_line import ProgressLine
from orchestrator.results.status import SweepStatus, sweep_status
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.training_groups import Group
from orchestrator.tracking.mlflow_address import WriterBusyError

if TYPE_CHECKING:
    from orchestrator.tracking.mlflow_writer import Tracker

SECONDS = 1.0
"""Seconds between two reads of the ledgers."""

NICENESS = 10
"""How far the priority of the monitor's thread is lowered. Training has more use for a busy CPU than MLflow has."""

PATIENCE_SECONDS = 60.0
"""`finish` retries for this many seconds if the MLflow server does not answer."""

log = logging.getLogger("supsup")


@final
class _FollowedLedger:
    """A ledger whose new rows are read incrementally.

    `state`: the group's state after all rows read so far. `unwritten`: the rows that are not in MLflow yet.
    """

    def __init__(self, folder: GroupFolder) -> None:
        self.state = GroupState()
        self.unwritten: list[AnyRow] = []
        self._began_ms = time.time_ns() // 1_000_000
        self._earlier_seq, self._earlier_ms = read_newest(folder.ledger)
        self._reader = LedgerReader(folder.ledger)

    def read(self) -> list[AnyRow]:
        """Read and return the rows that were added since the last call."""
        rows = self._reader.rows(self.state.last.seq if self.state.last else 0)
        self.state.apply(rows)
        self.unwritten += rows
        return rows

    def is_new(self, row: AnyRow) -> bool:
        """Returns whether a row was written in this launch.

        If the clock was set back, earlier rows have later times than this launch. If a snapshot has replaced the
        ledger, rows of this launch have the numbers of earlier rows.
        """
        is_earlier = row.seq <= self._earlier_seq and row.time_ms <= self._earlier_ms
        return row.time_ms >= self._began_ms and not is_earlier

    def close(self) -> None:
        """Close the ledger."""
        self._reader.close()


@final
class Monitor:
    """Follows the ledgers of a running sweep, and is the only writer of the sweep's MLflow runs.

    An MLflow error does not stop the training. The monitor logs the error once and tries again to write. `finish`
    raises the error if the last attempt fails too.
    """

    def __init__(self, sweep: Sweep, groups: Sequence[Group], environment: Environment, progress: ProgressLine) -> None:
        self._sweep = sweep
        self._groups = groups
        self._environment = environment
        self._progress = progress
        self._ledgers = {group.group_id: _FollowedLedger(sweep.folder.group(group.group_id)) for group in groups}
        self._planned = {group.group_id: group.size for group in groups}
        self._tracker: Tracker | None = None
        self._complained = False
        self._reading = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="monitor", daemon=True)

    def start(self) -> None:
        """Start the thread that follows the ledgers."""
        self._thread.start()

    def _follow(self) -> None:
        with contextlib.suppress(OSError):  # a system without priorities of threads
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while not self._stop.is_set():
            try:
                self.tick()
            except Exception as error:  # noqa: BLE001 - logged now, and raised by finish() if it persists
                if not self._complained:
                    log.warning("the runs cannot be written to MLflow at present (%s); retrying", first_line(error))
                self._complained = True
            else:
                if self._complained:
                    log.warning("the runs can be written to MLflow again, and are up to date")
                self._complained = False
            self._stop.wait(SECONDS)

    def tick(self) -> None:
        """Read the ledgers, show the progress, and write to MLflow."""
        self._progress.update(self.status())
        self._write().watch_machine()

    def _write(self) -> Tracker:
        """Write the unwritten rows to MLflow, and return the tracker. Opens the tracker at the first call."""
        rows = {group_id: list(ledger.unwritten) for group_id, ledger in self._ledgers.items()}
        if self._tracker is None:
            self._tracker = self._open(rows)
        else:
            self._tracker.project(rows)
        self._tracker.tag_machines(self.states)
        for group_id, written in rows.items():
            del self._ledgers[group_id].unwritten[: len(written)]
        return self._tracker

    def _open(self, rows: Mapping[str, Sequence[AnyRow]]) -> Tracker:
        """Open a tracker, and write all rows. After an error, the next call opens a new tracker."""
        from orchestrator.tracking.mlflow_writer import Tracker  # loads MLflow while Ray starts the workers

        with contextlib.ExitStack() as stack:
            tracker = Tracker(self._sweep, self._groups, self._environment, purpose="run")
            stack.callback(tracker.close)
            tracker.project(rows)
            stack.pop_all()
        return tracker

    def status(self) -> SweepStatus:
        """Read the ledgers, log new rows, and return the sweep's current status."""
        with self._reading:
            self._read()
        return sweep_status(self._sweep.folder, self.states, self._planned)

    def _read(self) -> None:
        for group_id, ledger in self._ledgers.items():
            for row in ledger.read():
                if ledger.is_new(row):
                    log_row(self._sweep.sweep_id, group_id, row)

    @property
    def states(self) -> dict[str, GroupState]:
        """The states of the training groups at the last read, by group id."""
        return {group_id: ledger.state for group_id, ledger in self._ledgers.items()}

    def stop(self) -> None:
        """Stop the thread that follows the ledgers, and wait for its end."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def close(self) -> None:
        """Close the ledgers, and let other processes write the sweep's MLflow runs. Call this method last."""
        if self._tracker is not None:
            self._tracker.close()
        for ledger in self._ledgers.values():
            ledger.close()

    def finish(self) -> None:
        """Write the remaining rows to MLflow, end the sweep's MLflow runs, and log the runs' tables.

        If writing to a server fails, this method retries for PATIENCE_SECONDS and then raises the error.
        WriterBusyError, and an error of the output's own database, are raised at once.
        """
        self._retrying(self._finish_once)

    def _finish_once(self) -> None:
        self.status()
        conclude(self._write(), self._groups, self.states)

    def attach(self, files: Sequence[Path]) -> None:
        """Log the files of the report to the sweep's MLflow run. Retries and raises errors like `finish`."""
        self._retrying(lambda: self._write().attach(files, "report"))

    def _retrying(self, write: Callable[[], None]) -> None:
        """Call a function that writes to MLflow until it succeeds."""
        patience = PATIENCE_SECONDS if self._sweep.config.tracking is not None else 0.0
        deadline = time.monotonic() + patience
        while True:
            try:
                write()
            except Exception as error:
                if time.monotonic() > deadline or isinstance(error, WriterBusyError):
                    raise
                if not self._complained:
                    log.warning(
                        "the runs cannot be written to MLflow (%s); retrying for at most %.0f seconds",
                        first_line(error),
                        patience,
                    )
                self._complained = True
                time.sleep(SECONDS)
            else:
                return


def conclude(tracker: Tracker, groups: Sequence[Group], states: Mapping[str, GroupState]) -> None:
    """End a sweep's MLflow runs, then log the tables of each run.

    A run's tables are the accuracy of each task and the confusion table of tasks and masks, both at the run's last
    evaluation point.
    """
    tracker.finish({group_id: state.ended for group_id, state in states.items()})
    from orchestrator.results.report import tables  # imported here, because pandas takes a second to load

    found = {"tasks": tables.tasks_table(groups, states), "confusion": tables.confusion_table(groups, states)}
    for run in (run for group in groups for run in group.runs):
        for name, table in found.items():
            mine = table[(table["run"] == run.label) & (table["seed"] == run.experiment.seed)] if len(table) else table
            last = mine[mine["num_learned"] == mine["num_learned"].max()] if len(mine) else mine
            if len(last):
                tracker.log_table(run.run_id, name, last.drop(columns=["run", "seed"]))
