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
import re
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
from filelock import FileLock

from orchestrator.files import replace_durably
from orchestrator.ledger import LedgerReader, Row
from orchestrator.plan import VARIANT, Group
from orchestrator.sweep import Sweep
from supsup_core.errors import SupSupError

_BATCH = 900
"""Metrics per log_batch; MLflow takes at most 1000."""

_SYSTEM = "system/"
"""What MLflow's own metrics of the machine begin with."""

Point = tuple[str, int]
"""A metric's name and step."""


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def told_in_words(sweep: Sweep) -> Iterator[None]:
    """SupSupError, with a remedy, for whatever keeps MLflow from being written."""
    try:
        yield
    except SupSupError:
        raise
    except Exception as error:  # of MLflow, its database, its server, the network: the results stand without it
        raise SupSupError(
            f"MLflow could not be written ({first_line(error)}); once it can be, `supsup report {sweep.sweep_id}` "
            "writes what is owed"
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


class _Run:
    """One MLflow run and the points it holds."""

    def __init__(self, client: Any, run_id: str, is_new: bool) -> None:
        self.run_id = run_id
        self._client = client
        self._written: set[Point] = set()
        if not is_new:
            for key in client.get_run(run_id).data.metrics:
                if not key.startswith(_SYSTEM):
                    self._written |= {(key, metric.step) for metric in client.get_metric_history(run_id, key)}

    def log(self, points: Iterable[tuple[str, int, float, int]]) -> None:
        """Add the points (name, step, value, time in ms) that are not there yet, synchronously."""
        from mlflow.entities import Metric

        owed: dict[Point, Any] = {}
        for name, step, value, time_ms in points:
            if (name, step) not in self._written:
                owed.setdefault((name, step), Metric(name, value, time_ms, step))
        places = list(owed)
        for start in range(0, len(places), _BATCH):
            batch = places[start : start + _BATCH]
            self._client.log_batch(self.run_id, metrics=[owed[place] for place in batch])
            self._written.update(batch)  # only now: a batch that raised is owed again


class _Means:
    """The accuracy of each configuration of a sweep over its seeds: what the sweep's own run shows.

    It is named `accuracy`, or `accuracy/` and the configuration where there are several, and comes once every seed has
    come to a point.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self._seeds: dict[str, list[str]] = {}
        self._labels: dict[str, str] = {}
        self._found: dict[tuple[str, int], dict[str, Row]] = {}
        for run in (run for group in groups for run in group.runs):
            self._seeds.setdefault(run.label, []).append(run.run_id)
            self._labels[run.run_id] = run.label

    def add(self, row: Row) -> list[tuple[str, int, float, int]]:
        """Take a `point` row; the mean that it completes, if it does."""
        label, n = self._labels.get(row.payload["run_id"]), row.payload["num_learned"]
        if label is None:  # of a run that is no longer asked for
            return []
        found = self._found.setdefault((label, n), {})
        found[row.payload["run_id"]] = row
        if len(found) < len(self._seeds[label]):
            return []
        rows = [found[run_id] for run_id in self._seeds[label]]
        mean = fmean(row.payload["metrics"]["accuracy"] for row in rows)
        return [(self._name(label), n, mean, max(row.time_ms for row in rows))]

    def _name(self, label: str) -> str:
        return "accuracy" if len(self._seeds) == 1 else f"accuracy/{_plain(label)}"


def _plain(text: str) -> str:
    """Text as MLflow takes it in the name of a metric."""
    return re.sub(r"[^\w/.\- :]", "_", text.replace("=", ":"))[:200]


class Tracker:
    """Writes one sweep's ledgers to MLflow. One process, one thread."""

    def __init__(self, sweep: Sweep, groups: Sequence[Group], environment: dict[str, Any]) -> None:
        """Create the store, the experiment and the runs that are missing; open the others again."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.WARNING)

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
        self._parent = self._open("sweep", sweep.sweep_id, sweep.sweep_id, None, environment)
        self._client.log_dict(self._parent.run_id, asdict(sweep.config), "sweep.yaml")
        self._means = _Means(groups)
        self._machine: Any = None
        self._training: dict[str, _Run] = {}
        self._evaluation: dict[str, _Run] = {}
        for group in groups:
            self._open_group(group, environment)

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

    def _open(self, kind: str, uid: str, name: str, parent: str | None, environment: dict[str, Any]) -> _Run:
        """The run with this uid, running again, or a new one."""
        tag = f"{self._sweep.sweep_id}/{kind}/{uid}"
        found = self._client.search_runs([self._experiment_id], f"tags.`supsup.uid` = '{tag}'", max_results=1)
        if found:
            run_id = found[0].info.run_id
            self._client.update_run(run_id, status="RUNNING")
            return _Run(self._client, run_id, is_new=False)
        tags = {"supsup.uid": tag, "supsup.kind": kind, "supsup.sweep": self._sweep.sweep_id, **_tags(environment)}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        run = self._client.create_run(self._experiment_id, run_name=name, tags=tags)
        return _Run(self._client, run.info.run_id, is_new=True)

    def _open_group(self, group: Group, environment: dict[str, Any]) -> None:
        experiment = group.experiment
        label = training_label(group)
        training = self._open("training", group.group_id, label, self._parent.run_id, environment)
        self._training[group.group_id] = training
        self._describe(training, group.runs[0].varied, experiment.node, experiment.seed, training_only=True)
        self._log_dataset(training, experiment.benchmark.base_name, experiment.benchmark.source().checksum())
        for run in group.runs:
            opened = self._open("evaluation", run.run_id, run.name, self._parent.run_id, environment)
            self._evaluation[run.run_id] = opened
            self._client.set_tag(opened.run_id, "supsup.training_run", training.run_id)
            self._describe(opened, run.varied, run.experiment.node, run.experiment.seed, training_only=False)
            self._log_dataset(opened, run.experiment.benchmark.base_name, run.experiment.benchmark.source().checksum())

    def _describe(
        self, run: _Run, varied: dict[str, Any], node: dict[str, Any], seed: int, training_only: bool
    ) -> None:
        """Params: the flat config that runs of this sweep differ in. The whole config: an artifact."""
        from mlflow.entities import Param

        flat = {key: value for key, value in flatten(node).items() if not (training_only and _inferring(key))}
        shown = {key: flat[key] for key in (*varied, *_ALWAYS) if key in flat}
        shown |= {key: value for key, value in varied.items() if key == VARIANT}
        params = [Param(key, str(value)) for key, value in {**shown, "seed": seed}.items()]
        self._client.log_batch(run.run_id, params=params)
        self._client.log_dict(run.run_id, {**node, "seed": seed}, "config.yaml")

    def _log_dataset(self, run: _Run, name: str, checksum: str) -> None:
        from mlflow.entities import Dataset, DatasetInput

        dataset = Dataset(name=name, digest=checksum[:32], source_type="code", source="{}")
        self._client.log_inputs(run.run_id, [DatasetInput(dataset, [])])

    def project(self) -> None:
        """Write what the ledgers have gained since the last call."""
        for group in self._groups:
            rows = self._readers[group.group_id].rows(self._seen[group.group_id])
            if not rows:
                continue
            self._training[group.group_id].log(point for row in rows for point in _training_points(group, row))
            for row in rows:
                run = self._evaluation.get(row.payload.get("run_id", ""))
                if row.kind == "point" and run is not None:
                    n = row.payload["num_learned"]
                    run.log((name, n, value, row.time_ms) for name, value in row.payload["metrics"].items())
            self._parent.log(point for row in rows if row.kind == "point" for point in self._means.add(row))
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

        from orchestrator.environment import PACKAGES

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


def _training_points(group: Group, row: Row) -> list[tuple[str, int, float, int]]:
    """A row as points: loss by batches seen by the group, the rest by task or, in NNs, by tasks' worth of data."""
    if row.kind in ("decision", "met"):
        return _stream_points(group, row)
    if row.kind != "trained":
        return []
    facts, task = row.payload["facts"], row.payload["facts"]["task"]
    first = task * group.experiment.training.num_batches
    points = [("loss", first + batch, loss, row.time_ms) for batch, loss in zip(*facts["curve"], strict=True)]
    if facts["accuracy"] is not None:
        points.append(("task_accuracy", task, facts["accuracy"], row.time_ms))
    if row.payload["seconds"]:
        points.append(("task_seconds", task, row.payload["seconds"], row.time_ms))
        points.append(("images_per_second", task, facts["num_images"] / row.payload["seconds"], row.time_ms))
    return points


def _stream_points(group: Group, row: Row) -> list[tuple[str, int, float, int]]:
    """A decision or the books of NNs as points."""
    payload, experiment = row.payload, group.experiment
    assert experiment.allocation is not None
    if row.kind == "decision":
        batches = (payload["ordinal"] + 1) * experiment.allocation.stream.segment_batches
        return [] if payload["loss"] is None else [("loss", batches, payload["loss"], row.time_ms)]
    n = payload["num_learned"]
    points = [(name, n, value, row.time_ms) for name, value in payload["metrics"].items()]
    points.append(("decision_latency", n, payload["latency"], row.time_ms))
    if payload["seconds"]:
        images = experiment.training.num_batches * experiment.training.batch_size
        points.append(("task_seconds", n, payload["seconds"], row.time_ms))
        points.append(("images_per_second", n, images / payload["seconds"], row.time_ms))
    return points
