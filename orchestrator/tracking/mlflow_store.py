"""Opens the MLflow store of a sweep: its database or server, its experiment, its existing runs, and its writer's lock.

Only the process that holds the writer's lock creates or changes the sweep's MLflow runs. With a server, two machines
may write the MLflow runs of the same sweep, and no lock can prevent this. A process therefore searches again after it
has created runs. If several runs have the same tag `supsup.uid`, all processes keep the same run.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
from filelock import FileLock, Timeout
from mlflow.entities import LifecycleStage
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException

from orchestrator.base.files import replace_durably
from orchestrator.base.library_internals import move_mlflow_artifacts
from orchestrator.base.output_folder import MLflowFolder
from orchestrator.base.wording import count
from orchestrator.sweeps.sweep import Sweep
from orchestrator.tracking.mlflow_address import WriterBusyError, sqlite_uri, tracking_uri_of
from orchestrator.tracking.moved_output import relocate
from orchestrator.tracking.wanted_runs import SWEEP, UID

log = logging.getLogger("supsup")

LOCK_SECONDS = 30.0
"""A process waits at most this many seconds for another process that writes the same MLflow runs or database."""

REPLACES = "supsup.replaces"
"""The tag of a run that was written anew. The value of the tag is the id of the replaced run."""

_PAGE = 1000
"""The number of runs in one page of search_runs. MLflow allows at most 50,000."""


def busy(sweep: Sweep) -> WriterBusyError:
    """Returns the error of a process that may not write the MLflow runs of a sweep."""
    return WriterBusyError(
        f"{sweep.sweep_id}: another process is writing the MLflow runs of this sweep; when it has ended, "
        f"`{sweep.command('report')}` writes the missing data"
    )


@contextlib.contextmanager
def sole_writer(sweep: Sweep) -> Iterator[None]:
    """Holds the lock of the writer of a sweep's MLflow runs during the `with` block.

    The end of the process releases the lock. Raises WriterBusyError if another process holds the lock for LOCK_SECONDS.
    """
    file = sweep.output.mlflow.writer_lock_file(sweep.sweep_id)
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, thread_local=False)  # the Monitor acquires it in one thread, and releases it in another
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise busy(sweep) from None
    try:
        yield
    finally:
        lock.release()


def connect(sweep: Sweep) -> mlflow.MlflowClient:
    """Returns a client for the MLflow store of a sweep. Creates nothing, so the output's own database must exist.

    Raises sqlite3.Error at once if SQLite cannot open the output's own database.
    """
    _log_less()
    if sweep.config.tracking is None and sweep.output.mlflow.database.exists():
        _check_can_open(sweep.output.mlflow.database)
    return mlflow.MlflowClient(tracking_uri_of(sweep))


def _log_less() -> None:
    """Stops MLflow's messages about its database. MLflow logs each error with a traceback, and raises it too."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def _check_can_open(database: Path) -> None:
    """Raises sqlite3.Error if SQLite cannot open a database. MLflow itself would retry for 101 seconds.

    If another process has locked the database, waits at most LOCK_SECONDS.
    """
    with contextlib.closing(sqlite3.connect(database, timeout=LOCK_SECONDS)) as db:
        db.execute("SELECT count(*) FROM sqlite_schema").fetchone()


class OpenStore(NamedTuple):
    """An MLflow client, and the id of the sweep's experiment."""

    client: mlflow.MlflowClient
    experiment_id: str


def open_store(sweep: Sweep) -> OpenStore:
    """Opens the MLflow store of a sweep. Creates the database and the experiment if they do not exist.

    Restores a deleted experiment.
    """
    folder = sweep.output.mlflow
    folder.path.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.lock_file):  # so that two sweeps do not create the same database or experiment
        if sweep.config.tracking is None:
            create_database(folder)
            relocate(folder)
        client = connect(sweep)
        return OpenStore(client, _open_experiment(client, sweep))


