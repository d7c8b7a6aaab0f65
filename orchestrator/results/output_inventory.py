"""Finds the damaged and missing files of an output (`supsup fsck`), and the artifacts that its sweeps reference."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from orchestrator.base.environment import usable_cpus
from orchestrator.base.folder_lock import holder_of
from orchestrator.base.output_folder import GroupFolder, OutputFolder
from orchestrator.nns.evaluations import NNsEvaluations
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledgers.last_commit import last_commit_path, read_last_commit
from orchestrator.records.ledgers.ledger import LedgerReader
from orchestrator.records.ledgers.ledger_file import snapshot_path
from orchestrator.records.object_storage import Storage
from orchestrator.records.rows import AnyRow, GroupPlanned, RoundsCommitted, SegmentDecided
from orchestrator.sweeps.sweep_record import SweepRecord, open_store, read_record, storage_of
from supsup_core.errors import CorruptError, InputError, SupSupError


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


def referenced_keys(state: GroupState) -> set[str]:
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


def open_artifacts(output: OutputFolder) -> ArtifactStore:
    """Opens the store of an output, together with the output's storage if the output has a storage."""
    return open_store(output, stored_root(output))


def stored_root(output: OutputFolder) -> Storage | None:
    """Returns the storage of an output, or None if the output has no storage."""
    url = storage_of(output)
    return Storage(url) if url else None


class Verified(NamedTuple):
    """The result of `verify_output`.

    `damages`: all missing or damaged files, sorted by path. `interrupted`: the sweeps that no process runs, and whose
    last launch was interrupted.
    """

    damages: list[Damage]
    interrupted: list[SweepRecord]


def verify_output(output: OutputFolder, on_progress: Callable[[int, int], None]) -> Verified:
    """Reads every file of an output and verifies its checksum.

    on_progress: called with the number of files verified so far and the total number of files.
    """
    found: list[Damage] = []
    interrupted: list[SweepRecord] = []
    owners: dict[str, list[SweepRecord]] = {}
    trained: set[str] = set()
    checks: list[_Check] = []
    for folder in output.all_sweep_folders():
        try:
            record = read_record(folder)
        except InputError as error:
            found.append(Damage(folder.sweep_file, str(error).removeprefix(f"{folder.sweep_file}: ")))
            continue
        is_running, has_ended = holder_of(folder.path) is not None, True
        for group in record.groups():
            state = _verified_ledger(record, group, found)
            has_ended &= state.plan is None or state.ended != "interrupted"
            for key in referenced_keys(state):
                owners.setdefault(key, []).append(record)
            trained |= state.trained.keys()
            if not (is_running or state.stopped):
                trained |= state.to_retrain - state.cancelled.keys()
            masks = record.masks(group.group_id)
            # a running sweep replaces and deletes mask versions, so none of its versions is required
            live = set() if is_running else _live_masks(state)
            checks += [_Check(masks, key, (record,), key in live) for key in {*masks, *live}]
        if not (is_running or has_ended):
            interrupted.append(record)
    store = open_artifacts(output)
    for key in {*store, *trained}:
        sweeps = tuple(owners.get(key, ())) if key in trained else ()
        checks.append(_Check(store, key, sweeps, key in trained))
    checks += [_Check(store.unfinished, key, (), False) for key in store.unfinished]
    with ThreadPoolExecutor(usable_cpus()) as pool:
        for number, damage in enumerate(pool.map(_damage, checks), start=1):
            if damage is not None:
                found.append(damage)
            on_progress(number, len(checks))
    return Verified(sorted(found, key=lambda damage: damage.path), interrupted)


class _Check(NamedTuple):
    """An artifact to verify. `sweeps`: the sweeps that can recreate the artifact.

    `required`: whether the artifact must exist.
    """

    store: ArtifactStore
    key: str
    sweeps: tuple[SweepRecord, ...]
    required: bool


def _verified_ledger(record: SweepRecord, group: GroupFolder, found: list[Damage]) -> GroupState:
    """Returns the state of a ledger, or of its snapshot if the ledger is damaged. Verifies all rows of both files.

    Verifies the note of the ledger's last commit too. Appends any damage to `found`.
    """
    snapshot = snapshot_path(group.ledger)
    state = _verified_state(group.ledger, record, found)
    if snapshot.exists():
        kept = _verified_state(snapshot, record, found, (GroupPlanned.kind,) if state else None)
        state = state or kept
    try:
        read_last_commit(group.ledger)
    except CorruptError as error:
        note = last_commit_path(group.ledger)
        found.append(Damage(note, str(error).removeprefix(f"{note}: "), (record,)))
    return state or GroupState()


def _verified_state(
    file: Path, record: SweepRecord, found: list[Damage], kinds: Collection[str] | None = None
) -> GroupState | None:
    """Verifies all rows of a ledger, and returns the state that they give.

    kinds: the state contains only rows with events of these kinds; None means all kinds. If the ledger is damaged,
    returns None and appends the damage to `found`.
    """
    try:
        with LedgerReader(file) as reader:
            return GroupState().apply(reader.verify(kinds))
    except SupSupError as error:
        found.append(Damage(file, str(error).removeprefix(f"{file}: "), (record,)))
        return None


def _damage(check: _Check) -> Damage | None:
    """Returns the damage of an artifact, or None if it is intact. Raises MachineError if its file cannot be read."""
    store, key, sweeps, required = check
    path = store.path(key)
    try:
        store.verify(key)
    except FileNotFoundError:
        return Damage(path, "missing", sweeps, store, key) if required else None
    except CorruptError as error:
        return Damage(path, str(error).removeprefix(f"{path}: "), sweeps, store, key)
    return None
