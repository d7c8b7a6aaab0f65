"""What this project relies on of other libraries beyond their public interfaces, and why.

Each function names the version whose behaviour it relies on. A test of each fails when that behaviour changes. No
library is imported at module level, so the module is light and breaks no rule of who may import what.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple


class RayDeath(NamedTuple):
    """Why an actor died: in Ray's words, with its whole node or not, killed to free memory or not."""

    reason: str
    node_lost: bool
    out_of_memory: bool


RAY_NODE_DIED = "its node has died"
RAY_KILLED_FOR_MEMORY = "running low on memory"


def ray_death_of(error: Any) -> RayDeath:
    """The cause of a ray.exceptions.RayActorError or OutOfMemoryError.

    Ray 2.60 gives the cause in the error's text alone: whether the node died (apart from preemption, which it tells by
    an attribute), and whether Ray's memory monitor killed the worker. The call that was running then raises an
    OutOfMemoryError, which is no RayActorError. The state API tells more, but it needs the dashboard.
    """
    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip() and ": " not in line[:20]]
    of_memory = [line for line in lines if RAY_KILLED_FOR_MEMORY in line]
    return RayDeath(
        reason=[text, *lines, *of_memory[:1]][-1],
        node_lost=bool(getattr(error, "preempted", False)) or RAY_NODE_DIED in text,
        out_of_memory=bool(of_memory),
    )


def mlflow_monitor_is_alive(monitor: Any) -> bool:
    """Whether an mlflow.system_metrics SystemMetricsMonitor still records.

    MLflow 3.17 ends its thread for good when a server does not answer once, and says so nowhere but in the thread
    itself, which it keeps as `_process`.
    """
    thread = monitor._process
    return thread is not None and bool(thread.is_alive())


def ray_package_hash(folder: Path, excludes: Sequence[str]) -> str:
    """A hash, in hex digits, of the files that Ray takes along when `folder` is the working_dir of a job.

    excludes: patterns as in the job's runtime_env. Ray also leaves out what .gitignore and .rayignore files in the
    folder name, unless its environment variables say otherwise.

    Ray 2.60 names the package of a working_dir by this hash, and has no public function that gives it. A hash of our
    own would have to repeat Ray's rules of what is left out; where it differed, two different jobs would be taken for
    one.
    """
    packaging = importlib.import_module("ray._private.runtime_env.packaging")
    uri: str = packaging.get_uri_for_directory(str(folder), include_gitignore=True, excludes=list(excludes))
    return Path(uri).stem.removeprefix(packaging.RAY_PKG_PREFIX)
