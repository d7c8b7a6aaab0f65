"""Finds the files of an output that nothing references any more, and moves them to the output's trash (`supsup gc`)."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from orchestrator.base.files import is_partial
from orchestrator.base.output_folder import GroupFolder, OutputFolder
from orchestrator.base.wording import as_typed, in_shell
from orchestrator.records.group_state import GroupState
from orchestrator.records.object_storage import Storage
from orchestrator.results.output_inventory import open_artifacts, referenced_keys, stored_root
from orchestrator.sweeps.lookup import read_state
from orchestrator.sweeps.sweep_record import read_record
from supsup_core.errors import InputError

YOUNG_SECONDS = 86400.0
"""The minimum age, in seconds, at which gc deletes artifacts of a storage. A younger artifact may belong to a sweep on
another machine whose snapshot does not reference it yet."""


@dataclass(frozen=True)
class Leftover:
    """A file that nothing references any more.

    `why`: the cause, in words. `discard`: moves the file to a folder of the trash (see `OutputFolder.trash`), under the
    name that it has relative to the output.
    """

    name: str
    why: str
    num_bytes: int
    discard: Callable[[Path], None] = field(compare=False)


@dataclass(frozen=True)
class SweepNeeds:
    """The artifacts that a sweep needs from an output's store.

    `keys`: the keys of its trained tasks and evaluations, even of those that do not exist yet. `is_done`: whether all
    its training groups are done. `open_since`: a time in seconds since 1970. After this time, unfinished NNs groups may
    have stored evaluations whose keys are not known yet. The time is infinity if the sweep has no such groups.
    """

    sweep_id: str
    keys: frozenset[str]
    is_done: bool
    open_since: float = math.inf


def needs(output: OutputFolder) -> list[SweepNeeds]:
    """Returns the needs of each sweep of an output, sorted by sweep id.

    Raises InputError or CorruptError if the record of a sweep is damaged, missing or belongs to another sweep. Raises
    the same errors if a ledger is damaged, missing or belongs to another training group.
    """
    found = []
    for folder in output.all_sweep_folders():
        states = [_state(group) for group in read_record(folder).groups()]
        keys = frozenset(key for state in states for key in referenced_keys(state))
        last = [state.last.time_ms / 1000 for state in states if _is_open_ended(state) and state.last]
        is_done = all(state.status == "done" for state in states)
        found.append(SweepNeeds(folder.sweep_id, keys, is_done, min(last, default=math.inf)))
    return found


def _is_open_ended(state: GroupState) -> bool:
    """Returns whether a group is an unfinished NNs group, whose next rounds may need artifacts with unknown keys."""
    return state.plan is not None and state.group.is_nns and state.status != "done"


def _state(group: GroupFolder) -> GroupState:
    """Returns the state of a training group. Raises InputError if the ledger is missing or holds no plan."""
    state = read_state(group)
    if state.plan or state.stopped or state.cancelled:  # a group may be cancelled before it starts
        return state
    sweep = group.sweep
    raise InputError(
        f"{as_typed(group.ledger)}: the ledger is missing or incomplete, so the files that the sweep needs are "
        f"unknown; nothing was deleted. Run `supsup fsck output={in_shell(sweep.output.path)} --repair` to restore the "
        f"ledger, or delete {as_typed(sweep.path)} to discard the sweep"
    )


def leftovers(output: OutputFolder, sweeps: Sequence[SweepNeeds]) -> list[Leftover]:
    """Returns all files of an output that may be deleted, sorted by name.

    The list contains artifacts and checkpoints that no sweep of the output references, files set aside as corrupt,
    claims, and files left by interrupted writes. Mask versions are not included, because an NNs run deletes them
    itself.

    sweeps: the result of `needs` for the output.
    """
    referenced = {key for sweep in sweeps for key in sweep.keys}
    files = [*_corrupt_files(output), *_interrupted_writes(output)]
    files += [(path, "lock file of a claim") for path in output.store.claim_files()]
    found = [
        Leftover(as_typed(path), why, path.stat().st_size, partial(_move, path, output))
        for path, why in files
        if path.is_file()
    ]
    open_since = min((sweep.open_since for sweep in sweeps), default=math.inf)
    unneeded = _unreferenced_artifacts(output, referenced, all(sweep.is_done for sweep in sweeps), open_since)
    return sorted([*unneeded, *found], key=lambda item: item.name)


def _move(path: Path, output: OutputFolder, trash: Path) -> None:
    """Moves a file of an output to a folder of its trash. Does nothing if the file no longer exists."""
    target = trash / path.relative_to(output.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        shutil.move(path, target)


def _unreferenced_artifacts(
    output: OutputFolder, referenced: set[str], is_done: bool, open_since: float
) -> list[Leftover]:
    """Returns the artifacts and checkpoints that no sweep references, or that a trained task no longer needs.

    referenced: the keys that sweeps reference. is_done: whether all training groups are done. open_since: artifacts
    written after this time, in seconds since 1970, are left out, because an NNs group may need them.
    """
    storage, store = stored_root(output), open_artifacts(output)
    checkpoints = store.unfinished
    trained = set(store)
    unreferenced = [key for key in trained if key not in referenced and not _is_newer(store.path(key), open_since)]
    left = [(store, key, "result that no sweep references") for key in unreferenced]
    for key in checkpoints:
        shard = key.partition("-")[0]
        if shard in trained:
            left.append((checkpoints, key, "checkpoint of a task that has been trained"))
        elif shard not in referenced and is_done:  # kept until all are done: a stack's key is no shard's key
            left.append((checkpoints, key, "checkpoint of a task that no sweep references"))
    sizes = {its: its.sizes(older_than=YOUNG_SECONDS) for its in {its for its, _, _ in left}}
    return [
        Leftover(as_typed(its.path(key)), why, sizes[its][key], partial(_discard, its.path(key), output, storage))
        for its, key, why in left
        if key in sizes[its]
    ]


def _is_newer(path: Path, moment: float) -> bool:
    """Returns whether a file exists and was written after a moment, in seconds since 1970."""
    return moment < math.inf and path.exists() and path.stat().st_mtime > moment


def _discard(path: Path, output: OutputFolder, storage: Storage | None, trash: Path) -> None:
    """Moves an artifact to the trash: the file in the output, and the file in the storage to the storage's trash."""
    name = path.relative_to(output.path).as_posix()
    if storage is not None:
        storage.move(name, f"{trash.relative_to(output.path).as_posix()}/{name}")
    _move(path, output, trash)


