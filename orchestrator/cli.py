"""The command line: verbs only. Heavy imports happen inside the verbs, so that --help is instant."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

_OVERRIDES = click.argument("overrides", nargs=-1, metavar="[key=value]...")
_LOCAL = click.option("--local", is_flag=True, help="One process, one worker, no Ray.")
_ADDRESS = click.option(
    "--address", envvar="RAY_ADDRESS", metavar="HOST:PORT",
    help="Run on the Ray cluster there (default: RAY_ADDRESS, else a Ray of its own on this machine).",
)  # fmt: skip
_WORKERS = click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="Workers per training group (resources.num_workers)."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""
    \b
    Examples:
      supsup sweep sweeps/quickstart.yaml
      supsup plan sweeps/fig07_permuted_lenet.yaml benchmark.num_tasks=10
      supsup resume
      supsup evaluate quickstart inference.rule=binary
    """,
)
@click.version_option(package_name="supsup", prog_name="supsup")
def cli() -> None:
    """Continual learning of thousands of tasks with SupSup: plan, run, resume and compare sweeps.

    Exit codes: 0 all done, 1 a run failed, 2 bad input, 130 interrupted (after committing).
    """


@cli.command(epilog="Example: supsup plan sweeps/quickstart.yaml benchmark.num_tasks=5 --json")
@click.argument("file", type=click.Path(path_type=Path))
@_OVERRIDES
@_JSON
def plan(file: Path, overrides: tuple[str, ...], as_json: bool) -> int:
    """Show the runs, shards, time, disk and memory of a sweep FILE. Starts nothing."""
    _without_torch()
    from orchestrator import planning

    return planning.plan(file, overrides, as_json)


@cli.command(epilog="Example: supsup sweeps sweeps")
@click.argument("folder", type=click.Path(path_type=Path), default="sweeps")
def sweeps(folder: Path) -> int:
    """List the sweep files of a FOLDER (default: sweeps), and what each costs here at each scale.

    Scales are sizes that a file offers: `smoke` is over in seconds, `cpu` within hours on two cores, `paper` is the
    file as it stands. A few batches of every method are timed; nothing is started.
    """
    _without_torch()
    from orchestrator import planning

    return planning.list_sweeps(folder)


@cli.command(epilog="Example: supsup sweep sweeps/fig07_permuted_lenet.yaml benchmark.num_tasks=10 --workers 2")
@click.argument("file", type=click.Path(path_type=Path))
@_OVERRIDES
@_LOCAL
@_ADDRESS
@_WORKERS
def sweep(file: Path, overrides: tuple[str, ...], local: bool, address: str | None, workers: int | None) -> int:
    """Run a sweep FILE to its end. Run again, it goes on where it stopped.

    Any key of the file can be set on the command line; `output=DIR` says where everything is kept
    (default: runs) and `data=DIR` where datasets are (default: SUPSUP_DATA, then the user's cache).
    """
    from orchestrator import commands

    return commands.sweep(file, overrides, _cluster(local, address), workers)


@cli.command(epilog="Example: supsup resume quickstart output=runs")
@click.argument("arguments", nargs=-1, metavar="[SWEEP] [output=DIR] [data=DIR] [storage=URL]")
@_LOCAL
@_ADDRESS
@_WORKERS
def resume(arguments: tuple[str, ...], local: bool, address: str | None, workers: int | None) -> int:
    """Go on where a sweep stopped, from what is on disk. Without SWEEP, the newest.

    With storage=URL, what is newer there is fetched first: the output may be a new folder on another machine.
    """
    from orchestrator import commands

    wanted, options = _split(arguments, ("output", "data", "storage"))
    data, storage = options.get("data"), options.get("storage")
    return commands.resume(wanted, _output(options), data, storage, _cluster(local, address), workers)


