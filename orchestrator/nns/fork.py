"""Forks NNs runs. A fork is a new sweep whose runs start from a committed state of an existing sweep, the origin.

A fork has its own ledgers and files. Mask versions of which the origin stores an intact file are hard-linked or copied.
Before the fork's first round, workers rebuild all other mask versions: they train on the same segments, which gives the
same bits.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.base.files import replace_durably
from orchestrator.base.folder_lock import FORK, owned
from orchestrator.base.output_folder import LOCK_FILES, SweepFolder
from orchestrator.base.plain_values import Node
from orchestrator.nns.mask_versions import Lineages, evaluation_due
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledgers.ledger import Entry, LedgerReader, LedgerWriter
from orchestrator.records.machine_kind import Machines, joined
from orchestrator.records.rows import EvaluationDue, Event, RoundsCommitted, RunForked, SegmentDecided
from orchestrator.spec.overrides import overlap, parse_overrides
from orchestrator.spec.sweep_config import with_overrides
from orchestrator.sweeps.lookup import read_state
from orchestrator.sweeps.sweep import Sweep
from orchestrator.sweeps.sweep_record import ForkOrigin
from orchestrator.sweeps.training_groups import VARIANT, Group, mask_id
from supsup_core.errors import CorruptError, InputError
from supsup_core.evaluation.metrics import AllocationTally
from supsup_core.nns.streams import Schedule, Segment

log = logging.getLogger("supsup")


@dataclass(frozen=True)
class Start:
    """The state of the origin from which a fork starts.

    `at_task`: the number of tasks whose data was learned before the fork; None means all committed tasks. `run`: names
    the origin's training group to continue, by the beginning of the group's id or a part of a run's name. `run` may be
    None if the seed and the settings of the fork fit only one group.
    """

    at_task: int | None = None
    run: str | None = None


def fork_sweep(origin: Sweep, overrides: Sequence[str], start: Start) -> Sweep:
    """Writes a new sweep to disk that continues `origin` with the given overrides. Returns the new sweep.

    Raises InputError if the overrides would have changed what `origin` learned before the fork, or if no run of
    `origin` can be forked.
    """
    if not overrides:
        raise InputError("command line: give at least one key that the fork changes, such as allocation.epsilon=0.2")
    if origin.config.search is not None:
        raise InputError(
            f"{origin.sweep_id}: is a search, which cannot be forked; run its best.yaml as a sweep, and fork that sweep"
        )
    parents = {_name(group): group for group in origin.plan() if group.experiment.allocation is not None}
    if not parents:
        raise InputError(
            f"{origin.sweep_id}: has no run of scenario NNs to fork; for other scenarios, start a new sweep"
        )
    named = [parent for parent in parents.values() if start.run is not None and _is_named(parent, start.run)]
    if len({str(parent.runs[0].varied) for parent in named}) == 1:
        overrides = [*_as_in(named, parse_overrides(overrides)), *overrides]
    config = with_overrides(origin.config, overrides)
    made = Sweep(replace(config, output=origin.config.output), origin.file)
    groups = made.plan()
    pairs = [(group, _parent(group, parents, start.run)) for group in groups if group.experiment.allocation is not None]
    if not pairs:
        raise InputError(
            f"{origin.sweep_id}: the fork would contain no run of scenario NNs; remove the overrides that exclude "
            "these runs"
        )
    states = {parent.group_id: read_state(origin.folder.group(parent.group_id)) for _, parent in pairs}
    done = min(state.done_shards() for state in states.values())
    at = done if start.at_task is None else start.at_task
    if not done:
        raise InputError(f"{origin.sweep_id}: has not committed the training on a whole task yet; fork the sweep later")
    if not 0 < at <= done:
        raise InputError(
            f"--at-task: {origin.sweep_id} has trained on the data of {done} tasks; give a number from 1 to {done}, "
            f"not {at}"
        )
    made = replace(made, origin=ForkOrigin(origin.sweep_id, at, "+".join(sorted(states))))
    _refuse_if_exists(made)
    prepared = [(group, parent, _history(group, parent, states[parent.group_id], at)) for group, parent in pairs]
    hidden = made.output.unfinished_fork(made.sweep_id)
    with owned(hidden.path, FORK, made.sweep_id):
        try:
            _refuse_if_exists(made)  # another process may have just written this fork
            _clear(hidden.path)
            draft = replace(made, config=replace(made.config, output=str(hidden.path)))
            for group, parent, history in prepared:
                _write(origin, parent, draft, group, at, history)
            draft.save(groups)
            _publish(draft.folder, made.folder)
        finally:
            if made.folder.sweep_file.exists():  # otherwise another process may wait for the lock in this folder
                shutil.rmtree(hidden.path, ignore_errors=True)
    return made


def _refuse_if_exists(made: Sweep) -> None:
    """Raises InputError if a fork is already on disk."""
    if made.folder.sweep_file.exists():
        raise InputError(f"{made.sweep_id}: this fork exists already; continue it with `{made.command('resume')}`")


def _clear(folder: Path) -> None:
    """Deletes what an interrupted fork has left in the hidden folder, except the files of the folder's lock."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in LOCK_FILES:
            path.unlink()


