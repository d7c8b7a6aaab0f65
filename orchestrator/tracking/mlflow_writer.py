"""Writes a sweep to MLflow. All data come from the sweep's ledgers, so the MLflow runs can be deleted and rewritten.

In MLflow, a sweep is a parent run. Each training group has one child run, the training run (losses, throughput). Each
run of the sweep (one configuration with one seed) has one child run, the evaluation run. The tag `supsup.uid`
identifies an MLflow run. Writing is idempotent: it adds only points that the MLflow run does not have yet.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported

import mlflow
from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, LifecycleStage, Param, RunTag
from mlflow.entities import Run as StoredRun
from mlflow.models import ModelSignature
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

from orchestrator.base.environment import Environment, versions
from orchestrator.base.library_internals import mlflow_monitor_is_alive
from orchestrator.base.plain_values import Node, flatten
from orchestrator.records.group_state import GroupState, LaunchStatus
from orchestrator.records.machine_kind import MachineKind, joined
from orchestrator.records.rows import AnyRow, PointCompleted, Row
from orchestrator.spec.experiment import Experiment
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.training_groups import VARIANT, Group
from orchestrator.tracking.mlflow_address import tracking_uri_of
from orchestrator.tracking.mlflow_points import MetricPoint, SeedMeans, training_points
from orchestrator.tracking.mlflow_run import DESCRIBED, MLflowRun
from orchestrator.tracking.mlflow_store import create_database
from orchestrator.tracking.moved_output import relocate

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

log = logging.getLogger("supsup")

_PAGE = 1000
"""The number of runs in one page of search_runs. MLflow allows at most 50,000."""

_MOST_CHARACTERS = 8000
"""The largest length of a tag that MLflow accepts."""

_SUPERSEDED = "superseded"
"""The value of the tag `supsup.kind` for MLflow runs that are no longer part of the sweep."""

_STATUSES = {"done": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}
"""Maps `GroupState.ended` to MLflow's run status. Any other value of `ended` means KILLED."""


