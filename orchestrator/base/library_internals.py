"""Uses non-public behaviour of other libraries.

Each docstring says why, and names the library version that was examined. Each function has a test that fails if the
behaviour changes. No library is imported at module level, so importing this module is cheap, and packages that must not
import Ray or MLflow may import it.
"""

from __future__ import annotations

import importlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple


class RayDeath(NamedTuple):
    """Why a Ray actor died. `reason`: the line of Ray's error text that gives the cause. `node_lost`: whether the
    actor's node died or was preempted. `out_of_memory`: whether Ray's memory monitor killed the actor."""

    reason: str
    node_lost: bool
    out_of_memory: bool


RAY_NODE_DIED = "its node has died"
RAY_KILLED_FOR_MEMORY = "running low on memory"


def ray_death_of(error: Any) -> RayDeath:
    """Returns the cause of a ray.exceptions.RayActorError or OutOfMemoryError.

    In Ray 2.60, only the error's text says whether the actor's node died and whether Ray's memory monitor killed the
    actor. The error's attribute `preempted` says whether the node was preempted. If the memory monitor killed the
    actor, the running call raises OutOfMemoryError, which is not a RayActorError. Ray's state API says more, but needs
    Ray's dashboard.
    """
    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip() and ": " not in line[:20]]
    of_memory = [line for line in lines if RAY_KILLED_FOR_MEMORY in line]
    of_node = [line for line in lines if RAY_NODE_DIED in line]
    last = lines[-1] if lines else text
    if of_memory:
        last = of_memory[0]
    elif of_node and "node" not in last:  # for a restarting actor, the last line says only "never ran"
        last = of_node[0]
    return RayDeath(
        reason=last,
        node_lost=bool(getattr(error, "preempted", False)) or RAY_NODE_DIED in text,
        out_of_memory=bool(of_memory),
    )


def mlflow_monitor_is_alive(monitor: Any) -> bool:
    """Returns whether an mlflow.system_metrics SystemMetricsMonitor still records metrics.

    In MLflow 3.17 the monitor's thread ends permanently if a single request to the server fails. MLflow reports this
    nowhere, so this function asks the private thread `_process` whether it is alive.
    """
    thread = monitor._process
    return thread is not None and bool(thread.is_alive())


def ray_package_hash(folder: Path, excludes: Sequence[str]) -> str:
    """Returns a hash, in hex digits, of the files that Ray uploads if `folder` is the working_dir of a job.

    excludes: patterns as in the job's runtime_env. Ray also excludes the files that the folder's .gitignore and
    .rayignore list, unless Ray's environment variables say otherwise.

    Ray 2.60 names the package of a working_dir by this hash, but has no public function that returns the hash. A hash
    function in this project would have to repeat Ray's exclusion rules. If it ignored a file that Ray uploads, two
    different jobs could get the same hash.
    """
    packaging = importlib.import_module("ray._private.runtime_env.packaging")
    uri: str = packaging.get_uri_for_directory(str(folder), include_gitignore=True, excludes=list(excludes))
    return Path(uri).stem.removeprefix(packaging.RAY_PKG_PREFIX)


def move_mlflow_artifacts(db: sqlite3.Connection, old: str, new: str) -> None:
    """Replaces the location of artifacts in an MLflow database, in the transaction of `db`.

    old, new: the location's URI before and now. MLflow 3.17 has no public way to change the location of an experiment.
    This function changes the columns `experiments.artifact_location`, `runs.artifact_uri` and
    `logged_models.artifact_location`.
    """
    below = f"{old}/"
    for table, column in (
        ("experiments", "artifact_location"),
        ("runs", "artifact_uri"),
        ("logged_models", "artifact_location"),
    ):
        db.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
            (new, len(old) + 1, old, len(below), below),
        )
