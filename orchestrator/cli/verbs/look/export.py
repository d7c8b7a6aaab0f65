"""`supsup export`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import torch

from orchestrator.base.folder_lock import holder_of
from orchestrator.base.wording import say
from orchestrator.cli.arguments import Words, example, words
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.tracker import updated_tracker
from orchestrator.results.exported_run import export_run
from orchestrator.results.loaded_run import load_run
from orchestrator.results.machines import MEANING
from orchestrator.sweeps.run_lookup import find_run
from orchestrator.tracking.mlflow_address import explained, tracking_uri_of
from supsup_core.errors import InputError


@click.command(epilog=example("supsup export 'quickstart GNu entropy seed=0'"))
@words("RUN [output=DIR]", "output", noun="run", least=1)
def export(words: Words) -> int:
    """Log a finished run as an MLflow model.

    RUN is the run's id, or words from the names of the run and its sweep, as `supsup plan` prints them. The model takes
    images, and returns a label and a mask for each image. The command prints the Python lines that load the model.
    """
    found = find_run(words.names[0], words.output)
    sweep = found.sweep
    if holder_of(sweep.folder.path) is not None:
        raise InputError(f"{sweep.sweep_id}: is still running; export the run when the sweep has ended")
    loaded = load_run(sweep, found.group, found.run)
    task = loaded.experiment.benchmark.task(loaded.tasks[0], loaded.dataset, loaded.experiment.seed)
    example = task.test_batch(torch.arange(min(4, task.num_test)))[0].numpy()
    params = {"task": loaded.tasks[0]} if loaded.experiment.scenario.given_at_inference else {}
    with tempfile.TemporaryDirectory() as scratch, explained(sweep):
        export_run(sweep, loaded, Path(scratch))
        with updated_tracker(sweep, sweep.plan()) as (tracker, states):
            try:
                uri = tracker.log_model(found.run.run_id, Path(scratch), example, params)
            finally:
                tracker.finish({group_id: state.ended for group_id, state in states.items()})
    shape = " × ".join(map(str, ("images", *example.shape[1:])))
    given = f", params={params}" if params else ""
    if len(loaded.provenance.machines) > 1:
        say(f"{found.name}: the masks were computed on {len(loaded.provenance.machines)} machine kinds ({MEANING})")
    say(f"{found.name}: the run is logged as an MLflow model; load and call the model in Python:\n")
    say(f"  mlflow.set_tracking_uri({tracking_uri_of(sweep)!r})")
    say(f"  model = mlflow.pyfunc.load_model({uri!r})")
    say(f"  model.predict(images{given})    # images: float32, {shape}; returns the label and the mask of each image")
    return ExitCode.DONE
