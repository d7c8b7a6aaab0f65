"""Finds the files of an output folder that nothing references any more (gc), and damaged or missing files (fsck)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from orchestrator.base.files import is_partial
from orchestrator.base.folder_lock import holder_of
from orchestrator.base.output_folder import GroupFolder, OutputFolder
from orchestrator.base.wording import as_typed
from orchestrator.nns.evaluations import NNsEvaluations
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledger import LedgerReader
from orchestrator.records.ledger_file import snapshot_path
from orchestrator.records.object_storage import Storage
from orchestrator.records.rows import AnyRow, RoundsCommitted, SegmentDecided
from orchestrator.sweeps.lookup import read_state
from orchestrator.sweeps.sweep_record import SweepRecord, open_store, read_record, storage_of
from supsup_core.errors import CorruptError, InputError, SupSupError

YOUNG_SECONDS = 86400.0
"""The minimum age, in seconds, at which gc deletes artifacts of a storage. A younger artifact may belong to a sweep on
another machine whose snapshot does not reference it yet."""


@dataclass(frozen=True)
class Leftover:
    """A file that may be deleted. `why`: why the file is not needed, in words. `remove`: deletes the file."""

    name: str
    why: str
    num_bytes: int
    remove: Callable[[], None] = field(compare=False)


@dataclass(frozen=True)
class Damage:
    """A file that is missing or damaged.

    `sweeps`: the sweeps that recreate the file when they run; empty if no result needs the file. `store`, `key`: the
    store and the key of the file if it is an artifact.
    """

    path: Path
    reason: str
    sweeps: tuple[SweepRecord, ...] = ()
    store: ArtifactStore | None = None
    key: str = ""


def _referenced_keys(state: GroupState) -> set[str]:
    """Returns the keys of all trained tasks and evaluations of a group, including those that are not computed yet."""
    if state.plan is None:
        return set()
    group = state.group
    keys = {*group.shards_by_key, *group.evaluations_by_key, *state.evaluated}
    if group.is_nns:
        evaluations = NNsEvaluations(group, state)
        keys.update(key for run in group.runs for its_keys in evaluations.points_of(run).values() for key in its_keys)
    return keys


def _live_masks(state: GroupState) -> set[str]:
    """Returns, for scenario NNs, the keys of the mask versions of all masks in use at the last commit."""
    current: dict[int, str] = {}
    rows: list[AnyRow] = [*state.decisions, *state.commits]
    for row in sorted(rows, key=lambda row: row.seq):
        event = row.event
        if isinstance(event, RoundsCommitted):
            current |= event.versions
        elif isinstance(event, SegmentDecided) and event.freed is not None:
            current.pop(event.freed, None)
    return set(current.values())


def leftovers(output: OutputFolder) -> list[Leftover]:
    """Returns all files of an output that may be deleted, sorted by name.

    These files are artifacts and checkpoints that are not needed, files set aside as corrupt, lock files of claims, and
    files left by interrupted writes. Mask versions are not included, because an NNs run deletes them itself. Raises
    InputError or CorruptError if a sweep cannot be read, because the artifacts that it references are then unknown.
    """
    referenced: set[str] = set()
    is_unfinished = False
    for folder in output.all_sweep_folders():
        read_record(folder)
        for group in folder.groups():
            state = read_state(group)
            if not (state.plan or state.stopped or state.cancelled):  # a group may be cancelled before it starts
                raise CorruptError(f"{group.ledger}: the ledger holds no plan; `supsup fsck --repair` repairs it")
            referenced |= _referenced_keys(state)
            is_unfinished |= state.status != "done"
    files = [*_corrupt_files(output), *_interrupted_writes(output)]
    files += [(path, "a lock file of a claim") for path in output.store.claim_files()]
    found = [
        Leftover(as_typed(path), why, path.stat().st_size, partial(path.unlink, missing_ok=True))
        for path, why in files
        if path.is_file()
    ]
    return sorted([*_unreferenced_artifacts(output, referenced, is_unfinished), *found], key=lambda item: item.name)


def _unreferenced_artifacts(output: OutputFolder, referenced: set[str], is_unfinished: bool) -> list[Leftover]:
    """Returns the artifacts and checkpoints that no sweep references, and the checkpoints of tasks that are trained.

    referenced: the keys that sweeps reference. is_unfinished: whether any training group is not done.
    """
    store = _open_store(output)
    checkpoints = store.unfinished
    trained = set(store)
    left = [(store, key, "no sweep references it") for key in trained if key not in referenced]
    for key in checkpoints:
        shard = key.partition("-")[0]
        if shard in trained:
            left.append((checkpoints, key, "its task has been trained"))
        elif shard not in referenced and not is_unfinished:  # the key of a stack's checkpoint is no shard's key
            left.append((checkpoints, key, "no sweep references its task"))
    sizes = {its: its.sizes(older_than=YOUNG_SECONDS) for its in (store, checkpoints)}
    return [
        Leftover(as_typed(its.path(key)), why, sizes[its][key], partial(its.delete, key))
        for its, key, why in left
        if key in sizes[its]
    ]


def _open_store(output: OutputFolder) -> ArtifactStore:
    url = storage_of(output)
    return open_store(output, Storage(url) if url else None)


def _corrupt_files(output: OutputFolder) -> Iterator[tuple[Path, str]]:
    paths = [*output.store.corrupt_files()]
    for group in (group for folder in output.all_sweep_folders() for group in folder.groups()):
        paths += [*group.masks.corrupt_files(), *group.corrupt_ledgers]
    yield from ((path, "set aside as damaged") for path in paths)


def _interrupted_writes(output: OutputFolder) -> Iterator[tuple[Path, str]]:
    yield from (
        (path, "a temporary file of an interrupted write") for path in output.hidden_files() if is_partial(path)
    )


def damages(output: OutputFolder, on_progress: Callable[[int, int], None]) -> list[Damage]:
    """Returns all missing or damaged files of an output, sorted by path. Reads every file and verifies its checksum.

    on_progress: called with the number of files verified so far and the total number of files.
    """
    found: list[Damage] = []
    owners: dict[str, list[SweepRecord]] = {}
    trained: set[str] = set()
    checks: list[_Check] = []
    for folder in output.all_sweep_folders():
        try:
            record = read_record(folder)
        except InputError as error:
            found.append(Damage(folder.sweep_file, str(error).removeprefix(f"{folder.sweep_file}: ")))
            continue
        for group in folder.groups():
            state = _verified_ledger(record, group, found)
            for key in _referenced_keys(state):
                owners.setdefault(key, []).append(record)
            trained |= set(state.trained)
            masks = record.masks(group.group_id)
            # a running sweep replaces and deletes mask versions, so none of its versions is required
            live = _live_masks(state) if holder_of(folder.path) is None else set()
            checks += [_Check(masks, key, (record,), key in live) for key in {*masks, *live}]
    store = _open_store(output)
    for key in {*store, *trained}:
        sweeps = tuple(owners.get(key, ())) if key in trained else ()
        checks.append(_Check(store, key, sweeps, key in trained))
    checks += [_Check(store.unfinished, key, (), False) for key in store.unfinished]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, damage in enumerate(pool.map(_damage, checks), start=1):
            if damage is not None:
                found.append(damage)
            on_progress(number, len(checks))
    return sorted(found, key=lambda damage: damage.path)


class _Check(NamedTuple):
    """An artifact to verify. `sweeps`: the sweeps that can recreate it. `required`: whether it must exist."""

    store: ArtifactStore
    key: str
    sweeps: tuple[SweepRecord, ...]
    required: bool


def _verified_ledger(record: SweepRecord, group: GroupFolder, found: list[Damage]) -> GroupState:
    """Returns the state of a ledger, or of its snapshot if the ledger is damaged. Verifies all rows of both files.

    Appends any damage to `found`.
    """
    state = GroupState()
    snapshot = snapshot_path(group.ledger)
    for file in (snapshot, group.ledger):
        if file is not group.ledger and not file.exists():
            continue
        try:
            with LedgerReader(file) as reader:
                rows = reader.verify()
            if not rows:
                raise CorruptError(f"{file}: the ledger is missing, or has no rows")
            state = GroupState().apply(rows)
        except SupSupError as error:
            found.append(Damage(file, str(error).removeprefix(f"{file}: "), (record,)))
    return state


def _damage(check: _Check) -> Damage | None:
    """Returns the damage of an artifact, or None if it is intact. Raises SupSupError if its file cannot be read."""
    store, key, sweeps, required = check
    path = store.path(key)
    try:
        store.verify(key)
    except FileNotFoundError:
        return Damage(path, "missing", sweeps, store, key) if required else None
    except CorruptError as error:
        return Damage(path, str(error).removeprefix(f"{path}: "), sweeps, store, key)
    except OSError as error:
        raise SupSupError(
            f"{path}: cannot be read ({error.strerror or error}); correct the cause, then run `supsup fsck` again"
        ) from error
    return None
