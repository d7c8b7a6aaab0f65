"""Compares all MLflow runs of a sweep with its ledgers, without changing anything (`supsup fsck --mlflow`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from mlflow.entities import LifecycleStage

from orchestrator.base.wording import as_typed, command, count
from orchestrator.records.group_state import GroupState
from orchestrator.records.rows import AnyRow
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.training_groups import Group
from orchestrator.tracking.comparison.differences import compare_run
from orchestrator.tracking.mlflow_points import MetricPoint, Projection, is_own_metric
from orchestrator.tracking.mlflow_run import DESCRIBED, read_points
from orchestrator.tracking.mlflow_store import OpenStore, connect, find_runs, sole_writer
from orchestrator.tracking.wanted_runs import (
    ENDED,
    KIND,
    SUPERSEDED,
    UID,
    WantedRun,
    final_states,
    machine_tags,
    wanted_runs,
)

_THREADS = 8
"""How many MLflow runs are read at the same time."""


class SweepCheck(NamedTuple):
    """The result of a check. `faults`: one line for each kind of fault of each MLflow run."""

    num_runs: int
    num_points: int
    faults: list[str]


class LedgerContent(NamedTuple):
    """What the ledgers of a sweep hold, by group id: their rows, and the states of the training groups."""

    rows: Mapping[str, Sequence[AnyRow]]
    states: Mapping[str, GroupState]


def check_sweep(
    sweep: Sweep, groups: Sequence[Group], ledgers: LedgerContent, on_progress: Callable[[int, int], None]
) -> SweepCheck:
    """Compares the MLflow runs of a sweep with its ledgers: runs, statuses, tags, params and points.

    on_progress: called with the number of MLflow runs compared so far and the number of all runs. Raises
    WriterBusyError if another process is writing the runs.
    """
    database = sweep.output.mlflow.database
    if sweep.config.tracking is None and not database.exists():
        return SweepCheck(0, 0, [f"{sweep.sweep_id}: there is no MLflow database {as_typed(database)}"])
    with sole_writer(sweep):
        client = connect(sweep)
        experiment = client.get_experiment_by_name(sweep.config.name)
        if experiment is None or experiment.lifecycle_stage == LifecycleStage.DELETED:
            state = "has no experiment" if experiment is None else "has deleted the experiment"
            return SweepCheck(0, 0, [f"{sweep.sweep_id}: MLflow {state} {sweep.config.name}"])
        return _Check(sweep, groups, ledgers, OpenStore(client, str(experiment.experiment_id))).run(on_progress)


class _Check:
    """Compares the MLflow runs that a sweep must have with those that MLflow holds."""

    def __init__(self, sweep: Sweep, groups: Sequence[Group], ledgers: LedgerContent, store: OpenStore) -> None:
        self._folder = sweep.folder
        self._client = store.client
        self._wanted = wanted_runs(sweep.sweep_id, groups)
        self._states = ledgers.states
        self._finals = final_states(self._wanted, {name: state.ended for name, state in ledgers.states.items()})
        self._points = Projection(sweep.sweep_id, groups).points(ledgers.rows)
        self._last_ms = {group_id: rows[-1].time_ms for group_id, rows in ledgers.rows.items() if rows}
        self._found = find_runs(store, sweep.sweep_id)
        by_uid = self._found.by_uid
        self._ids = {run.key: by_uid[run.uid].info.run_id for run in self._wanted if run.uid in by_uid}

    def run(self, on_progress: Callable[[int, int], None]) -> SweepCheck:
        """Compares all MLflow runs of the sweep."""
        faults, num_points = list(self._faults_of_the_whole()), 0
        stored = [(run, self._found.by_uid[run.uid]) for run in self._wanted if run.uid in self._found.by_uid]
        with ThreadPoolExecutor(_THREADS) as pool:
            histories = pool.map(self._read, (found for _, found in stored))
            for number, ((wanted, found), points) in enumerate(zip(stored, histories, strict=True), start=1):
                num_points += len(points)
                faults += self._faults_of_description(wanted, found)
                faults += self._faults_of_points(wanted, points)
                on_progress(number, len(stored))
        return SweepCheck(len(stored), num_points, faults)

    def _read(self, found: Any) -> list[MetricPoint]:
        """Returns the points of a run, of all metrics that this project writes."""
        names = filter(is_own_metric, found.data.metrics)
        return [point for name in names for point in read_points(self._client, found.info.run_id, name)]

    def _faults_of_the_whole(self) -> Iterator[str]:
        """Yields a line for each run that is missing, exists more than once, or is not part of the sweep."""
        names = {run.uid: self._name(run) for run in self._wanted}
        for uid, name in names.items():
            if uid not in self._found.by_uid:
                yield f"{name} is missing"
        for uid, number in Counter(run.data.tags.get(UID) for run in self._found.surplus).items():
            if uid is None:
                yield f"{self._folder.sweep_id}: MLflow has {count(number, 'run')} whose writing was interrupted"
            else:
                yield f"{names.get(uid, uid)} exists {number + 1} times"
        for uid, found in self._found.by_uid.items():
            if uid not in names and found.data.tags.get(KIND) != SUPERSEDED:
                yield f"{self._folder.sweep_id}: the MLflow run {found.info.run_name!r} is no longer part of the sweep"

    def _faults_of_description(self, wanted: WantedRun, found: Any) -> Iterator[str]:
        """Yields a line for a wrong status, for wrong tags, and for wrong params of a run."""
        name, final = self._name(wanted), self._finals[wanted.key]
        if found.info.status != final.status:
            yield f"{name} has the status {found.info.status}, not {final.status}"
        tags = wanted.tags | {tag: self._ids[key] for tag, key in wanted.links.items() if key in self._ids}
        tags |= machine_tags(wanted.machines(self._states))
        if wanted.experiment is not None:
            tags[DESCRIBED] = "true"
        if final.ended is not None:
            tags[ENDED] = final.ended
        wrong = [tag for tag, value in tags.items() if found.data.tags.get(tag) != value]
        if wrong:
            yield f"{name} has wrong or missing tags: {', '.join(wrong)}"
        wrong = [*(wanted.params.keys() - found.data.params), *wanted.conflicting_params(found.data.params)]
        if wrong:
            yield f"{name} has wrong or missing params: {', '.join(sorted(wrong))}"

    def _faults_of_points(self, wanted: WantedRun, found: Sequence[MetricPoint]) -> Iterator[str]:
        """Yields a line for missing points, for points with another value or time, and for unknown points of a run."""
        name = self._name(wanted)
        missing, altered, unknown, has_common = compare_run(wanted.key.kind, self._points.get(wanted.key, ()), found)
        if missing:
            yield f"{name} lacks {count(len(missing), 'metric point')} of the ledger, such as {missing[0].text}"
        if altered:
            yield (
                f"{name} has {count(len(altered), 'metric point')} with another value or time than in the ledger, "
                f"such as {altered[0].text}"
            )
        if unknown:
            yield self._unknown(wanted, unknown, has_common)

    def _unknown(self, wanted: WantedRun, unknown: Sequence[MetricPoint], has_common: bool) -> str:
        """Returns the line for points at places where the ledgers have no point."""
        name, newest = self._name(wanted), max(unknown, key=lambda point: point.time_ms)
        points, last = count(len(unknown), "metric point"), f"the newest is {newest.text}"
        if wanted.group_id is None:
            return f"{name} has {points} that no ledger of the sweep contains; {last}"
        ledger = as_typed(self._folder.group(wanted.group_id).ledger)
        if has_common and newest.time_ms > self._last_ms.get(wanted.group_id, 0):
            resume = command("resume", self._folder.path)
            return (
                f"{ledger}: has lost its last rows: {name} has {points} that the ledger lacks; {last}; `{resume}` "
                "computes the lost work again"
            )
        return (
            f"{ledger}: has lost rows, or another program or output has written to MLflow: {name} has {points} that "
            f"the ledger lacks; {last}"
        )

    def _name(self, wanted: WantedRun) -> str:
        return f"{self._folder.sweep_id}: the MLflow run {wanted.name!r}"
