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
    help="The dashboard of the cluster's head, forwarded by `ray dashboard ray_cluster.yaml` or `ssh -L`.",
)  # fmt: skip
@WORKERS
@click.option("--detach", is_flag=True, help="Return at once, without following the log of the job.")
@click.option(
    "--python", default=sys.executable, metavar="PATH",
    help="The Python on the head in which supsup is installed (default: at the path of the one here).",
)  # fmt: skip
def submit(file: Path, overrides: tuple[str, ...], address: str, workers: int | None, detach: bool, python: str) -> int:
    """Run a sweep file as a job of a Ray cluster.

    The working directory is sent along, and the log of the job is followed. Submitting the same sweep and files twice
    gives one job. A job that failed or was stopped is submitted again, and continues where it was.
    """
    return ray_jobs.submit(file, overrides, address, python, workers, detach)