def _publish(draft: SweepFolder, final: SweepFolder) -> None:
    """Renames the folder of a complete fork to its final name, so that no command ever sees a part of a fork."""
    try:
        for name in LOCK_FILES:
            (final.path / name).unlink(missing_ok=True)
        replace_durably(draft.path, final.path)
    except OSError as error:
        raise InputError(
            f"{final.path}: the fork cannot be written ({error.strerror}); if this folder exists, move it to another "
            "place, then run the command again"
        ) from error


def _name(group: Group) -> tuple[Any, ...]:
    """Returns a group's seed, and the group's value of each key that the sweep varies. `_parent` compares these
    values."""
    return (group.experiment.seed, tuple(sorted((key, str(value)) for key, value in group.runs[0].varied.items())))


def _is_named(parent: Group, wanted: str) -> bool:
    """Returns whether the group's id starts with `wanted`, or the name of the group's first run contains `wanted`."""
    return parent.group_id.startswith(wanted) or wanted in parent.runs[0].name


def _as_in(parents: Sequence[Group], changes: Node) -> list[str]:
    """Returns overrides that restrict a sweep to the given groups: to their seeds, variant and grid values.

    parents: groups that differ only in their seeds. changes: the user's overrides. The function returns no override for
    a key that the user overrides.
    """
    fixed: Node = {"seeds": [parent.experiment.seed for parent in parents]}
    for axis, value in parents[0].runs[0].varied.items():
        fixed |= {"only": [value]} if axis == VARIANT else {axis: value}
    changed = {key for key in fixed if any(overlap(key, other) for other in changes)}
    return [f"{key}={json.dumps(value)}" for key, value in fixed.items() if key not in changed]


def _parent(group: Group, parents: dict[tuple[Any, ...], Group], wanted: str | None) -> Group:
    """Returns the origin's group that the fork's group `group` continues.

    parents: the origin's groups by `_name`. wanted: see `Start.run`. Raises InputError unless exactly one group fits.
    """
    seed, varied = _name(group)
    fitting = [parent for (other, axes), parent in parents.items() if other == seed and set(varied) <= set(axes)]
    chosen = [parent for parent in fitting if wanted is None or _is_named(parent, wanted)]
    if not fitting:
        raise InputError(
            f"{group.runs[0].name}: no run of the original sweep has this seed and these varied settings, so this run "
            "has no state to continue; remove the overrides that change them"
        )
    if len(chosen) != 1:
        names = "; ".join(f"{parent.group_id} ({parent.runs[0].name})" for parent in fitting)
        raise InputError(
            f"{group.runs[0].name}: a fork continues exactly one run; choose this run with --run from: {names}"
        )
    return chosen[0]


@dataclass(frozen=True)
class _History:
    """The state with which a fork starts.

    `rounds`: the number of rounds that the fork copies from the origin. `events`: the ledger events of these rounds,
    without attachments. `current`: maps each mask in use to the key of its version. `machines`: the kinds of the
    machines that decided or trained in these rounds.
    """

    rounds: int
    events: list[Event]
    current: dict[int, str]
    machines: Machines