@cli.command(epilog="Example: supsup status quickstart --json")
@click.argument("arguments", nargs=-1, metavar="[SWEEP] [output=DIR | storage=URL]")
@_JSON
def status(arguments: tuple[str, ...], as_json: bool) -> int:
    """Show what is done, running and failed, and the time left. Reads the ledgers only.

    With storage=URL, of sweeps that run anywhere, by the newest snapshots of their ledgers.
    """
    _without_torch()
    from orchestrator import planning

    wanted, options = _split(arguments, ("output", "storage"))
    if "storage" in options:
        return planning.stored_status(wanted, options["storage"], as_json)
    return planning.status(wanted, _output(options), as_json)


@cli.command(epilog="Example: supsup fetch fig09_permuted_2500 storage=s3://bucket/runs output=here")
@click.argument("arguments", nargs=-1, metavar="[SWEEP] storage=URL [output=DIR]")
def fetch(arguments: tuple[str, ...]) -> int:
    """Bring a SWEEP, or all, from a storage to an output here: to report it, compare its runs or look at its decisions.

    Its ledgers come at once; trained masks when they are asked for.
    """
    from orchestrator import stored_sweeps
    from orchestrator.storage import ASKING_SECONDS, Storage

    wanted, options = _split(arguments, ("output", "storage"))
    if "storage" not in options:
        raise click.UsageError("storage=URL is missing: where to fetch from")
    names = stored_sweeps.fetch(Storage(options["storage"], ASKING_SECONDS), _output(options), wanted)
    print("\n".join(f"{name}: is in {_output(options)} as its storage knows it" for name in names))
    return 0


@cli.command(epilog="Example: supsup evaluate quickstart inference.rule=binary inference.objective=energy")
@click.argument("sweep")
@click.argument("arguments", nargs=-1, metavar="[inference.KEY=VALUE]... [output=DIR]")
@_LOCAL
@_ADDRESS
def evaluate(sweep: str, arguments: tuple[str, ...], local: bool, address: str | None) -> int:
    """Evaluate a SWEEP's trained masks with another inference, logged as new runs. Trains nothing."""
    from orchestrator import commands

    overrides = [item for item in arguments if not item.startswith("output=")]
    _, options = _split([item for item in arguments if item.startswith("output=")], ("output",))
    return commands.evaluate(sweep, overrides, _output(options), _cluster(local, address))


@cli.command(epilog="Example: supsup fork fig09_permuted_2500 --at-task 500 allocation.name=ratio")
@click.argument("sweep")
@click.argument("arguments", nargs=-1, metavar="key=value... [output=DIR]")
@click.option("--at-task", type=click.IntRange(min=1), metavar="N", help="Start after N tasks (default: all so far).")
@click.option("--run", metavar="RUN", help="The run to start from: a part of its name, or its group.")
@_LOCAL
@_ADDRESS
@_WORKERS
def fork(
    sweep: str,
    arguments: tuple[str, ...],
    at_task: int | None,
    run: str | None,
    local: bool,
    address: str | None,
    workers: int | None,
) -> int:
    """Go on from an NNs SWEEP's committed state, under a new name, with something changed.

    allocation.*, budget.*, evaluation.* and inference.* can change, and benchmark.num_tasks: so a finished
    run is extended. What it has learned is linked, not copied.
    """
    from orchestrator import commands
    from orchestrator.fork import Start

    overrides = [item for item in arguments if not item.startswith("output=")]
    _, options = _split([item for item in arguments if item.startswith("output=")], ("output",))
    return commands.fork(sweep, overrides, Start(at_task, run), _output(options), _cluster(local, address), workers)


@cli.command(epilog="Example: supsup decisions nns_quick --replay allocation.name=ratio allocation.epsilon=0.2")
@click.argument("arguments", nargs=-1, metavar="[SWEEP] [output=DIR] [key=value]...")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option(
    "--replay", "changes", multiple=True, metavar="key=value",
    help="List instead the decisions that another allocation.* or budget.num_masks would change; more may follow.",
)  # fmt: skip
def decisions(arguments: tuple[str, ...], as_csv: bool, changes: tuple[str, ...]) -> int:
    """List what NNs runs decided about every segment: which mask knows the data, or that it is new."""
    from orchestrator import decisions as module

    further = [item for item in arguments if changes and "." in item.partition("=")[0] and "=" in item]
    wanted, options = _split([item for item in arguments if item not in further], ("output",))
    if changes:
        return module.replay(wanted, _output(options), [*changes, *further], as_csv)
    return module.list_decisions(wanted, _output(options), as_csv)


