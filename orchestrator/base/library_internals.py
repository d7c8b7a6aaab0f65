"""Uses non-public behaviour of other libraries.

Each docstring says why the behaviour is needed, and names the library version that was examined. Each function has a
test that fails if the behaviour changes. No library is imported at module level, so importing this module is cheap, and
packages that must not import Ray or MLflow may import it.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias


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


class RayVersions(NamedTuple):
    """The versions of Ray and Python on a Ray cluster, and in a process that cannot join the cluster."""

    cluster_ray: str
    cluster_python: str
    own_ray: str
    own_python: str


_RAY_MISMATCH = re.compile(
    r"cluster was started with:\s+Ray: (\S+)\s+Python: (\S+)\s+This process on .* was started with:\s+"
    r"Ray: (\S+)\s+Python: (\S+)"
)


def ray_versions_in(error: Exception) -> RayVersions | None:
    """Returns the versions in an error of ray.init, or None if the error is not about versions.

    In Ray 2.60, ray.init raises a RuntimeError if the cluster runs another version of Ray or Python. Only the error's
    text contains the versions.
    """
    found = _RAY_MISMATCH.search(str(error))
    return None if found is None else RayVersions(*found.groups())


class RayAutoscaling(NamedTuple):
    """The nodes that Ray's autoscaler starts or cannot start.

    `starting`: maps the name of a node type to how many nodes are being started. `failed`: maps the name of a node type
    to why the last start of such a node failed. `infeasible`: the bundles of each placement group that would not fit
    even if the cluster had all nodes that it may have.
    """

    starting: Mapping[str, int] = {}
    failed: Mapping[str, str] = {}
    infeasible: Sequence[Sequence[Mapping[str, float]]] = ()


def ray_autoscaling(address: str, timeout: float) -> RayAutoscaling:
    """Returns the nodes that the autoscaler of a Ray cluster starts or cannot start.

    Without an autoscaler, the result is empty. address: the cluster's address, as HOST:PORT. timeout: in seconds. In
    Ray 2.60, no public function returns the state of the autoscaler. This function gets the state in the same way as
    the command `ray status`. The function supports version 2 of the autoscaler, which `ray up` and KubeRay use. Version
    1 uses a different, undocumented format.
    """
    client = importlib.import_module("ray._raylet").GcsClient(address)
    reply = importlib.import_module("ray.core.generated.autoscaler_pb2").GetClusterStatusReply()
    reply.ParseFromString(client.get_cluster_status(timeout_s=timeout))
    state = reply.autoscaling_state
    starting: Counter[str] = Counter()
    for request in state.pending_instance_requests:
        starting[request.ray_node_type_name] += request.count
    for instance in state.pending_instances:
        starting[instance.ray_node_type_name] += 1
    failed = {failure.ray_node_type_name: failure.reason for failure in state.failed_instance_requests}
    infeasible = tuple(
        [dict(bundle.resources_bundle) for bundle in group.requests]
        for group in state.infeasible_gang_resource_requests
    )
    return RayAutoscaling(dict(starting), failed, infeasible)


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
    function in this project would have to repeat Ray's exclusion rules. If such a function ignored a file that Ray
    uploads, two different jobs could get the same hash.
    """
    packaging = importlib.import_module("ray._private.runtime_env.packaging")
    uri: str = packaging.get_uri_for_directory(str(folder), include_gitignore=True, excludes=list(excludes))
    return Path(uri).stem.removeprefix(packaging.RAY_PKG_PREFIX)


def ray_upload_limit() -> int:
    """Returns the largest size, in bytes, that the working_dir of a Ray job may have.

    In Ray 2.60, the documented limit is that of the cluster's key-value store, 512 MiB. But the dashboard receives the
    package of a job, and refuses a request of more than 100 MiB. The dashboard's error names no limit (Ray's issue
    55877).
    """
    dashboard: int = importlib.import_module("ray._private.ray_constants").DASHBOARD_CLIENT_MAX_SIZE
    store: int = importlib.import_module("ray._private.runtime_env.packaging").GCS_STORAGE_MAX_SIZE
    return min(dashboard, store)


UploadRule: TypeAlias = Callable[[Path], bool]
"""A function that returns whether Ray leaves a file or folder out of the upload, including everything in the folder."""


def ray_upload_rules(folder: Path, excludes: Sequence[str] = ()) -> list[UploadRule]:
    """Returns the upload rules that the .gitignore and .rayignore of `folder` give for everything in `folder`.

    excludes: further patterns, as in the job's runtime_env. Ray 2.60 has no public function that lists the files of a
    working_dir, or that returns their size.
    """
    packaging = importlib.import_module("ray._private.runtime_env.packaging")
    constants = importlib.import_module("ray._private.ray_constants")
    with_gitignore = os.environ.get(constants.RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"
    silent = logging.getLogger("supsup")  # Ray's own logger prints a line for each .gitignore
    rules: list[UploadRule] = packaging.get_excludes_from_ignore_files(folder, with_gitignore, silent)
    if not excludes:
        return rules
    return [packaging._get_excludes(folder, [*constants.get_runtime_env_default_excludes(), *excludes]), *rules]


RAY_HAS_NO_AGENT = "No available agent to submit job"
"""The text of Ray 2.60's error if the head node cannot run jobs yet. Ray has no separate exception class for this
error."""


def ray_version_of(client: Any) -> str | None:
    """Returns the version of Ray on the cluster of a ray.job_submission.JobSubmissionClient, or None if it is unknown.

    In Ray 2.60, the client asks for this version when it is made, and keeps it in a private attribute. The client's
    public method `get_version` returns the version of the protocol instead.
    """
    version: str | None = client._server_ray_version
    return version


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


def lacks_memory(error: BaseException) -> bool:
    """Returns whether an error says that the CPU or GPU has too little memory.

    torch 2.13 has a class for such an error on a CUDA device, torch.OutOfMemoryError. On the CPU, torch raises a
    RuntimeError. Only the text of a RuntimeError says that torch's allocator failed, or that oneDNN could not compile
    its code.
    """
    names = {cls.__name__ for cls in type(error).__mro__}  # compares class names, so that torch is not loaded
    texts = ("DefaultCPUAllocator", "could not create a primitive")
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
    )