def empty_trash(output: OutputFolder) -> tuple[int, int]:
    """Deletes the trash of an output and of its storage.

    Returns the number of deleted files, and their total size in bytes.
    """
    files = [path for path in output.trash.rglob("*") if path.is_file()]
    num_files, num_bytes = len(files), sum(path.stat().st_size for path in files)
    if output.trash.exists():
        shutil.rmtree(output.trash)
    storage = stored_root(output)
    if storage is not None:
        for name, file in storage.files(output.trash.name).items():
            storage.delete(name)
            num_files, num_bytes = num_files + 1, num_bytes + file.num_bytes
    return num_files, num_bytes


def _corrupt_files(output: OutputFolder) -> Iterator[tuple[Path, str]]:
    paths = [*output.store.corrupt_files()]
    for folder in output.all_sweep_folders():
        paths += folder.corrupt_sweep_files
        for group in folder.groups():
            paths += [*group.masks.corrupt_files(), *group.corrupt_ledgers]
    yield from ((path, "damaged file that was moved aside") for path in paths)


def _interrupted_writes(output: OutputFolder) -> Iterator[tuple[Path, str]]:
    for path in filter(is_partial, output.hidden_files()):
        for file in path.rglob("*") if path.is_dir() else [path]:  # an interrupted fork is a folder
            yield file, "temporary file of an interrupted write"