@final
class Tracker:
    """Writes the rows of one sweep's ledgers to MLflow. Not thread-safe; only one process may write a sweep."""

    def __init__(self, sweep: Sweep, groups: Sequence[Group], environment: Environment) -> None:
        """Create the MLflow database, experiment and runs if they do not exist. Set existing runs to RUNNING.

        environment: the machine and software of the process that runs the sweep, logged as tags of new MLflow runs.
        """
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(
            logging.CRITICAL
        )  # its errors are raised too, so the log is redundant
        self._sweep = sweep
        self._groups = groups
        if sweep.config.tracking is not None:  # fail at once, because the Monitor retries
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        folder = sweep.output.mlflow
        folder.path.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.lock_file):  # so that two sweeps do not create the same database or experiment
            if sweep.config.tracking is None:
                create_database(folder)
                relocate(folder)
            self._client = mlflow.MlflowClient(tracking_uri_of(sweep))
            self._experiment_id = self._experiment()
        self._seen = {group.group_id: 0 for group in groups}
        self._found = self._existing()
        self._parent = self._open("sweep", sweep.sweep_id, sweep.sweep_id, None, environment)
        self._client.log_dict(self._parent.run_id, sweep.portable_config, "sweep.yaml")
        self._means = SeedMeans(groups)
        self._tagged: dict[str, tuple[int, int]] = {}
        self._machine: SystemMetricsMonitor | None = None
        self._training: dict[str, MLflowRun] = {}
        self._evaluation: dict[str, MLflowRun] = {}
        for group in groups:
            self._open_group(group, environment)
        self._mark_superseded()

    def _mark_superseded(self) -> None:
        """Tag the sweep's MLflow runs that the plan does not contain, such as runs of an earlier code version."""
        opened = {run.run_id for run in (self._parent, *self._training.values(), *self._evaluation.values())}
        for run in self._found.values():
            if run.info.run_id not in opened and run.data.tags["supsup.kind"] != _SUPERSEDED:
                self._client.set_tag(run.info.run_id, "supsup.kind", _SUPERSEDED)

    def _experiment(self) -> str:
        name = self._sweep.config.name
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage == LifecycleStage.DELETED:
                log.warning("the MLflow experiment %s had been deleted in MLflow; it is restored", name)
                self._client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        location = None  # a server has its own artifact location
        if self._sweep.config.tracking is None:
            artifacts = self._sweep.output.mlflow.artifacts
            artifacts.mkdir(parents=True, exist_ok=True)
            location = artifacts.as_uri()
        tags = {"mlflow.experimentKind": "custom_model_development"}  # the page then shows runs, not the GenAI view
        return str(self._client.create_experiment(name, artifact_location=location, tags=tags))

    def _existing(self) -> dict[str, StoredRun]:
        """Returns the sweep's existing MLflow runs by their tag `supsup.uid`."""
        mine, token = f"tags.`supsup.sweep` = '{self._sweep.sweep_id}'", None
        found: dict[str, StoredRun] = {}
        while token != "":
            page = self._client.search_runs([self._experiment_id], mine, max_results=_PAGE, page_token=token)
            found |= {run.data.tags["supsup.uid"]: run for run in page}
            token = page.token or ""
        return found

    def _open(self, kind: str, uid: str, name: str, parent: str | None, environment: Environment) -> MLflowRun:
        """Returns the MLflow run of this kind and uid, and sets it to RUNNING. Creates the run if it does not exist.

        parent: the id of the parent run; None for the sweep's own run.
        """
        tag = f"{self._sweep.sweep_id}/{kind}/{uid}"
        found = self._found.get(tag)
        if found is not None:
            self._client.update_run(found.info.run_id, status="RUNNING")
            if found.data.tags["supsup.kind"] != kind:
                self._client.set_tag(found.info.run_id, "supsup.kind", kind)
            return MLflowRun(self._client, found)
        tags = {"supsup.uid": tag, "supsup.kind": kind, "supsup.sweep": self._sweep.sweep_id, **_tags(environment)}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        return MLflowRun(self._client, self._client.create_run(self._experiment_id, run_name=name, tags=tags))

    def _open_group(self, group: Group, environment: Environment) -> None:
        label = training_label(group)
        training = self._open("training", group.group_id, label, self._parent.run_id, environment)
        self._training[group.group_id] = training
        self._describe(training, group.experiment, group.runs[0].varied, {})
        for run in group.runs:
            opened = self._open("evaluation", run.run_id, run.name, self._parent.run_id, environment)
            self._evaluation[run.run_id] = opened
            tags = {"supsup.configuration": run.label, "supsup.training_run": training.run_id}
            self._describe(opened, run.experiment, run.varied, tags)

    def _describe(self, run: MLflowRun, experiment: Experiment, varied: Node, tags: dict[str, str]) -> None:
        """Log a run's params, config and dataset, unless they have been logged before.

        The params are the keys that the sweep varies and the keys in `_ALWAYS`. For a training run, `tags` is empty,
        and only keys that affect training are params. The whole config is logged as an artifact.
        """
        if run.is_described:
            return
        flat = {key: value for key, value in flatten(experiment.node).items() if tags or not _is_of_inference(key)}
        shown = {key: flat[key] for key in (*varied, *_ALWAYS) if key in flat}
        shown |= {key: value for key, value in varied.items() if key == VARIANT}
        params = [Param(key, str(value)) for key, value in {**shown, "seed": experiment.seed}.items()]
        self._client.log_batch(run.run_id, params=params, tags=[RunTag(key, value) for key, value in tags.items()])
        self._client.log_dict(run.run_id, {**experiment.node, "seed": experiment.seed}, "config.yaml")
        name, digest = experiment.benchmark.base_name, experiment.benchmark.source().checksum()[:32]
        dataset = Dataset(name=name, digest=digest, source_type="code", source="{}")
        self._client.log_inputs(run.run_id, [DatasetInput(dataset, [])])
        self._client.set_tag(run.run_id, DESCRIBED, "true")

    def project(self, rows: Mapping[str, Sequence[AnyRow]]) -> None:
        """Write ledger rows to MLflow.

        rows: maps a training group's id to rows of its ledger, in order. A ledger's rows may be passed in several
        calls. The method is idempotent: rows that were written before are skipped. After an error, pass the rows again.
        """
        for group in self._groups:
            new = [row for row in rows.get(group.group_id, ()) if row.seq > self._seen[group.group_id]]
            if not new:
                continue
            self._training[group.group_id].log(point for row in new for point in training_points(group, row))
            for row in new:
                if isinstance(row.event, PointCompleted) and row.event.run_id in self._evaluation:
                    n, metrics = row.event.num_learned, row.event.metrics
                    run = self._evaluation[row.event.run_id]
                    run.log(MetricPoint(name, n, value, row.time_ms) for name, value in metrics.items())
            completed = [Row(row.seq, row.time_ms, row.event) for row in new if isinstance(row.event, PointCompleted)]
            means = [point for row in completed for point in self._means.add(row)]
            self._parent.log(means, correct=True)
            self._seen[group.group_id] = new[-1].seq

    def tag_machines(self, states: Mapping[str, GroupState]) -> None:
        """Tag the MLflow runs with the machine kinds that contributed to their results so far.

        states: the states of the training groups by id. Reads only states that have new points or machine kinds.
        """
        for group in self._groups:
            state = states.get(group.group_id, GroupState())
            size = len(state.points), len(state.machines)
            if size != self._tagged.get(group.group_id, (0, 0)):
                self._training[group.group_id].tag(machine_tags(state.machines))
                for run in group.runs:
                    self._evaluation[run.run_id].tag(machine_tags(state.machines_of(run.run_id)))
                self._parent.tag(machine_tags(joined(*(other.machines for other in states.values()))))
                self._tagged[group.group_id] = size

    def watch_machine(self) -> None:
        """Start MLflow's system metrics monitor, which records this machine's load until `finish`.

        Call this method repeatedly, because the monitor stops after one failed request to the server. This method then
        starts a new monitor.
        """
        if self._machine is not None and mlflow_monitor_is_alive(self._machine):
            return
        uri = tracking_uri_of(self._sweep)
        self._machine = SystemMetricsMonitor(self._parent.run_id, resume_logging=True, tracking_uri=uri)
        self._machine.start()

    def log_table(self, run_id: str, name: str, table: pd.DataFrame) -> None:
        """Log a table to the MLflow evaluation run of `run_id` (Run.run_id). Replaces an existing table of that name.

        This method does not use MlflowClient.log_table, which would append to a table that an earlier process logged.
        """
        logged, path = self._evaluation[run_id].run_id, f"tables/{name}.json"
        self._client.log_text(logged, table.to_json(orient="split", index=False), path)
        shown = json.loads(self._client.get_run(logged).data.tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
        item = {"path": path, "type": "table"}
        if item not in shown:
            self._client.set_tag(logged, MLFLOW_LOGGED_ARTIFACTS, json.dumps([*shown, item]))

    def attach(self, files: Sequence[Path], folder: str) -> None:
        """Log files as artifacts of the sweep's MLflow run. folder: the target folder among the run's artifacts."""
        for file in files:
            self._client.log_artifact(self._parent.run_id, str(file), folder)

    def log_model(self, run_id: str, folder: Path, example: npt.NDArray[np.float32], params: dict[str, int]) -> str:
        """Log an exported run as an MLflow model, attached to the MLflow evaluation run. Returns the model's URI.

        run_id: the Run.run_id. folder: a folder that export_run wrote. example: a few images (images, *input_shape),
        float32, logged as the input example. params: the parameters of `predict` for the example.
        """
        signature = ModelSignature(
            inputs=Schema([TensorSpec(example.dtype, (-1, *example.shape[1:]))]),
            outputs=Schema([ColSpec("long", "label"), ColSpec("long", "mask")]),
            params=ParamSchema([ParamSpec("task", "long", -1)]),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # MLflow's own type hints cause a warning
            importlib.import_module("mlflow.pyfunc")
        mlflow.set_tracking_uri(tracking_uri_of(self._sweep))
        with mlflow.start_run(run_id=self._evaluation[run_id].run_id):
            logged = mlflow.pyfunc.log_model(
                name="model", python_model=str(Path(__file__).with_name("served_model.py")),
                artifacts={"learned": str(folder)}, signature=signature,
                input_example=(example, params) if params else example,
                pip_requirements=[f"{name}=={version}" for name, version in versions().items()],
            )  # fmt: skip
        return str(logged.model_uri)

    def finish(self, statuses: Mapping[str, LaunchStatus]) -> None:
        """End every MLflow run. The parent run gets the worst status of all training groups.

        statuses: maps a training group's id to the group's `GroupState.ended`.
        """
        if self._machine is not None:
            self._machine.finish()
        for group in self._groups:
            ended = statuses.get(group.group_id, "interrupted")
            status = _STATUSES.get(ended, "KILLED")
            self._client.set_terminated(self._training[group.group_id].run_id, status)
            for run in group.runs:
                self._client.set_tag(self._evaluation[run.run_id].run_id, "supsup.ended", ended)
                self._client.set_terminated(self._evaluation[run.run_id].run_id, status)
        worst = [status for status in ("interrupted", "failed") if status in statuses.values()]
        self._client.set_terminated(self._parent.run_id, _STATUSES.get(worst[0] if worst else "done", "KILLED"))


_ALWAYS = ("scenario", "benchmark.name", "benchmark.num_tasks", "net.name", "net.num_outputs", "method.name",
           "inference.rule", "inference.objective", "stream.order", "allocation.name", "budget.num_masks",
           "budget.on_exhausted")  # fmt: skip
"""Config keys that are always logged as params, so that MLflow's pages can filter by them."""


def _is_of_inference(key: str) -> bool:
    return key == "scenario" or key.startswith(("inference.", "evaluation."))


def training_label(group: Group) -> str:
    """Returns a readable name of a group: its values of the training keys that the sweep varies, and its seed."""
    varied = [
        str(value) if key == VARIANT else f"{key.rpartition('.')[2]}={value}"
        for key, value in group.runs[0].varied.items()
        if not _is_of_inference(key)
    ]
    return " ".join(["train", *varied, f"seed={group.experiment.seed}"])


def machine_tags(machines: Collection[MachineKind]) -> dict[str, str]:
    """Returns the tags of an MLflow run whose results were computed on these machine kinds; none if it has no result.

    `supsup.mixed_machines` is `true` if there are several kinds. `supsup.machines` is at most _MOST_CHARACTERS long.
    """
    if not machines:
        return {}
    text = " | ".join(str(machine) for machine in sorted(machines))
    return {
        "supsup.mixed_machines": str(len(machines) > 1).lower(),
        "supsup.machines": text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…",
    }


def _tags(environment: Environment) -> dict[str, str]:
    tags = {f"supsup.version.{name}": version for name, version in environment.versions.items()}
    tags |= {
        "supsup.python": environment.python,
        "supsup.platform": environment.platform,
        "supsup.processor": environment.processor,
        "supsup.num_cpus": str(environment.num_cpus),
    }
    if environment.git_revision:
        tags["mlflow.source.git.commit"] = environment.git_revision
    return tags
