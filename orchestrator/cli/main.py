"""The command line: verbs only. Heavy imports happen inside the verbs, so that --help is instant."""

from __future__ import annotations

import atexit
import gc
import sys
from pathlib import Path

import click

from orchestrator.cli import operating
from orchestrator.cli.arguments import ADDRESS, JSON, LOCAL, OVERRIDES, WORKERS, cluster_of, output_of, split


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
@OVERRIDES
@JSON
def plan(file: Path, overrides: tuple[str, ...], as_json: bool) -> int:
    """Show the runs, shards, time, disk and memory of a sweep FILE. Starts nothing."""
    _briefly()
    from orchestrator.cli.verbs import planning

    return planning.plan(file, overrides, as_json)


@cli.command(epilog="Example: supsup sweeps sweeps")
@click.argument("folder", type=click.Path(path_type=Path), default="sweeps")
def sweeps(folder: Path) -> int:
    """List the sweep files of a FOLDER (default: sweeps), and what each costs here at each scale.

    Scales are sizes that a file offers: `smoke` is over in seconds, `cpu` within hours on two cores, `paper` is the
    file as it stands. A few batches of every method are timed; nothing is started.
    """
    _briefly()
    from orchestrator.cli.verbs import planning

    return planning.list_sweeps(folder)


@cli.command(epilog="Example: supsup sweep sweeps/fig07_permuted_lenet.yaml benchmark.num_tasks=10 --workers 2")
@click.argument("file", type=click.Path(path_type=Path))
@OVERRIDES
@LOCAL
@ADDRESS
@WORKERS
def sweep(file: Path, overrides: tuple[str, ...], local: bool, address: str | None, workers: int | None) -> int:
    """Run a sweep FILE to its end. Run again, it goes on where it stopped.

    Any key of the file can be set on the command line; `output=DIR` says where everything is kept
    (default: runs) and `data=DIR` where datasets are (default: SUPSUP_DATA, then the user's cache).
    """
    from orchestrator.cli import run_sweep

    return run_sweep.sweep(file, overrides, cluster_of(local, address), workers)


@cli.command(epilog="Example: supsup resume quickstart output=runs")
@click.argument("arguments", nargs=-1, metavar="[SWEEP] [output=DIR] [data=DIR] [storage=URL]")
@LOCAL
@ADDRESS
@WORKERS
def resume(arguments: tuple[str, ...], local: bool, address: str | None, workers: int | None) -> int:
    """Go on where a sweep stopped, from what is on disk. Without SWEEP, the newest.

    With storage=URL, what is newer there is fetched first: the output may be a new folder on another machine.
    """
    from orchestrator.cli import run_sweep

    wanted, options = split(arguments, ("output", "data", "storage"))
    data, storage = options.get("data"), options.get("storage")
    return run_sweep.resume(wanted, output_of(options), data, storage, cluster_of(local, address), workers)


@cli.command(epilog="Example: supsup status quickstart --json")
@click.argument("arguments", nargs=-1, metavar="[SWEEP] [output=DIR | storage=URL]")
@JSON
def status(arguments: tuple[str, ...], as_json: bool) -> int:
    """Show what is done, running and failed, and the time left. Reads the ledgers only.

    With storage=URL, of sweeps that run anywhere, by the newest snapshots of their ledgers.
    """
    _briefly()
    from orchestrator.cli.verbs import planning

    wanted, options = split(arguments, ("output", "storage"))
    if "storage" in options:
        return planning.stored_status(wanted, options["storage"], as_json)
    return planning.status(wanted, output_of(options), as_json)


@cli.command(epilog="Example: supsup fetch fig09_permuted_2500 storage=s3://bucket/runs output=here")
@click.argument("arguments", nargs=-1, metavar="[SWEEP] storage=URL [output=DIR]")
def fetch(arguments: tuple[str, ...]) -> int:
    """Bring a SWEEP, or all, from a storage to an output here: to report it, compare its runs or look at its decisions.

    Its ledgers come at once; trained masks when they are asked for.
    """
    from orchestrator.records.object_storage import ASKING_SECONDS, Storage
    from orchestrator.sweeps import sweep_transfer

    wanted, options = split(arguments, ("output", "storage"))
    if "storage" not in options:
        raise click.UsageError("storage=URL is missing: where to fetch from")
    names = sweep_transfer.fetch(Storage(options["storage"], ASKING_SECONDS), output_of(options), wanted)
    print("\n".join(f"{name}: is in {output_of(options)} as its storage knows it" for name in names))
    return 0


@cli.command(epilog="Example: supsup evaluate quickstart inference.rule=binary inference.objective=energy")
@click.argument("sweep")
@click.argument("arguments", nargs=-1, metavar="[inference.KEY=VALUE]... [output=DIR]")
@LOCAL
@ADDRESS
def evaluate(sweep: str, arguments: tuple[str, ...], local: bool, address: str | None) -> int:
    """Evaluate a SWEEP's trained masks with another inference, logged as new runs. Trains nothing."""
    from orchestrator.cli import run_sweep

    overrides = [item for item in arguments if not item.startswith("output=")]
    _, options = split([item for item in arguments if item.startswith("output=")], ("output",))
    return run_sweep.evaluate(sweep, overrides, output_of(options), cluster_of(local, address))


