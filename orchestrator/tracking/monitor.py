"""Watching a sweep from the side: a thread that reads the ledgers, shows progress and feeds MLflow."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.base.wording import first_line
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledger import LedgerReader
from orchestrator.results.event_log import tell
from orchestrator.results.progress_line import Progress
from orchestrator.results.status import SweepStatus, sweep_status
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.training_groups import Group
from orchestrator.tracking.mlflow_writer import Tracker

SECONDS = 1.0
"""How often the ledgers are looked at."""

PATIENCE_SECONDS = 60.0
"""How long the end of a sweep waits for an MLflow server that does not answer."""

log = logging.getLogger("supsup")


class Monitor:
    """Follows the ledgers while a sweep runs. The only writer of the sweep's MLflow runs.

    Trouble with MLflow does not stop the training: it is logged once, and what is owed is written
    later, at the latest in `finish`, which raises if that fails too.
    """

    def __init__(self, sweep: Sweep, groups: Sequence[Group], environment: dict[str, Any], progress: Progress) -> None:
        self._sweep = sweep
        self._groups = groups
        self._environment = environment
        self._progress = progress
        self._states = {group.group_id: GroupState() for group in groups}
        self._readers = {group.group_id: LedgerReader(sweep.ledger_path(group.group_id)) for group in groups}
        self._planned = {group.group_id: group.size for group in groups}
        self._tracker: Tracker | None = None
        self._complained = False
        self._began_ms = time.time_ns() // 1_000_000
        self._reading = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="monitor", daemon=True)

    def start(self) -> None:
        """Begin to follow what happens from now on."""
        self._thread.start()

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                self.tick()
            except Exception as error:  # noqa: BLE001 - told now, and raised by finish() if it lasts
                if not self._complained:
                    log.warning("MLflow cannot be written for now, and will be later: %s", first_line(error))
                self._complained = True
            else:
                if self._complained:
                    log.warning("MLflow can be written again, and has what it was owed")
                self._complained = False
            self._stop.wait(SECONDS)

    def tick(self) -> None:
        """Look once: show how far the sweep is, then write what MLflow is owed."""
        self._progress.update(self.status())
        self._write()

    def _write(self) -> None:
        if self._tracker is None:
            self._tracker = Tracker(self._sweep, self._groups, self._environment)
        self._tracker.project()
        self._tracker.watch_machine()

    def status(self) -> SweepStatus:
        """The sweep's status as of now."""
        with self._reading:
            self._read()
        return sweep_status(self._sweep, self._states, self._planned)

    def _read(self) -> None:
        for group_id, state in self._states.items():
            last = state.last.seq if state.last else 0
            rows = self._readers[group_id].rows(last)
            state.apply(rows)
            for row in rows:
                if row.time_ms >= self._began_ms:
                    tell(self._sweep.sweep_id, group_id, row)

    @property
    def states(self) -> dict[str, GroupState]:
        """The groups' states as last read."""
        return self._states

    def stop(self) -> None:
        """Stop following."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def finish(self, files: Sequence[Path]) -> None:
        """Write all that is owed, attach the files and end the MLflow runs; raises if that cannot be done.

        A server that does not answer is waited for, a minute at most.
        """
        patience = PATIENCE_SECONDS if self._sweep.config.tracking is not None else 0.0
        deadline = time.monotonic() + patience
        while True:
            try:
                self.status()
                self._write()
                assert self._tracker is not None, "_write() has made it"
                conclude(self._tracker, self._groups, self._states, files)
            except Exception as error:
                if time.monotonic() > deadline:
                    raise
                if not self._complained:
                    log.warning("waiting for MLflow, %.0f seconds at most: %s", patience, first_line(error))
                self._complained = True
                time.sleep(SECONDS)
            else:
                return


def conclude(
    tracker: Tracker, groups: Sequence[Group], states: Mapping[str, GroupState], files: Sequence[Path]
) -> None:
    """Attach a sweep's report and, to each run, what it answered at its last point: task by task, and which masks were
    chosen for which task. Then end the runs."""
    from orchestrator.results.report import tables

    tracker.attach(files, "report")
    found = {"tasks": tables.tasks_table(groups, states), "confusion": tables.confusion_table(groups, states)}
    for run in (run for group in groups for run in group.runs):
        for name, table in found.items():
            mine = table[(table["run"] == run.label) & (table["seed"] == run.experiment.seed)] if len(table) else table
            last = mine[mine["num_learned"] == mine["num_learned"].max()] if len(mine) else mine
            if len(last):
                told = last.drop(columns=["run", "seed"])
                tracker.log_table(run.run_id, name, told)
    tracker.finish({group_id: state.ended for group_id, state in states.items()})