@cli.command(epilog="Example: supsup report quickstart")
@click.argument("arguments", nargs=-1, metavar="[SWEEP] [output=DIR]")
def report(arguments: tuple[str, ...]) -> int:
    """Write a sweep's page (HTML), tables (CSV, Markdown) and figures, and attach them to its MLflow run."""
    from orchestrator import publishing

    wanted, options = _split(arguments, ("output",))
    return publishing.report(wanted, _output(options))


@cli.command(epilog="Example: supsup compare 'quickstart GG seed=0' 'quickstart superfluous seed=0'")
@click.argument("arguments", nargs=-1, metavar="RUN RUN... [output=DIR]")
def compare(arguments: tuple[str, ...]) -> int:
    """Show two or more RUNs side by side: the keys they differ in, and their metrics.

    A run is named by words of its sweep's and its own name, as `supsup plan` shows them, or by its id.
    """
    from orchestrator import comparison

    words = [item for item in arguments if not item.startswith("output=")]
    _, options = _split([item for item in arguments if item.startswith("output=")], ("output",))
    return comparison.compare(words, _output(options))


@cli.command(epilog="Example: supsup export 'quickstart GNu entropy seed=0'")
@click.argument("run")
@click.argument("arguments", nargs=-1, metavar="[output=DIR]")
def export(run: str, arguments: tuple[str, ...]) -> int:
    """Log a finished RUN as an MLflow model that infers the task and answers.

    A run is named by words of its sweep's and its own name, as `supsup plan` shows them, or by its id.
    """
    from orchestrator import publishing

    unwanted, options = _split(arguments, ("output",))
    if unwanted is not None:
        raise click.UsageError(f"one run at a time; put the words of its name in quotes: '{run} {unwanted}'")
    return publishing.export(run, _output(options))


_JOBS = click.option(
    "--address", envvar="RAY_API_SERVER_ADDRESS", default="http://127.0.0.1:8265", show_default=True, metavar="URL",
    help="The dashboard of the cluster's head, through `ray dashboard ray_cluster.yaml` or ssh -L.",
)  # fmt: skip


@cli.command(epilog="Example: supsup submit sweeps/fig04_split_imagenet.yaml resources.device=cuda output=/shared/runs")
@click.argument("file", type=click.Path(path_type=Path))
@_OVERRIDES
@_JOBS
@_WORKERS
@click.option("--detach", is_flag=True, help="Do not wait for it and show its log.")
@click.option(
    "--python", default=sys.executable, show_default=True, metavar="PATH",
    help="The interpreter on the head that supsup is installed for.",
)  # fmt: skip
def submit(file: Path, overrides: tuple[str, ...], address: str, workers: int | None, detach: bool, python: str) -> int:
    """Run a sweep FILE as a job of a Ray cluster, from this working tree, and follow its log.

    The same asked twice is one job. One that failed or was stopped is submitted anew, and goes on where it was.
    """
    from orchestrator import jobs

    return jobs.submit(file, overrides, address, python, workers, detach)


_REMOTE = click.option(
    "--address", envvar="RAY_API_SERVER_ADDRESS", metavar="URL",
    help="For a job: the dashboard of the cluster's head. Without it, a sweep of an output here.",
)  # fmt: skip