def create_database(folder: MLflowFolder) -> None:
    """Create MLflow's database atomically, if it does not exist.

    MLflow creates its tables in many steps, and cannot use a database in which some tables are missing. The database is
    therefore created under a temporary name and then renamed. MLflow's experiment "Default" gets its artifacts in the
    output instead of a folder `mlruns` in the current folder.
    """
    if folder.database.exists():
        return
    _log_less()
    for left in folder.partial_databases():
        left.unlink()
    folder.path.mkdir(parents=True, exist_ok=True)
    partial = folder.partial_database(time.time_ns())
    _check_can_open(partial)
    mlflow.MlflowClient(sqlite_uri(folder.path, partial.name)).search_experiments(max_results=1)
    with contextlib.closing(sqlite3.connect(partial)) as db, db:
        ((current,),) = db.execute("SELECT artifact_location FROM experiments").fetchall()  # of Default
        move_mlflow_artifacts(db, current, folder.artifacts.as_uri())
    replace_durably(partial, folder.database)


def _open_experiment(client: mlflow.MlflowClient, sweep: Sweep) -> str:
    """Returns the id of the sweep's experiment. Creates or restores the experiment if necessary."""
    name = sweep.config.name
    found = client.get_experiment_by_name(name)
    if found is None:
        location = None  # a server has its own artifact location
        if sweep.config.tracking is None:
            artifacts = sweep.output.mlflow.artifacts
            artifacts.mkdir(parents=True, exist_ok=True)
            location = artifacts.as_uri()
        tags = {"mlflow.experimentKind": "custom_model_development"}  # the page then shows runs, not the GenAI view
        try:
            return str(client.create_experiment(name, artifact_location=location, tags=tags))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another machine may have just created the experiment
            if found is None:
                raise
    if found.lifecycle_stage == LifecycleStage.DELETED:
        log.warning("the MLflow experiment %s had been deleted in MLflow; it is restored", name)
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


class SweepRuns(NamedTuple):
    """The MLflow runs of a sweep that are not deleted.

    `by_uid`: the valid runs by their tag `supsup.uid`. `surplus`: runs with the same tag as a valid run, and runs whose
    writing was interrupted before they replaced another run.
    """

    by_uid: dict[str, StoredRun]
    surplus: list[StoredRun]


def find_runs(store: OpenStore, sweep_id: str) -> SweepRuns:
    """Returns the MLflow runs of a sweep.

    Of several runs with the same tag `supsup.uid`, a run that replaces another one is valid. If no run replaces another
    one, the run that was started first is valid. If the start times are equal, the run with the smaller id is valid.
    All processes therefore choose the same run.
    """
    token: str | None = None
    same: dict[str | None, list[StoredRun]] = defaultdict(list)
    while token != "":
        page = store.client.search_runs(
            [store.experiment_id], f"tags.`{SWEEP}` = '{sweep_id}'", max_results=_PAGE, page_token=token
        )
        for run in page:
            same[run.data.tags.get(UID)].append(run)
        token = page.token or ""
    found = SweepRuns({}, [run for run in same.pop(None, []) if REPLACES in run.data.tags])
    for uid, runs in same.items():
        assert uid is not None
        valid = _valid_run(runs)
        found.by_uid[uid] = valid
        found.surplus.extend(run for run in runs if run is not valid)
    return found


def _valid_run(runs: Sequence[Any]) -> StoredRun:
    replaced = {run.data.tags.get(REPLACES) for run in runs}
    return min(runs, key=lambda run: (run.info.run_id in replaced, run.info.start_time, run.info.run_id))


def delete_surplus(store: OpenStore, sweep_id: str) -> dict[str, StoredRun]:
    """Marks surplus MLflow runs of a sweep as deleted. Returns the valid runs by their tag `supsup.uid`."""
    found = find_runs(store, sweep_id)
    if found.surplus:
        surplus = count(len(found.surplus), "surplus MLflow run")
        log.warning("%s: marked %s as deleted; every MLflow run now exists once", sweep_id, surplus)
    for run in found.surplus:
        store.client.delete_run(run.info.run_id)
    return found.by_uid