@cli.command(epilog="Example: supsup fork fig09_permuted_2500 --at-task 500 allocation.name=ratio")
@click.argument("sweep")
@click.argument("arguments", nargs=-1, metavar="key=value... [output=DIR]")
@click.option("--at-task", type=click.IntRange(min=1), metavar="N", help="Start after N tasks (default: all so far).")
@click.option("--run", metavar="RUN", help="The run to start from: a part of its name, or its group.")
@LOCAL
@ADDRESS
@WORKERS
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
    from orchestrator.cli import run_sweep
    from orchestrator.nns.fork import Start

    overrides = [item for item in arguments if not item.startswith("output=")]
    _, options = split([item for item in arguments if item.startswith("output=")], ("output",))
    return run_sweep.fork(
        sweep, overrides, Start(at_task, run), output_of(options), cluster_of(local, address), workers
    )


@cli.command(epilog="Example: supsup decisions nns_quick --replay allocation.name=ratio allocation.epsilon=0.2")
@click.argument("arguments", nargs=-1, metavar="[SWEEP] [output=DIR] [key=value]...")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option(
    "--replay", "changes", multiple=True, metavar="key=value",
    help="List instead the decisions that another allocation.* or budget.num_masks would change; more may follow.",
)  # fmt: skip
def decisions(arguments: tuple[str, ...], as_csv: bool, changes: tuple[str, ...]) -> int:
    """List what NNs runs decided about every segment: which mask knows the data, or that it is new."""
    from orchestrator.cli.verbs import decisions as module

    further = [item for item in arguments if changes and "." in item.partition("=")[0] and "=" in item]
    wanted, options = split([item for item in arguments if item not in further], ("output",))
    if changes:
        return module.replay(wanted, output_of(options), [*changes, *further], as_csv)
    return module.list_decisions(wanted, output_of(options), as_csv)


@cli.command(epilog="Example: supsup report quickstart")
@click.argument("arguments", nargs=-1, metavar="[SWEEP] [output=DIR]")
def report(arguments: tuple[str, ...]) -> int:
    """Write a sweep's page (HTML), tables (CSV, Markdown) and figures, and attach them to its MLflow run."""
    from orchestrator.cli.verbs import publishing

    wanted, options = split(arguments, ("output",))
    return publishing.report(wanted, output_of(options))


@cli.command(epilog="Example: supsup compare 'quickstart GG seed=0' 'quickstart superfluous seed=0'")
@click.argument("arguments", nargs=-1, metavar="RUN RUN... [output=DIR]")
def compare(arguments: tuple[str, ...]) -> int:
    """Show two or more RUNs side by side: the keys they differ in, and their metrics.

    A run is named by words of its sweep's and its own name, as `supsup plan` shows them, or by its id.
    """
    from orchestrator.cli.verbs import compare

    words = [item for item in arguments if not item.startswith("output=")]
    _, options = split([item for item in arguments if item.startswith("output=")], ("output",))
    return compare.compare(words, output_of(options))


@cli.command(epilog="Example: supsup export 'quickstart GNu entropy seed=0'")
@click.argument("run")
@click.argument("arguments", nargs=-1, metavar="[output=DIR]")
def export(run: str, arguments: tuple[str, ...]) -> int:
    """Log a finished RUN as an MLflow model that infers the task and answers.

    A run is named by words of its sweep's and its own name, as `supsup plan` shows them, or by its id.
    """
    from orchestrator.cli.verbs import publishing

    unwanted, options = split(arguments, ("output",))
    if unwanted is not None:
        raise click.UsageError(f"one run at a time; put the words of its name in quotes: '{run} {unwanted}'")
    return publishing.export(run, output_of(options))


for command in operating.COMMANDS:
    cli.add_command(command)


def _briefly() -> None:
    """For verbs that are over before there is anything to collect, and whose long ledgers are a lot to look through."""
    gc.disable()


def _in_one_line(text: str) -> str:
    """A message with what cannot be printed in it escaped, as a line break in a file's name."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def main() -> None:
    """The console script: errors a user can mend become one line and exit code 2."""
    from supsup_core.errors import SupSupError

    atexit.register(gc.freeze)  # or Python looks through all that was loaded once more: a second, with MLflow and Ray
    try:
        code = cli.main(standalone_mode=False)
    except MemoryError as error:
        print(
            f"supsup: not enough memory ({_in_one_line(str(error))}); lower net.num_outputs, net.width or "
            "training.batch_size, or resources.num_workers",
            file=sys.stderr,
        )
        code = 2
    except (click.exceptions.Abort, KeyboardInterrupt):
        print("supsup: interrupted; what is committed stays, and `supsup resume` goes on", file=sys.stderr)
        code = 130
    except click.ClickException as error:
        print(f"supsup: {_in_one_line(error.format_message())} (see supsup --help)", file=sys.stderr)
        code = 2
    except SupSupError as error:
        print(f"supsup: {_in_one_line(str(error))}", file=sys.stderr)
        code = 2
    sys.exit(code)


if __name__ == "__main__":
    main()