@cli.command(epilog="Example: supsup logs quickstart")
@click.argument("arguments", nargs=-1, metavar="[SWEEP or JOB] [output=DIR]")
@_REMOTE
def logs(arguments: tuple[str, ...], address: str | None) -> int:
    """Show the log of a sweep here, or of a submitted job, and follow it while it runs.

    A sweep's log is kept as JSON, a line an event, in its folder (supsup.log).
    """
    from orchestrator import controlling, jobs

    wanted, options = _split(arguments, ("output",))
    return jobs.logs(_job(wanted), address) if address else controlling.logs(wanted, _output(options))


@cli.command(epilog="Example: supsup stop fig04_split_imagenet --address http://127.0.0.1:8265")
@click.argument("arguments", nargs=-1, metavar="[SWEEP or JOB] [output=DIR]")
@_REMOTE
def stop(arguments: tuple[str, ...], address: str | None) -> int:
    """Stop a sweep that runs here, or a submitted job, now: what is done is committed, and it can be gone on with."""
    from orchestrator import controlling, jobs

    wanted, options = _split(arguments, ("output",))
    return jobs.stop(_job(wanted), address) if address else controlling.stop(wanted, _output(options))


@cli.command(epilog="Example: supsup drain quickstart")
@click.argument("arguments", nargs=-1, metavar="[SWEEP or JOB] [output=DIR]")
@_REMOTE
def drain(arguments: tuple[str, ...], address: str | None) -> int:
    """Have a sweep that runs here, or a submitted job, end what is under way, begin nothing more, and end."""
    from orchestrator import controlling, jobs

    wanted, options = _split(arguments, ("output",))
    return jobs.drain(_job(wanted), address) if address else controlling.drain(wanted, _output(options))


@cli.command(epilog="Example: supsup cancel 'quickstart GNu entropy seed=1'")
@click.argument("run")
@click.argument("arguments", nargs=-1, metavar="[output=DIR]")
def cancel(run: str, arguments: tuple[str, ...]) -> int:
    """Give a RUN up: its training group hands out nothing more, and a resume leaves it alone.

    A run is named by words of its sweep's and its own name, as `supsup plan` shows them, or by its id.
    """
    from orchestrator import controlling

    return controlling.cancel(run, _output_alone(arguments))


@cli.command(epilog="Example: supsup retry 'quickstart GNu entropy seed=1' --task 7")
@click.argument("run")
@click.argument("arguments", nargs=-1, metavar="[output=DIR]")
@click.option("--task", "tasks", type=click.IntRange(min=0), multiple=True, metavar="N", help="Train this one again.")
@_LOCAL
@_ADDRESS
def retry(run: str, arguments: tuple[str, ...], tasks: tuple[int, ...], local: bool, address: str | None) -> int:
    """Take a RUN up that failed or was cancelled; with --task, train single tasks of it again, though they are done."""
    from orchestrator import controlling

    return controlling.retry(run, list(tasks), _output_alone(arguments), _cluster(local, address))


@cli.group()
def cluster() -> None:
    """Ray clusters, from the files that `ray up` starts them by."""


@cluster.command(epilog="Example: supsup cluster check ray_cluster.yaml sweeps/fig04_split_imagenet.yaml")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("sweep", type=click.Path(path_type=Path), required=False)
@_OVERRIDES
def check(file: Path, sweep: Path | None, overrides: tuple[str, ...]) -> int:
    """Check a cluster's FILE without a connection, and whether a SWEEP file's workers have room there.

    Beyond what Ray would refuse: keys that the cloud would, secrets, doors left open, spot machines alone.
    """
    from orchestrator import clusters

    return clusters.check(file, sweep, overrides)


@cli.command(epilog="Example: supsup gc output=runs --delete")
@click.argument("arguments", nargs=-1, metavar="[output=DIR]")
@click.option("--delete", is_flag=True, help="Delete it. Without this, nothing is touched.")
def gc(arguments: tuple[str, ...], delete: bool) -> int:
    """List what an output holds that no sweep there asks for any more: results of sweeps whose folders are gone,
    states of tasks that are trained, what was set aside as damaged, what interrupted writes left."""
    from orchestrator import upkeep

    return upkeep.gc(_output_alone(arguments), delete)


