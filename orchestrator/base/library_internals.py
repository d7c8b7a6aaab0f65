"""What this project relies on of other libraries beyond their public interfaces, and why.

Each function names the version whose behaviour it relies on. A test of each fails when that behaviour changes. No
library is imported here, so the module is light and breaks no rule of who may import what.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class RayDeath(NamedTuple):
    """Why an actor died: in Ray's words, with its whole node or not, killed to free memory or not."""

    reason: str
    node_lost: bool
    out_of_memory: bool


RAY_NODE_DIED = "its node has died"
RAY_KILLED_FOR_MEMORY = "running low on memory"


def ray_death_of(error: Any) -> RayDeath:
    """The cause of a ray.exceptions.RayActorError.

    Ray 2.60 gives the cause in the error's text alone: whether the node died (apart from preemption, which it tells by
    an attribute), and whether Ray's memory monitor killed the worker. The state API tells more,
    but it needs the dashboard.
    """
    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip() and ": " not in line[:20]]
    return RayDeath(
        reason=lines[-1] if lines else text,
        node_lost=bool(error.preempted) or RAY_NODE_DIED in text,
        out_of_memory=RAY_KILLED_FOR_MEMORY in text,
    )


def mlflow_monitor_is_alive(monitor: Any) -> bool:
    """Whether an mlflow.system_metrics SystemMetricsMonitor still records.

    MLflow 3.17 ends its thread for good when a server does not answer once, and says so nowhere but in the thread
    itself, which it keeps as `_process`.
    """
    thread = monitor._process
    return thread is not None and bool(thread.is_alive())
