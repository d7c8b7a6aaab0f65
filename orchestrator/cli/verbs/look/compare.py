"""`supsup compare`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from orchestrator.base.plain_values import flatten
from orchestrator.base.wording import count, say
from orchestrator.cli.arguments import Words, example, words
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.results.text_table import align
from orchestrator.sweeps.run_lookup import FoundRun, all_runs, choose_run
from supsup_core.errors import InputError

_SHARES = ("accuracy", "inference", "forgetting", "transfer", "purity", "share")
"""A metric whose name contains one of these words is a share between 0 and 1. Shares are printed in percent."""


@click.command(epilog=example("supsup compare 'quickstart GG seed=0' 'quickstart superfluous seed=0'"))
@words("RUN RUN... [output=DIR]", "output", noun="run", least=1, most=None)
def compare(words: Words) -> int:
    """Show runs side by side: their settings and their metrics.

    RUN is the run's id, or words from the names of the run and its sweep, as `supsup plan` prints them. Only settings
    that differ are shown. The metrics are those of the last evaluation point that all of these runs have reached.
    """
    runs = all_runs(words.output)
    chosen = [choose_run(name, runs) for name in words.names]
    if len({(run.sweep.sweep_id, run.run.run_id) for run in chosen}) < max(2, len(chosen)):
        raise InputError(
            "command line: name at least two different runs, each by words of the name that `supsup plan` prints"
        )
    common = set.intersection(*(set(run.points) for run in chosen))
    if not common:
        points = "; ".join(f"{run.name} has {sorted(run.points) or 'none'}" for run in chosen)
        raise InputError(
            f"the runs have no evaluation point in common ({points}); continue unfinished runs with `supsup resume`"
        )
    n = max(common)
    letters = [chr(ord("A") + number) for number in range(len(chosen))]
    for letter, run in zip(letters, chosen, strict=True):
        say(f"{letter}  {run.name}")
    rows = [["", *letters], *_differing_settings(chosen), [f"after {count(n, 'task')}", *([""] * len(chosen))]]
    for metric in sorted(set().union(*(run.points[n] for run in chosen))):
        rows.append([f"  {metric}", *(_cell(metric, run.points[n].get(metric)) for run in chosen)])
    say(align(rows))
    return ExitCode.DONE


def _differing_settings(chosen: Sequence[FoundRun]) -> list[list[str]]:
    """Returns a row for each key whose values differ between the runs: the key, then its value in each run."""
    nodes = [flatten(run.run.experiment.node) | {"seed": run.run.experiment.seed} for run in chosen]
    rows = []
    for key in sorted(set().union(*nodes)):
        values = [str(node.get(key, "–")) for node in nodes]
        if len(set(values)) > 1:
            rows.append([key, *values])
    return rows


def _cell(metric: str, value: float | None) -> str:
    """Returns the value of a metric as text: a share in percent, or a dash for None."""
    if value is None:
        return "–"
    return f"{100 * value:.2f} %" if any(part in metric for part in _SHARES) else f"{value:g}"