@cli.command(epilog="Example: supsup fsck output=runs --repair")
@click.argument("arguments", nargs=-1, metavar="[output=DIR]")
@click.option("--repair", is_flag=True, help="Set aside what is damaged, and run the sweeps that make it again.")
@_LOCAL
@_ADDRESS
def fsck(arguments: tuple[str, ...], repair: bool, local: bool, address: str | None) -> int:
    """Verify every ledger and every artifact of an output against its checksum.

    Exit code 0 when all is sound, or has been repaired; 1 when something is damaged.
    """
    from orchestrator import upkeep

    return upkeep.fsck(_output_alone(arguments), repair, _cluster(local, address))


@cli.command(epilog="Example: supsup ui output=runs --port 5000")
@click.argument("arguments", nargs=-1, metavar="[output=DIR]")
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port on 127.0.0.1.")
def ui(arguments: tuple[str, ...], port: int) -> int:
    """Serve the MLflow pages of an output on 127.0.0.1, and print the address to open."""
    from orchestrator import server

    return server.serve(_output_alone(arguments), port)


@cli.command(epilog="Example: supsup server /srv/mlflow --artifacts s3://bucket/mlflow")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default="server")
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port on 127.0.0.1.")
@click.option("--artifacts", metavar="URL", help="Where artifacts are kept, such as s3://… (default: in FOLDER).")
def server(folder: Path, port: int, artifacts: str | None) -> int:
    """Run an MLflow server for many sweeps and people, with passwords, over a PostgreSQL of its own.

    All of it lives in FOLDER (default: server). Started again, it goes on with what is there.
    """
    from orchestrator import shared_server

    return shared_server.serve(folder.expanduser().absolute(), port, artifacts)


def _without_torch() -> None:
    """For verbs that need torch only to time what was never timed here: their answer is there in a blink."""
    import gc

    from orchestrator.deferral import defer

    gc.disable()  # they are over before there is anything to collect, and a long ledger is a lot to look through
    defer("torch")


def _job(wanted: str | None) -> str:
    if wanted is None:
        raise click.UsageError("JOB is missing: the name of a submitted job, or how it begins")
    return wanted


def _split(arguments: Sequence[str], known: tuple[str, ...]) -> tuple[str | None, dict[str, str]]:
    """At most one bare word, and key=value pairs with known keys."""
    words, options = [], {}
    for item in arguments:
        key, equals, value = item.partition("=")
        if not equals:
            words.append(item)
        elif key in known:
            options[key] = value
        else:
            raise click.UsageError(f"{key}: not an option here; there are: {', '.join(f'{k}=…' for k in known)}")
    if len(words) > 1:
        raise click.UsageError(f"one sweep at a time, not {', '.join(words)}")
    return (words[0] if words else None), options


def _cluster(local: bool, address: str | None) -> str | None:
    """Where to run: in this process (None), on a Ray of its own (`local`), or on the cluster at an address."""
    return None if local else address or "local"


def _output(options: dict[str, str]) -> Path:
    return Path(options.get("output", "runs")).expanduser().absolute()


def _output_alone(arguments: Sequence[str]) -> Path:
    unwanted, options = _split(arguments, ("output",))
    if unwanted is not None:
        raise click.UsageError(f"{unwanted!r} is not output=DIR")
    return _output(options)


def _in_one_line(text: str) -> str:
    """A message with what cannot be printed in it escaped, as a line break in a file's name."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def main() -> None:
    """The console script: errors a user can mend become one line and exit code 2."""
    from supsup_core.errors import SupSupError

    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
    except click.ClickException as error:
        print(f"supsup: {_in_one_line(error.format_message())} (see supsup --help)", file=sys.stderr)
        code = 2
    except SupSupError as error:
        print(f"supsup: {_in_one_line(str(error))}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("supsup: interrupted; what is committed stays, and `supsup resume` goes on", file=sys.stderr)
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
