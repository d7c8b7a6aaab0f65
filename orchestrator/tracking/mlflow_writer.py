"""MLflow as a projection of the ledgers: it can be thrown away and written again from them.

A sweep is a parent run; its children are one run per training group (losses, throughput) and one per
evaluated configuration and seed. Runs are found again by the tag `supsup.uid`. Before anything is
written to a run that exists, its points are read, and only those that are owed are added, so that no
crash or resume loses or doubles one.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from orchestrator.base.files import replace_durably
from orchestrator.base.wording import first_line
from orchestrator.records.ledger import LedgerReader
from orchestrator.spec.experiment import Experiment
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.training_groups import VARIANT, Group
from orchestrator.tracking.mlflow_points import Means, Point, training_points
from supsup_core.errors import SupSupError

if TYPE_CHECKING:
    import pandas as pd

_BATCH = 900
"""Metrics per log_batch; MLflow takes at most 1000."""

_PAGE = 1000
"""Runs per search_runs; MLflow gives at most 50,000."""

_SUPERSEDED = "superseded"
"""The kind of a run that the sweep does not ask for any more."""

_DESCRIBED = "supsup.described"
"""The tag of a run whose params, config and dataset are all logged."""


@contextlib.contextmanager
def told_in_words(sweep: Sweep) -> Iterator[None]:
    """SupSupError, with a remedy, for whatever keeps MLflow from being written."""
    try:
        yield
    except SupSupError:
        raise
    except Exception as error:  # of MLflow, its database, its server, the network: the results stand without it
        raise SupSupError(
            f"MLflow could not be written ({first_line(error)}); once it can be, "
            f"`{sweep.command('report')}` writes what is owed"
        ) from error


def tracking_uri(output: Path) -> str:
    """The tracking store of an output folder."""
    return f"sqlite:///{output / 'mlflow' / 'mlflow.db'}"


def uri_of(sweep: Sweep) -> str:
    """Where a sweep's runs are written: the server that it names, or the store of its output."""
    return sweep.config.tracking or tracking_uri(sweep.output)


def artifact_folder(output: Path) -> Path:
    """Where MLflow keeps the artifacts of an output folder."""
    return output / "mlflow" / "artifacts"


def create_database(mlflow: Any, output: Path) -> None:
    """Create MLflow's database, if there is none: whole or not at all.

    MLflow builds its tables in many steps, and cannot go on from the middle: killed there, the database would be
    unusable for good. So it is built under another name, from the start each time.
    """
    path = output / "mlflow" / "mlflow.db"
    if path.exists():
        return
    for left in path.parent.glob("mlflow.db.*.partial"):
        left.unlink()
    partial = path.with_name(f"mlflow.db.{time.time_ns()}.partial")
    mlflow.MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)
    replace_durably(partial, path)


def _time(metric: Any) -> int:
    return int(metric.timestamp)


class _Run:
    """One MLflow run and the points it holds."""

    def __init__(self, client: Any, found: Any) -> None:
        """found: the run as MLflow gave it. The points of a metric that it has are read before any is added."""
        self.run_id: str = found.info.run_id
        self.is_described = _DESCRIBED in found.data.tags
        self._client = client
        self._unread = set(found.data.metrics)
        self._written: dict[tuple[str, int], float] = {}

    def log(self, points: Iterable[Point], *, correct: bool = False) -> None:
        """Add the points (name, step, value, time in ms) that are not there yet, synchronously.

        correct: add those too that are there with another value; MLflow shows what was added last.
        """
        from mlflow.entities import Metric

        owed: dict[tuple[str, int], Any] = {}
        for name, step, value, time_ms in points:
            if name in self._unread:
                history = self._client.get_metric_history(self.run_id, name)
                self._written |= {(name, held.step): held.value for held in sorted(history, key=_time)}
                self._unread.remove(name)
            if (name, step) not in self._written or (correct and self._written[name, step] != value):
                owed.setdefault((name, step), Metric(name, value, time_ms, step))
        places = list(owed)
        for start in range(0, len(places), _BATCH):
            batch = places[start : start + _BATCH]
            self._client.log_batch(self.run_id, metrics=[owed[place] for place in batch])
            self._written |= {place: owed[place].value for place in batch}  # only now: one that raised is owed again


