"""Verbs that operate: jobs and clusters, sweeps that run, outputs that are looked after, MLflow's servers."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from orchestrator.cli.arguments import ADDRESS, LOCAL, OVERRIDES, WORKERS, cluster_of, output_alone, output_of, split

_JOBS = click.option(
    "--address", envvar="RAY_API_SERVER_ADDRESS", default="http://127.0.0.1:8265", show_default=True, metavar="URL",
    help="The dashboard of the cluster's head, through `ray dashboard ray_cluster.yaml` or ssh -L.",
)  # fmt: skip


@click.command(epilog="Example: supsup submit sweeps/fig04_split_imagenet.yaml output=/shared/runs")
@click.argument("file", type=click.Path(path_type=Path))
@OVERRIDES
@_JOBS
@WORKERS
@click.option("--detach", is_flag=True, help="Do not wait for it and show its log.")
@click.option(
    "--python", default=sys.executable, show_default=True, metavar="PATH",
    help="The interpreter on the head that supsup is installed for.",
)  # fmt: skip
def submit(file: Path, overrides: tuple[str, ...], address: str, workers: int | None, detach: bool, python: str) -> int:
    """Run a sweep FILE as a job of a Ray cluster, from this working tree, and follow its log.

    The same asked twice is one job. One that failed or was stopped is submitted anew, and goes on where it was.
    """
    from orchestrator.cluster import ray_jobs

    return ray_jobs.submit(file, overrides, address, python, workers, detach)


_REMOTE = click.option(
    "--address", envvar="RAY_API_SERVER_ADDRESS", metavar="URL",
    help="For a job: the dashboard of the cluster's head. Without it, a sweep of an output here.",
)  # fmt: skip


@click.command(epilog="Example: supsup logs quickstart")
@click.argument("arguments", nargs=-1, metavar="[SWEEP or JOB] [output=DIR]")
@_REMOTE
def logs(arguments: tuple[str, ...], address: str | None) -> int:
    """Show the log of a sweep here, or of a submitted job, and follow it while it runs.

    A sweep's log is kept as JSON, a line an event, in its folder (supsup.log).
    """
    from orchestrator.cli.verbs import controlling
    from orchestrator.cluster import ray_jobs

    wanted, options = split(arguments, ("output",))
    return ray_jobs.logs(_job(wanted), address) if address else controlling.logs(wanted, output_of(options))


@click.command(epilog="Example: supsup stop fig04_split_imagenet --address http://127.0.0.1:8265")
@click.argument("arguments", nargs=-1, metavar="[SWEEP or JOB] [output=DIR]")
@_REMOTE
def stop(arguments: tuple[str, ...], address: str | None) -> int:
    """Stop a sweep that runs here, or a submitted job, now: what is done is committed, and it can be gone on with."""
    from orchestrator.cli.verbs import controlling
    from orchestrator.cluster import ray_jobs

    wanted, options = split(arguments, ("output",))
    return ray_jobs.stop(_job(wanted), address) if address else controlling.stop(wanted, output_of(options))


@click.command(epilog="Example: supsup drain quickstart")
@click.argument("arguments", nargs=-1, metavar="[SWEEP or JOB] [output=DIR]")
@_REMOTE
def drain(arguments: tuple[str, ...], address: str | None) -> int:
    """Have a sweep that runs here, or a submitted job, end what is under way, begin nothing more, and end."""
    from orchestrator.cli.verbs import controlling
    from orchestrator.cluster import ray_jobs

    wanted, options = split(arguments, ("output",))
    return ray_jobs.drain(_job(wanted), address) if address else controlling.drain(wanted, output_of(options))


@click.command(epilog="Example: supsup cancel 'quickstart GNu entropy seed=1'")
@click.argument("run")
@click.argument("arguments", nargs=-1, metavar="[output=DIR]")
@click.option("--task", "tasks", type=click.IntRange(min=0), multiple=True, metavar="N", help="Give up this one alone.")
def cancel(run: str, arguments: tuple[str, ...], tasks: tuple[int, ...]) -> int:
    """Give a RUN up: its training group hands out nothing more, and a resume leaves it alone. With --task, single
    tasks of it, such as one that stalls, and what builds on them; the rest goes on.

    A run is named by words of its sweep's and its own name, as `supsup plan` shows them, or by its id.
    """
    from orchestrator.cli.verbs import controlling

    return controlling.cancel(run, list(dict.fromkeys(tasks)), output_alone(arguments))


@click.command(epilog="Example: supsup retry 'quickstart GNu entropy seed=1' --task 7")
@click.argument("run")
@click.argument("arguments", nargs=-1, metavar="[output=DIR]")
@click.option("--task", "tasks", type=click.IntRange(min=0), multiple=True, metavar="N", help="Train this one again.")
@LOCAL
@ADDRESS
def retry(run: str, arguments: tuple[str, ...], tasks: tuple[int, ...], local: bool, address: str | None) -> int:
    """Take a RUN up that failed or was cancelled; with --task, single tasks, trained again where they are already."""
    from orchestrator.cli.verbs import controlling

    return controlling.retry(run, list(dict.fromkeys(tasks)), output_alone(arguments), cluster_of(local, address))


@click.group()
def cluster() -> None:
    """Ray clusters, from the files that `ray up` starts them by."""


@cluster.command(epilog="Example: supsup cluster check ray_cluster.yaml sweeps/fig04_split_imagenet.yaml")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("sweep", type=click.Path(path_type=Path), required=False)
@OVERRIDES
def check(file: Path, sweep: Path | None, overrides: tuple[str, ...]) -> int:
    """Check a cluster's FILE without a connection, and whether a SWEEP file's workers have room there.

    Beyond what Ray would refuse: keys that the cloud would, secrets, doors left open, spot machines alone.
    """
    from orchestrator.cli.verbs import cluster

    return cluster.check(file, sweep, overrides)


@click.command(epilog="Example: supsup gc output=runs --delete")
@click.argument("arguments", nargs=-1, metavar="[output=DIR]")
@click.option("--delete", is_flag=True, help="Delete it. Without this, nothing is touched.")
def gc(arguments: tuple[str, ...], delete: bool) -> int:
    """List what an output holds that no sweep there asks for any more: results of sweeps whose folders are gone,
    states of tasks that are trained, what was set aside as damaged, what interrupted writes left."""
    from orchestrator.cli.verbs import upkeep

    return upkeep.gc(output_alone(arguments), delete)


@click.command(epilog="Example: supsup fsck output=runs --repair")
@click.argument("arguments", nargs=-1, metavar="[output=DIR]")
@click.option("--repair", is_flag=True, help="Set aside what is damaged, and run the sweeps that make it again.")
@LOCAL
@ADDRESS
def fsck(arguments: tuple[str, ...], repair: bool, local: bool, address: str | None) -> int:
    """Verify every ledger and every artifact of an output against its checksum.

    Exit code 0 when all is sound, or has been repaired; 1 when something is damaged.
    """
    from orchestrator.cli.verbs import upkeep

    return upkeep.fsck(output_alone(arguments), repair, cluster_of(local, address))


@click.command(epilog="Example: supsup ui output=runs --port 5000")
@click.argument("arguments", nargs=-1, metavar="[output=DIR]")
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port on 127.0.0.1.")
def ui(arguments: tuple[str, ...], port: int) -> int:
    """Serve the MLflow pages of an output on 127.0.0.1, and print the address to open."""
    from orchestrator.tracking import ui_server

    return ui_server.serve(output_alone(arguments), port)


@click.command(epilog="Example: supsup server /srv/mlflow --artifacts s3://bucket/mlflow")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default="server")
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port on 127.0.0.1.")
@click.option("--artifacts", metavar="URL", help="Where artifacts are kept, such as s3://… (default: in FOLDER).")
def server(folder: Path, port: int, artifacts: str | None) -> int:
    """Run an MLflow server for many sweeps and people, with passwords, over a PostgreSQL of its own.

    All of it lives in FOLDER (default: server). Started again, it goes on with what is there.
    """
    from orchestrator.tracking import team_server

    return team_server.serve(folder.expanduser().absolute(), port, artifacts)


def _job(wanted: str | None) -> str:
    if wanted is None:
        raise click.UsageError("JOB is missing: the name of a submitted job, or how it begins")
    return wanted


COMMANDS = (submit, logs, stop, drain, cancel, retry, cluster, gc, fsck, ui, server)
"""All of them, in the order of the help."""
