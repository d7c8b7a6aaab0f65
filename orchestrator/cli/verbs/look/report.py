"""`supsup report`."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.base.folder_lock import holder_of
from orchestrator.base.wording import say
from orchestrator.cli.arguments import Words, example, words
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.tracker import updated_tracker
from orchestrator.results.report import publish as write_publication
from orchestrator.results.report import write_report
from orchestrator.sweeps.lookup import read_states
from orchestrator.sweeps.sweep import find_sweep
from orchestrator.tracking.mlflow_address import WriterBusyError
from orchestrator.tracking.monitor import conclude
from supsup_core.errors import SupSupError


@click.command(epilog=example("supsup report quickstart --publish docs/results"))
@words("[SWEEP] [output=DIR]", "output")
@click.option(
    "--publish", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
    help="Also write the sweep's page, and the page of all published accuracies, into a documentation folder.",
)  # fmt: skip
def report(words: Words, publish: Path | None) -> int:
    """Write the tables, figures and HTML page of a sweep.

    SWEEP is the name of a sweep or its beginning (default: the newest sweep of the output). The tables are CSV and
    Markdown files. All files are also attached to the sweep's MLflow run. Every sweep writes its report when it ends.
    For a sweep that has not ended, this command writes a report of the results so far.
    """
    sweep = find_sweep(words.output, words.name)
    groups = sweep.plan()
    states = read_states(sweep.folder, sweep.planned)
    written = write_report(sweep, groups, states)
    say(written.text)
    if written.trouble is not None:
        raise SupSupError(written.trouble)
    say(f"\nreport: {written.folder}")
    if publish is not None:
        written_page = write_publication(sweep, groups, states, publish)
        say(f"published: {written_page}")
    if holder_of(sweep.folder.path) is not None:
        say("the sweep is still running, and attaches the report to its MLflow run only when the sweep ends")
        return ExitCode.DONE
    try:
        with updated_tracker(sweep, groups) as (tracker, newest):
            conclude(tracker, groups, newest)
            tracker.attach(written.files, "report")
    except WriterBusyError:
        say(
            "another process is writing the sweep's MLflow runs, so this report is not attached to them; when that "
            f"process has ended, attach the report with: {sweep.command('report')}"
        )
    return ExitCode.DONE
