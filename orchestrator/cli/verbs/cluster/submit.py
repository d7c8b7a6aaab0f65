"""`supsup submit`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from orchestrator.cli.arguments import OVERRIDES, SWEEP_FILE, WORKERS, example
from orchestrator.cluster import ray_jobs


@click.command(epilog=example("supsup submit sweeps/fig04_split_imagenet.yaml output=/shared/runs"))
@SWEEP_FILE
@OVERRIDES
@click.option(
    "--address", envvar="RAY_API_SERVER_ADDRESS", default="http://127.0.0.1:8265", show_default=True, metavar="URL",
    help="The URL at which this machine reaches the cluster's dashboard. `ray dashboard ray_cluster.yaml` or `ssh "
    "-L` forwards the dashboard's port to this machine.",
)  # fmt: skip
@WORKERS
@click.option("--detach", is_flag=True, help="Return after the submission, without printing the job's log.")
@click.option(
    "--python", default=sys.executable, metavar="PATH",
    help="The path, on the head node, of the Python in which supsup is installed (default: the path of the Python that "
    "runs this command).",
)  # fmt: skip
def submit(file: Path, overrides: tuple[str, ...], address: str, workers: int | None, detach: bool, python: str) -> int:
    """Run a sweep file as a job on a Ray cluster.

    Ray copies the working directory to the cluster, and the command prints the job's log until the job ends. If the
    same sweep and files are submitted twice, only one job runs. If that job failed or was stopped, the second
    submission starts a new job, which resumes the sweep.
    """
    return ray_jobs.submit(file, overrides, address, python, workers, detach)