def _history(group: Group, parent: Group, state: GroupState, at: int) -> _History:
    """Returns the origin's history up to the data of `at` tasks. The fork's ledger starts with this history.

    group: the fork's group. parent: the origin's group that `group` continues. state: the state of `parent`. Raises
    InputError if the fork's settings would have led to a different history, or if the fork's budget has too few masks.
    """
    schedule = _check_compatible(group, parent, at)
    allocation = group.experiment.allocation
    assert allocation is not None
    rounds = schedule.rounds_until(at)
    lineages, tally = Lineages.of(group.experiment), AllocationTally()
    events: list[Event] = []
    num_decisions = schedule.num_segments(rounds)
    due: dict[int, list[int]] = {}
    for n in sorted({n for run in group.points for n in run}):
        due.setdefault(schedule.rounds_until(n), []).append(n)
    for number, row in enumerate(state.decisions[:num_decisions]):
        event = row.event
        if event.mask is not None:
            lineages.extend(event.mask, Segment(event.task, event.segment))
        tally.add(event.task, event.mask, event.freed)
        events.append(event)
        after = event.round + 1
        if number + 1 == schedule.num_segments(after):
            current = {mask: lineages.latest(mask) for mask in tally.owners}
            tasks = schedule.tasks_met(after)
            events += [evaluation_due(n, tasks, current, tally.owners) for n in due.get(after, [])]
    whole_tasks = num_decisions // schedule.segments_per_task
    events += [row.event for n, row in state.met.items() if n <= whole_tasks]
    if len(tally.owners) > allocation.capacity:
        raise InputError(
            f"budget.num_masks: {len(tally.owners)} masks were in use after {at} tasks, but this "
            f"budget allows {allocation.capacity}; lower --at-task, or raise budget.num_masks"
        )
    starts = [0, *(row.event.round for row in state.commits)]
    copied = [row.event.machines for start, row in zip(starts, state.commits, strict=False) if start < rounds]
    return _History(rounds, events, {mask: lineages.latest(mask) for mask in tally.owners}, joined(*copied))


def _check_compatible(group: Group, parent: Group, at: int) -> Schedule:
    """Returns the fork's schedule. Raises InputError if the fork's settings do not fit what the origin learned from the
    data of the first `at` tasks."""
    mine, theirs = group.experiment, parent.experiment
    assert mine.allocation is not None
    assert theirs.allocation is not None
    if mask_id(mine) != mask_id(theirs):
        raise InputError(
            f"{group.runs[0].name}: a fork cannot change how its masks are trained; start a new sweep instead"
        )
    if at > mine.num_tasks:
        raise InputError(
            f"benchmark.num_tasks: {mine.num_tasks} is below the {at} tasks that the fork starts with; raise this "
            "key, or lower --at-task"
        )
    if mine.allocation.stream.segment_batches != theirs.allocation.stream.segment_batches:
        raise InputError(
            "stream.segment_batches: a fork must keep the value of the original sweep; remove this override"
        )
    schedule, origin = mine.allocation.schedule, theirs.allocation.schedule
    rounds = schedule.rounds_until(at)
    for old, new in zip(origin.sequences, schedule.sequences, strict=False):
        if old[:rounds] != new[:rounds]:
            raise InputError(
                f"{group.runs[0].name}: the order of the data on which the masks were trained would change; a "
                "fork cannot change stream.*, nor benchmark.num_tasks with stream.order=recurring"
            )
    if len(origin.sequences) != len(schedule.sequences):
        raise InputError("stream.num_streams: a fork must keep the value of the original sweep; remove this override")
    return schedule


def _write(origin: Sweep, parent: Group, made: Sweep, group: Group, at: int, history: _History) -> None:
    """Writes the masks of one group of a fork to disk, and then the group's ledger in one commit."""
    source, target = origin.folder.group(parent.group_id), made.folder.group(group.group_id)
    theirs, mine = origin.masks(parent.group_id), made.masks(group.group_id)
    due = [event for event in history.events if isinstance(event, EvaluationDue)]
    for key in sorted(set(history.current.values()).union(*(event.keys for event in due))):
        try:
            mine.adopt(theirs, key)
        except CorruptError as error:
            log.warning("%s; the fork trains this mask version again", error)
    with LedgerReader(source.ledger) as reader:
        decisions = iter([row.seq for row in reader.rows() if isinstance(row.event, SegmentDecided)])
        entries = [
            Entry(event, reader.attachment(next(decisions)) if isinstance(event, SegmentDecided) else None)
            for event in history.events
        ]
    kept = {mask: key for mask, key in history.current.items() if mine.has(key)}
    forked = RunForked(origin.sweep_id, parent.group_id, at)
    committed = RoundsCommitted(
        history.rounds, kept, num_bytes=0, training_seconds=0.0, seconds=0.0, machines=history.machines
    )
    writer = LedgerWriter(target.ledger)
    writer.commit([Entry(forked), *entries, Entry(committed)])
    writer.snapshot()
    writer.close()
