"""Finding sweeps, groups' states and runs in an output folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.records.group_state import GroupState
from orchestrator.records.ledger import LedgerReader
from orchestrator.spec.sweep_config import read_sweep, sweep_from_node
from orchestrator.sweeps.sweep import Sweep, check_output, storage_of
from orchestrator.sweeps.training_groups import Group, Run
from supsup_core.datasets import base_from
from supsup_core.errors import CorruptError, InputError


def open_sweep(file: Path, overrides: Sequence[str]) -> Sweep:
    """The sweep that a file and overrides describe, with what `evaluate` has added to it on disk."""
    config = read_sweep(file, overrides)
    config = replace(config, output=str(Path(config.output).expanduser().absolute()))
    if config.data:
        config = replace(config, data=str(Path(config.data).expanduser().absolute()))
    check_output(Path(config.output))
    url = config.storage.rstrip("/") if config.storage else storage_of(Path(config.output))
    config = replace(config, storage=url)
    sweep = Sweep(config, file.absolute())
    if (sweep.path / "sweep.json").exists():
        before = sweep_at(sweep.path)
        sweep = replace(sweep, extra_inferences=before.extra_inferences, bases=before.bases)
    return sweep


def find_sweep(output: Path, wanted: str | None) -> Sweep:
    """The sweep of an output folder that `wanted` names or begins; without one, the only or newest.

    InputError, listing those there are, when none or several fit.
    """
    check_output(output)
    home = output / "sweeps"
    folders = [path.parent for path in home.glob("*/sweep.json")]
    if not folders:
        raise InputError(f"{output}: no sweep here; start one with `supsup sweep FILE`, or set output=DIR")
    folders.sort(key=lambda folder: (folder / "sweep.json").stat().st_mtime)
    if wanted is None:
        return sweep_at(folders[-1])
    exact = [folder for folder in folders if folder.name == wanted]
    named = [folder for folder in folders if folder.name.rpartition("-")[0] == wanted]
    fitting = exact or named or [folder for folder in folders if folder.name.startswith(wanted)]
    if len(fitting) == 1:
        return sweep_at(fitting[0])
    names = ", ".join(sorted(folder.name for folder in fitting or folders))
    problem = "several sweeps fit" if fitting else "no such sweep"
    raise InputError(f"{wanted}: {problem} in {output}; there are: {names}")


def all_sweeps(output: Path, left_out: Callable[[InputError], None] | None = None) -> list[Sweep]:
    """Every sweep of an output folder, by name. `left_out` is told of those whose sweep.json is damaged; without it,
    and where there is no other, they raise."""
    check_output(output)
    found: list[Sweep] = []
    damaged: list[InputError] = []
    for path in sorted((output / "sweeps").glob("*/sweep.json")):
        try:
            found.append(sweep_at(path.parent))
        except InputError as error:
            damaged.append(error)
    for damage in damaged:
        if left_out is None or not found:
            raise damage
        left_out(damage)
    return found


def sweep_at(folder: Path) -> Sweep:
    """The sweep that a folder below an output's `sweeps` holds; InputError when its sweep.json is damaged."""
    file = folder / "sweep.json"
    try:
        node = json.loads(file.read_text())
        config = sweep_from_node(node["config"], str(file))
        planned = {group_id: (int(shards), int(others)) for group_id, (shards, others) in node["planned"].items()}
        origin = (str(node["origin"][0]), int(node["origin"][1]), str(node["origin"][2])) if node["origin"] else None
        bases = {base_from(asked): base_from(found) for asked, found in node["bases"]}
        sweep = Sweep(config, Path(node["file"]), tuple(node["extra_inferences"]), planned, origin, bases)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(f"{file}: damaged ({error}); start the sweep again from its file") from error
    output = folder.parent.parent
    return replace(sweep, config=replace(config, output=str(output), storage=storage_of(output)))


def read_state(sweep: Sweep, group_id: str) -> GroupState:
    """The state of a group as its ledger tells it; CorruptError, with a remedy, when that is damaged."""
    try:
        with LedgerReader(sweep.ledger_path(group_id)) as reader:
            return GroupState().apply(reader.rows())
    except CorruptError as error:
        raise CorruptError(f"{error}; `{sweep.command('resume')}` sets it aside and makes it good") from error


def read_states(sweep: Sweep) -> dict[str, GroupState]:
    """The states of the groups that the sweep last planned, as far as they have begun; of all that are on disk, where
    it does not say."""
    found = sorted(path.parent.name for path in (sweep.path / "groups").glob("*/ledger.sqlite"))
    return {group_id: read_state(sweep, group_id) for group_id in found if group_id in (sweep.planned or found)}


@dataclass(frozen=True)
class Measured:
    """A run of a sweep with the metrics of its points, by the number of tasks learned."""

    sweep: Sweep
    group: Group
    run: Run
    points: Mapping[int, Mapping[str, float]]

    @property
    def name(self) -> str:
        return f"{self.sweep.sweep_id}: {self.run.name}"


def all_runs(output: Path) -> list[Measured]:
    found = []
    for sweep in all_sweeps(output, lambda error: print(f"supsup: left out: {error}", file=sys.stderr)):
        states = read_states(sweep)
        try:
            groups = sweep.plan()
        except InputError as error:
            print(f"supsup: {sweep.sweep_id} is left out: {error}", file=sys.stderr)
            continue
        for group in groups:
            state = states.get(group.group_id)
            for run in group.runs:
                rows = {} if state is None else state.points
                points = {n: row.payload["metrics"] for (run_id, n), row in rows.items() if run_id == run.run_id}
                found.append(Measured(sweep, group, run, points))
    if not found:
        raise InputError(f"{output}: no sweep here; start one with `supsup sweep FILE`, or set output=DIR")
    return found


def find_run(word: str, output: Path) -> Measured:
    """The run of an output that is named: in full, by its id, by whole words of its name and the beginning of its
    sweep's, or by parts of words, whatever fits first; InputError when nothing does, or several do."""
    return the_one(word, all_runs(output))


def the_one(word: str, runs: Sequence[Measured]) -> Measured:
    parts = word.split()

    def by_words(run: Measured) -> bool:
        return all(part in run.run.name.split() or run.sweep.sweep_id.startswith(part) for part in parts)

    def by_parts(run: Measured) -> bool:
        return all(part in run.name for part in parts)

    fitting: list[Measured] = []
    for fits in (
        lambda run: word in (run.name, run.run.name) or run.run.run_id.startswith(word),
        by_words,
        by_parts,
    ):
        fitting = fitting or [run for run in runs if fits(run)]
    if len(fitting) == 1:
        return fitting[0]
    problem = "several runs fit" if fitting else "no such run"
    names = [f"{run.name!r} ({run.run.run_id})" for run in (fitting or runs)[:8]]
    more = f" and {len(fitting or runs) - 8} more" if len(fitting or runs) > 8 else ""
    raise InputError(f"{word!r}: {problem}; there are: {', '.join(names)}{more}")