class Tracker:
    """Writes one sweep's ledgers to MLflow. One process, one thread."""

    def __init__(self, sweep: Sweep, groups: Sequence[Group], environment: dict[str, Any]) -> None:
        """Create the store, the experiment and the runs that are missing; open the others again."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # what it raises is told in words

        self._mlflow = mlflow
        self._sweep = sweep
        self._groups = groups
        if sweep.config.tracking is not None:
            os.environ.setdefault(
                "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0"
            )  # who asks tries again, and knows what is there
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        (sweep.output / "mlflow").mkdir(parents=True, exist_ok=True)
        with FileLock(sweep.output / "mlflow" / "lock"):  # two sweeps must not create one database or experiment
            if sweep.config.tracking is None:
                create_database(mlflow, sweep.output)
            self._client = mlflow.MlflowClient(uri_of(sweep))
            self._experiment_id = self._experiment()
        self._readers = {group.group_id: LedgerReader(sweep.ledger_path(group.group_id)) for group in groups}
        self._seen = {group.group_id: 0 for group in groups}
        self._found = self._existing()
        self._parent = self._open("sweep", sweep.sweep_id, sweep.sweep_id, None, environment)
        self._client.log_dict(self._parent.run_id, asdict(sweep.config), "sweep.yaml")
        self._means = Means(groups)
        self._machine: Any = None
        self._training: dict[str, _Run] = {}
        self._evaluation: dict[str, _Run] = {}
        for group in groups:
            self._open_group(group, environment)
        self._supersede()

    def _supersede(self) -> None:
        """Mark what earlier versions of the code have trained or tested, so that it is not taken for this sweep's."""
        opened = {run.run_id for run in (self._parent, *self._training.values(), *self._evaluation.values())}
        for run in self._found.values():
            if run.info.run_id not in opened and run.data.tags["supsup.kind"] != _SUPERSEDED:
                self._client.set_tag(run.info.run_id, "supsup.kind", _SUPERSEDED)

    def _experiment(self) -> str:
        name = self._sweep.config.name
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        where = None  # a server knows for itself
        if self._sweep.config.tracking is None:
            folder = artifact_folder(self._sweep.output)
            folder.mkdir(parents=True, exist_ok=True)
            where = folder.as_uri()
        tags = {"mlflow.experimentKind": "custom_model_development"}  # opens on its runs, not on GenAI's pages
        return str(self._client.create_experiment(name, artifact_location=where, tags=tags))

    def _existing(self) -> dict[str, Any]:
        """The sweep's runs that there are, by uid."""
        mine, token = f"tags.`supsup.sweep` = '{self._sweep.sweep_id}'", None
        found: dict[str, Any] = {}
        while token != "":
            page = self._client.search_runs([self._experiment_id], mine, max_results=_PAGE, page_token=token)
            found |= {run.data.tags["supsup.uid"]: run for run in page}
            token = page.token or ""
        return found

    def _open(self, kind: str, uid: str, name: str, parent: str | None, environment: dict[str, Any]) -> _Run:
        """The run with this uid, running again, or a new one."""
        tag = f"{self._sweep.sweep_id}/{kind}/{uid}"
        found = self._found.get(tag)
        if found is not None:
            self._client.update_run(found.info.run_id, status="RUNNING")
            if found.data.tags["supsup.kind"] != kind:
                self._client.set_tag(found.info.run_id, "supsup.kind", kind)
            return _Run(self._client, found)
        tags = {"supsup.uid": tag, "supsup.kind": kind, "supsup.sweep": self._sweep.sweep_id, **_tags(environment)}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        return _Run(self._client, self._client.create_run(self._experiment_id, run_name=name, tags=tags))

    def _open_group(self, group: Group, environment: dict[str, Any]) -> None:
        label = training_label(group)
        training = self._open("training", group.group_id, label, self._parent.run_id, environment)
        self._training[group.group_id] = training
        self._describe(training, group.experiment, group.runs[0].varied, {})
        for run in group.runs:
            opened = self._open("evaluation", run.run_id, run.name, self._parent.run_id, environment)
            self._evaluation[run.run_id] = opened
            tags = {"supsup.configuration": run.label, "supsup.training_run": training.run_id}
            self._describe(opened, run.experiment, run.varied, tags)

    def _describe(self, run: _Run, experiment: Experiment, varied: dict[str, Any], tags: dict[str, str]) -> None:
        """Params: the flat config that runs of this sweep differ in, of a run without tags what its training depends
        on. The whole config: an artifact."""
        from mlflow.entities import Dataset, DatasetInput, Param, RunTag

        if run.is_described:
            return
        flat = {key: value for key, value in flatten(experiment.node).items() if tags or not _inferring(key)}
        shown = {key: flat[key] for key in (*varied, *_ALWAYS) if key in flat}
        shown |= {key: value for key, value in varied.items() if key == VARIANT}
        params = [Param(key, str(value)) for key, value in {**shown, "seed": experiment.seed}.items()]
        self._client.log_batch(run.run_id, params=params, tags=[RunTag(key, value) for key, value in tags.items()])
        self._client.log_dict(run.run_id, {**experiment.node, "seed": experiment.seed}, "config.yaml")
        name, digest = experiment.benchmark.base_name, experiment.benchmark.source().checksum()[:32]
        dataset = Dataset(name=name, digest=digest, source_type="code", source="{}")
        self._client.log_inputs(run.run_id, [DatasetInput(dataset, [])])
        self._client.set_tag(run.run_id, _DESCRIBED, "true")

    def project(self) -> None:
        """Write what the ledgers have gained since the last call."""
        for group in self._groups:
            rows = self._readers[group.group_id].rows(self._seen[group.group_id])
            if not rows:
                continue
            self._training[group.group_id].log(point for row in rows for point in training_points(group, row))
            for row in rows:
                run = self._evaluation.get(row.payload.get("run_id", ""))
                if row.kind == "point" and run is not None:
                    n = row.payload["num_learned"]
                    run.log((name, n, value, row.time_ms) for name, value in row.payload["metrics"].items())
            means = (point for row in rows if row.kind == "point" for point in self._means.add(row))
            self._parent.log(means, correct=True)
            self._seen[group.group_id] = rows[-1].seq

    def watch_machine(self) -> None:
        """Have MLflow measure this machine every ten seconds (its system metrics), for the sweep's run, until
        `finish`. Call it again and again: MLflow gives up for good where a server does not answer once."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        thread = None if self._machine is None else self._machine._process
        if thread is not None and thread.is_alive():
            return
        self._machine = SystemMetricsMonitor(self._parent.run_id, resume_logging=True, tracking_uri=uri_of(self._sweep))
        self._machine.start()

    def log_table(self, run_id: str, name: str, table: pd.DataFrame) -> None:
        """Log a table of a run (Run.run_id), which MLflow's pages can show, in the place of one of that name."""
        from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS as TAG

        # as MLflow's own log_table, which would add to what an earlier launch has logged
        logged, path = self._evaluation[run_id].run_id, f"tables/{name}.json"
        self._client.log_text(logged, table.to_json(orient="split", index=False), path)
        shown = json.loads(self._client.get_run(logged).data.tags.get(TAG, "[]"))
        item = {"path": path, "type": "table"}
        if item not in shown:
            self._client.set_tag(logged, TAG, json.dumps([*shown, item]))

    def attach(self, files: Sequence[Path], folder: str) -> None:
        """Attach files to the sweep's run."""
        for file in files:
            self._client.log_artifact(self._parent.run_id, str(file), folder)

    def log_model(self, run_id: str, folder: Path, example: Any, params: dict[str, int]) -> str:
        """Log an exported run (exporting.export_run) as an MLflow model of its evaluation run; returns its URI.

        example: a few images (images, *input_shape) float32, kept as the input example; params: what predicting them
        needs beside them.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # MLflow's, of type hints of its own
            import mlflow.pyfunc
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

        from orchestrator.base.environment import PACKAGES

        signature = ModelSignature(
            inputs=Schema([TensorSpec(example.dtype, (-1, *example.shape[1:]))]),
            outputs=Schema([ColSpec("long", "label"), ColSpec("long", "mask")]),
            params=ParamSchema([ParamSpec("task", "long", -1)]),
        )
        versions = [f"{name}=={importlib.metadata.version(name)}" for name in PACKAGES]
        mlflow.set_tracking_uri(uri_of(self._sweep))
        with mlflow.start_run(run_id=self._evaluation[run_id].run_id):
            logged = mlflow.pyfunc.log_model(
                name="model", python_model=str(Path(__file__).with_name("served_model.py")),
                artifacts={"learned": str(folder)}, signature=signature,
                input_example=(example, params) if params else example,
                pip_requirements=versions,
            )  # fmt: skip
        return str(logged.model_uri)

    def finish(self, statuses: dict[str, str]) -> None:
        """End every run. statuses: group_id to done, stopped, failed or interrupted; the parent takes the worst."""
        if self._machine is not None:
            self._machine.finish()
        words = {"done": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}
        for group in self._groups:
            ended = statuses.get(group.group_id, "interrupted")
            status = words.get(ended, "KILLED")
            self._client.set_terminated(self._training[group.group_id].run_id, status)
            for run in group.runs:
                self._client.set_tag(self._evaluation[run.run_id].run_id, "supsup.ended", ended)
                self._client.set_terminated(self._evaluation[run.run_id].run_id, status)
        worst = [status for status in ("interrupted", "failed") if status in statuses.values()]
        self._client.set_terminated(self._parent.run_id, words.get(worst[0] if worst else "done", "KILLED"))


_ALWAYS = ("scenario", "benchmark.name", "benchmark.num_tasks", "net.name", "net.num_outputs", "method.name",
           "inference.rule", "inference.objective", "stream.order", "allocation.name", "budget.num_masks",
           "budget.on_exhausted")  # fmt: skip
"""Keys that are params of every run, whether or not the grid varies them: what one filters by."""


def _inferring(key: str) -> bool:
    return key == "scenario" or key.startswith(("inference.", "evaluation."))


def training_label(group: Group) -> str:
    """A readable name for a training group: what the grid varies of its training, and its seed."""
    varied = [
        str(value) if key == VARIANT else f"{key.rpartition('.')[2]}={value}"
        for key, value in group.runs[0].varied.items()
        if not _inferring(key)
    ]
    return " ".join(["train", *varied, f"seed={group.experiment.seed}"])


def flatten(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _tags(environment: dict[str, Any]) -> dict[str, str]:
    tags = {f"supsup.version.{name}": version for name, version in environment["versions"].items()}
    tags |= {f"supsup.{key}": str(environment[key]) for key in ("python", "platform", "processor", "num_cpus")}
    if environment["git_revision"]:
        tags["mlflow.source.git.commit"] = environment["git_revision"]
    return tags
