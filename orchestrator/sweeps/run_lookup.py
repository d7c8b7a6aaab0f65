"""Finds runs in an output folder by words from their names."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.base.output_folder import OutputFolder
from orchestrator.base.wording import say
from orchestrator.records.group_state import GroupState
from orchestrator.sweeps.lookup import read_states
from orchestrator.sweeps.sweep import Sweep, open_record
from orchestrator.sweeps.sweep_record import all_records
from orchestrator.sweeps.training_groups import Group, Run
from supsup_core.errors import InputError


@dataclass(frozen=True)
class FoundRun:
    """A run of a sweep. `points`: maps a completed evaluation point (a number of tasks learned) to metrics by name."""

    sweep: Sweep
    group: Group
    run: Run
    points: Mapping[int, Mapping[str, float]]

    @property
    def name(self) -> str:
        """The sweep's id and the run's name."""
        return f"{self.sweep.sweep_id}: {self.run.name}"


def all_runs(output: OutputFolder) -> list[FoundRun]:
    """Returns every run of an output. Skips sweeps whose record is damaged or that cannot be planned.

    Prints a line to standard error for each skipped sweep. Raises InputError if no run is left, and CorruptError if a
    ledger is damaged.
    """
    found = []
    for record in all_records(output, lambda error: say(f"supsup: a sweep is left out: {error}", file=sys.stderr)):
        try:
            sweep = open_record(record)
            states = read_states(sweep.folder, sweep.planned)
            groups = sweep.plan()
        except InputError as error:
            say(f"supsup: sweep {record.sweep_id} is left out: {error}", file=sys.stderr)
            continue
        for group in groups:
            state = states.get(group.group_id, GroupState())
            for run in group.runs:
                points = {n: row.event.metrics for (run_id, n), row in state.points.items() if run_id == run.run_id}
                found.append(FoundRun(sweep, group, run, points))
    if not found:
        raise InputError(f"{output.path}: contains no sweep; start one with `supsup sweep FILE`, or set output=DIR")
    return found


def find_run(words: str, output: OutputFolder) -> FoundRun:
    """Returns the run of an output that `words` name. Raises InputError as `choose_run` does."""
    return choose_run(words, all_runs(output))


def choose_run(words: str, runs: Sequence[FoundRun]) -> FoundRun:
    """Returns the run that `words` name.

    Tries three rules in turn, and uses the first rule that any run fits. Rule 1: `words` is the run's name, with or
    without the sweep's id before the name, or the beginning of the run's id. Rule 2: each word is a word of the run's
    name, or the beginning of the sweep's id. Rule 3: each word is a part of the sweep's id or of the run's name. Raises
    InputError, which lists names of runs, if no run or more than one run fits.
    """
    parts = words.split()

    def by_words(run: FoundRun) -> bool:
        return all(part in run.run.name.split() or run.sweep.sweep_id.startswith(part) for part in parts)

    def by_parts(run: FoundRun) -> bool:
        return all(part in run.name for part in parts)

    fitting: list[FoundRun] = []
    for fits in (
        lambda run: words in (run.name, run.run.name) or run.run.run_id.startswith(words),
        by_words,
        by_parts,
    ):
        fitting = fitting or [run for run in runs if fits(run)]
    if len(fitting) == 1:
        return fitting[0]
    problem = "several runs match; add words to name one of" if fitting else "no run matches; choose one of"
    names = [f"{run.name!r} ({run.run.run_id})" for run in (fitting or runs)[:8]]
    more = f" and {len(fitting or runs) - 8} more" if len(fitting or runs) > 8 else ""
    raise InputError(f"{words!r}: {problem}: {', '.join(names)}{more}")
