"""Writes a sweep to MLflow. All data come from the sweep's ledgers, so the MLflow runs can be deleted and rewritten.

In MLflow, a sweep is a parent run. Each training group has one child run, the training run (losses, throughput). Each
run of the sweep (one configuration with one seed) has one child run, the evaluation run. The tag `supsup.uid`
identifies an MLflow run. Writing is idempotent: it adds only points that the MLflow run does not have yet.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import secrets
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, final

import mlflow
from mlflow.entities import Dataset, DatasetInput, LifecycleStage, Param, RunTag
from mlflow.entities import Run as StoredRun
from mlflow.models import ModelSignature
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

from orchestrator.base.environment import Environment, versions
from orchestrator.base.library_internals import mlflow_monitor_is_alive
from orchestrator.base.wording import as_typed, count, in_shell
from orchestrator.records.group_state import GroupState, LaunchStatus
from orchestrator.records.rows import AnyRow
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.training_groups import Group
from orchestrator.tracking.comparison.differences import compare_run
from orchestrator.tracking.comparison.replacement import replace_run
from orchestrator.tracking.mlflow_address import tracking_uri_of
from orchestrator.tracking.mlflow_points import MetricPoint, Projection, RunKey
from orchestrator.tracking.mlflow_run import DESCRIBED, MLflowRun
from orchestrator.tracking.mlflow_store import busy, delete_surplus, open_store, sole_writer
from orchestrator.tracking.wanted_runs import (
    ENDED,
    KIND,
    SUPERSEDED,
    WantedRun,
    final_states,
    machine_tags,
    wanted_runs,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

log = logging.getLogger("supsup")

WRITER = "supsup.writer"
"""The tag of the sweep's MLflow run that names the tracker that writes the runs. The tag is a fencing token: a tracker
writes nothing more after another machine has replaced its token."""

Purpose: TypeAlias = Literal["run", "repair", "report"]
"""Why MLflow runs are written: a process runs the sweep, repairs its MLflow runs, or writes a report or model."""


@final
class Tracker:
    """Writes the rows of one sweep's ledgers to MLflow. A tracker is not thread-safe.

    A tracker holds the lock of the sweep's MLflow runs from its creation until `close`. Two processes of a machine
    therefore never create or write the same runs at the same time. On a server, the methods that write raise
    WriterBusyError once another machine runs the sweep.
    """

    def __init__(self, sweep: Sweep, groups: Sequence[Group], environment: Environment, *, purpose: Purpose) -> None:
        """Create the MLflow database, experiment and runs if they do not exist.

        Keep one of several runs with the same `supsup.uid`. environment: the machine and software of the process that
        runs the sweep, logged as tags of new MLflow runs. purpose: `report` only adds missing data. `run` and `repair`
        take over the runs: they set all runs to RUNNING, and write runs that contradict the ledgers anew. Raises
        WriterBusyError if another process is writing the runs.
        """
        self._sweep = sweep
        self._environment = environment
        self._purpose = purpose
        self._token = secrets.token_hex(8)
        self._is_compared = False
        self._wanted = {run.key: run for run in wanted_runs(sweep.sweep_id, groups)}
        self._projection = Projection(sweep.sweep_id, groups)
        self._seen = {group.group_id: 0 for group in groups}
        self._tagged: dict[str, tuple[int, int]] = {}
        self._machine: SystemMetricsMonitor | None = None
        self._runs: dict[RunKey, MLflowRun] = {}
        with contextlib.ExitStack() as stack:
            stack.enter_context(sole_writer(sweep))
            self._store = open_store(sweep)
            self._open_runs()
            self._held = stack.pop_all()

    def _open_runs(self) -> None:
        """Find or create all MLflow runs of the sweep, and complete their tags, params and descriptions."""
        sweep_id, new = self._sweep.sweep_id, {}
        found = delete_surplus(self._store, sweep_id)
        for run in self._wanted.values():
            if run.uid not in found:
                new[run.uid] = self._create(run)
        if new:  # another machine may have created the same runs at the same time
            found = new | delete_surplus(self._store, sweep_id)
        self._runs = {key: MLflowRun(self._store.client, found[run.uid]) for key, run in self._wanted.items()}
        for key, opened in self._runs.items():
            self._complete(key)
            if self._purpose != "report" and opened.status != "RUNNING":
                self._store.client.update_run(opened.run_id, status="RUNNING")
                opened.status = "RUNNING"
        if self._purpose != "report":
            self._store.client.set_tag(self._parent.run_id, WRITER, self._token)
        self._store.client.log_dict(self._parent.run_id, self._sweep.portable_config, "sweep.yaml")
        opened_ids = {run.run_id for run in self._runs.values()}
        for other in found.values():  # such as runs of an earlier code version
            if other.info.run_id not in opened_ids and other.data.tags.get(KIND) != SUPERSEDED:
                self._store.client.set_tag(other.info.run_id, KIND, SUPERSEDED)

    @property
    def _parent(self) -> MLflowRun:
        return self._runs[RunKey("sweep", self._sweep.sweep_id)]

    def _refuse_if_fenced(self) -> None:
        """Raise WriterBusyError if another machine has opened the same runs on the server to run the sweep."""
        if self._purpose != "report" and self._sweep.config.tracking is not None:
            stored = self._store.client.get_run(self._parent.run_id)
            if stored.data.tags.get(WRITER) != self._token or stored.info.lifecycle_stage == LifecycleStage.DELETED:
                raise busy(self._sweep)

    def _create(self, run: WantedRun) -> StoredRun:
        tags = run.tags | _tags(self._environment)
        created: StoredRun = self._store.client.create_run(self._store.experiment_id, run_name=run.name, tags=tags)
        return created

    def _complete(self, key: RunKey) -> None:
        """Log a run's tags that are missing or outdated, and the run's missing params, config and dataset."""
        wanted, run, client = self._wanted[key], self._runs[key], self._store.client
        tags = {name: self._runs[link].run_id for name, link in wanted.links.items()} | wanted.tags
        new_tags = {name: value for name, value in tags.items() if run.tags.get(name) != value}
        new_params = {name: value for name, value in wanted.params.items() if name not in run.params}
        if new_tags or new_params:
            client.log_batch(
                run.run_id,
                params=[Param(name, value) for name, value in new_params.items()],
                tags=[RunTag(name, value) for name, value in new_tags.items()],
            )
        run.tags |= new_tags
        run.params |= new_params
        if wanted.experiment is None or DESCRIBED in run.tags:
            return
        client.log_dict(run.run_id, {**wanted.experiment.node, "seed": wanted.experiment.seed}, "config.yaml")
        benchmark = wanted.experiment.benchmark
        digest = benchmark.source().checksum()[:32]
        dataset = Dataset(name=benchmark.base_name, digest=digest, source_type="code", source="{}")
        client.log_inputs(run.run_id, [DatasetInput(dataset, [])])
        client.set_tag(run.run_id, DESCRIBED, "true")
        run.tags[DESCRIBED] = "true"

    def project(self, rows: Mapping[str, Sequence[AnyRow]]) -> None:
        """Write ledger rows to MLflow.

        rows: maps a training group's id to rows of its ledger, in order. The first call must pass all rows that the
        ledgers have, and compares these rows with the points in MLflow. After an error of the first call, open a new
        tracker. A later call passes the rows that were added since the call before. The method is idempotent: rows that
        were written before are skipped. After an error of a later call, pass the rows again.
        """
        new = {
            group_id: [row for row in rows.get(group_id, ()) if row.seq > seen] for group_id, seen in self._seen.items()
        }
        if any(new.values()):
            self._refuse_if_fenced()
        points = self._projection.points(new)
        if not self._is_compared:
            self._compare(points)
        for key, its_points in points.items():
            self._runs[key].log(its_points, correct=key.kind == "sweep")
        self._seen |= {group_id: its_rows[-1].seq for group_id, its_rows in new.items() if its_rows}

    def _compare(self, points: Mapping[RunKey, Sequence[MetricPoint]]) -> None:
        """Compare the points in MLflow with those of the ledgers. Warn about unknown points, and write runs anew.

        With purpose `run`, a run that contradicts its ledger is written anew only if MLflow also has points of this
        ledger. If MLflow has no point of this ledger, the run shows the results of another output, and only purpose
        `repair` replaces the run.
        """
        found = {key: compare_run(key.kind, points.get(key, ()), run.points()) for key, run in self._runs.items()}
        known = {self._wanted[key].group_id for key, differences in found.items() if differences.has_common}
        wrong = [
            key
            for key, differences in found.items()
            if differences.contradict or self._wanted[key].conflicting_params(self._runs[key].params)
        ]
        if self._purpose == "run":
            wrong = [key for key in wrong if known and self._wanted[key].group_id in {None, *known}]
        newest: dict[str, MetricPoint] = {}
        for key, differences in found.items():
            group_id = self._wanted[key].group_id
            if group_id is not None and differences.unknown:
                earlier = newest.get(group_id, differences.unknown[0])
                newest[group_id] = max(earlier, *differences.unknown, key=lambda point: point.time_ms)
        self._warn(newest, known)
        if self._purpose != "report" and wrong:
            self._replace(wrong)
        self._is_compared = True

    def _warn(self, unknown: Mapping[str, MetricPoint], known: Collection[str | None]) -> None:
        """Warn about the groups whose ledger lacks a point of MLflow. known: groups whose ledger has other points."""
        for group_id, point in unknown.items() if self._purpose != "repair" else ():
            ledger = as_typed(self._sweep.folder.group(group_id).ledger)
            if self._purpose == "run" and group_id in known:
                log.warning(
                    "%s: the ledger has lost rows: MLflow has %s, but the ledger does not. The lost work is computed "
                    "again", ledger, point.text,
                )  # fmt: skip
            else:
                log.warning(
                    "%s: MLflow has %s, but the ledger does not; `supsup fsck output=%s --mlflow` shows all "
                    "differences", ledger, point.text, in_shell(self._sweep.output.path),
                )  # fmt: skip

    def _replace(self, wrong: Sequence[RunKey]) -> None:
        """Write MLflow runs anew, without their points."""
        for key in wrong:
            new = replace_run(self._store, self._runs[key].run_id, self._wanted[key].params)
            self._runs[key] = MLflowRun(self._store.client, new)
        for key in self._runs:  # the tags of other runs name the runs that were replaced
            self._complete(key)
        log.warning(
            "%s: replaced %s, because MLflow contradicted the ledgers; MLflow keeps the old runs, marked as deleted",
            self._sweep.sweep_id, count(len(wrong), "MLflow run"),
        )  # fmt: skip

    def tag_machines(self, states: Mapping[str, GroupState]) -> None:
        """Tag the MLflow runs with the machine kinds that contributed to their results so far.

        states: the states of the training groups by id. Reads only states that have new points or machine kinds.
        """
        sizes = {group_id: (len(state.points), len(state.machines)) for group_id, state in states.items()}
        changed = {group_id for group_id, size in sizes.items() if size != self._tagged.get(group_id, (0, 0))}
        for key, run in self._wanted.items():
            if changed and (run.group_id is None or run.group_id in changed):
                self._runs[key].tag(machine_tags(run.machines(states)))
        self._tagged |= sizes

    def watch_machine(self) -> None:
        """Start MLflow's system metrics monitor, which records this machine's load until `finish`.

        The monitor stops after one failed request to the server. Call this method repeatedly, because it starts a new
        monitor if the monitor has stopped.
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
        logged, path = self._runs[RunKey("evaluation", run_id)].run_id, f"tables/{name}.json"
        self._store.client.log_text(logged, table.to_json(orient="split", index=False), path)
        shown = json.loads(self._store.client.get_run(logged).data.tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
        item = {"path": path, "type": "table"}
        if item not in shown:
            self._store.client.set_tag(logged, MLFLOW_LOGGED_ARTIFACTS, json.dumps([*shown, item]))

    def attach(self, files: Sequence[Path], folder: str) -> None:
        """Log files as artifacts of the sweep's MLflow run. folder: the target folder among the run's artifacts."""
        self._refuse_if_fenced()
        for file in files:
            self._store.client.log_artifact(self._parent.run_id, str(file), folder)

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
        run = self._runs[RunKey("evaluation", run_id)]
        run.status = "RUNNING"  # until `finish`, because start_run sets another status at its end
        with mlflow.start_run(run_id=run.run_id):
            logged = mlflow.pyfunc.log_model(
                name="model", python_model=str(Path(__file__).with_name("served_model.py")),
                artifacts={"learned": str(folder)}, signature=signature,
                input_example=(example, params) if params else example,
                pip_requirements=[f"{name}=={version}" for name, version in versions().items()],
            )  # fmt: skip
        return str(logged.model_uri)

    def finish(self, ended: Mapping[str, LaunchStatus]) -> None:
        """End every MLflow run. The parent run gets the worst status of all training groups.

        ended: maps a training group's id to the group's `GroupState.ended`.
        """
        self._stop_watching()
        self._refuse_if_fenced()
        for key, final_state in final_states(list(self._wanted.values()), ended).items():
            run = self._runs[key]
            if final_state.ended is not None and run.tags.get(ENDED) != final_state.ended:
                self._store.client.set_tag(run.run_id, ENDED, final_state.ended)
                run.tags[ENDED] = final_state.ended
            if run.status != final_state.status:
                self._store.client.set_terminated(run.run_id, final_state.status)
                run.status = final_state.status

    def _stop_watching(self) -> None:
        if self._machine is not None:
            self._machine.finish()
            self._machine = None

    def close(self) -> None:
        """Release the lock of the sweep's MLflow runs, so that another process can write them."""
        self._stop_watching()
        self._held.close()


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
