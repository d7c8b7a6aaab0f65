"""Verbs that make something of what a sweep has learned: report and export."""

from __future__ import annotations

import tempfile
from pathlib import Path

from orchestrator.base import environment
from orchestrator.base.folder_lock import holder_of
from orchestrator.results.report import write_report
from orchestrator.sweeps.lookup import find_run, find_sweep, read_states
from orchestrator.tracking.mlflow_writer import Tracker, told_in_words, uri_of
from orchestrator.tracking.monitor import conclude
from supsup_core.errors import InputError, SupSupError


def export(wanted: str, output: Path) -> int:
    """Log a finished run as an MLflow model, and print how to load it."""
    import torch  # these three here, for a report needs nothing of torch, which takes seconds to load

    from orchestrator.results.exported_run import export_run
    from orchestrator.results.loaded_run import load_run

    found = find_run(wanted, output)
    if holder_of(found.sweep.path) is not None:
        raise InputError(f"{found.sweep.sweep_id}: is running; export it when it is done")
    loaded = load_run(found.sweep, found.group, found.run)
    task = loaded.experiment.benchmark.task(loaded.tasks[0], loaded.dataset, loaded.experiment.seed)
    example = task.test_batch(torch.arange(min(4, task.num_test)))[0].numpy()
    groups = found.sweep.plan()
    with tempfile.TemporaryDirectory() as scratch, told_in_words(found.sweep):
        export_run(found.sweep, loaded, Path(scratch))
        tracker = Tracker(found.sweep, groups, environment.describe(found.sweep.folder))
        tracker.project()
        params = {"task": loaded.tasks[0]} if loaded.experiment.scenario.given_at_inference else {}
        try:
            uri = tracker.log_model(found.run.run_id, Path(scratch), example, params)
        finally:
            tracker.finish({group_id: state.ended for group_id, state in read_states(found.sweep).items()})
    print(f"{found.name}: an MLflow model now\n")
    print(f"  mlflow.set_tracking_uri({uri_of(found.sweep)!r})")
    print(f"  model = mlflow.pyfunc.load_model({uri!r})")
    shape = " × ".join(map(str, ("images", *example.shape[1:])))
    given = f", params={params}" if params else ""
    print(f"  model.predict(images{given})    # float32, {shape}: the label and the mask of each")
    return 0


def report(wanted: str | None, output: Path) -> int:
    """Write a sweep's report, attach it to MLflow, and print the table."""
    sweep = find_sweep(output, wanted)
    groups = sweep.plan()
    states = read_states(sweep)
    written = write_report(sweep, groups, states)
    print(written.text)
    if written.trouble is not None:
        raise SupSupError(written.trouble)
    print(f"\nreport: {written.folder}")
    if holder_of(sweep.path) is not None:
        print("the sweep is running: its process will attach the report when it ends")
        return 0
    with told_in_words(sweep):
        tracker = Tracker(sweep, groups, environment.describe(sweep.folder))
        tracker.project()
        conclude(tracker, groups, states, written.files)
    return 0
