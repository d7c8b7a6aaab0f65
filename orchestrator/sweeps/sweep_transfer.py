"""Downloads sweeps from a storage to a local output, and uploads them to it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.base.files import write_atomically
from orchestrator.base.folder_lock import owned
from orchestrator.base.name_lookup import matching_names
from orchestrator.base.output_folder import STORED_SWEEPS, GroupFolder, OutputFolder, SweepFolder, stored_sweep_ids
from orchestrator.records.ledger import FencedError, LedgerWriter
from orchestrator.records.ledger_file import read_copy, read_epoch, set_aside
from orchestrator.records.ledger_snapshots import SnapshotId, Snapshots, rows_or_none, snapshot_ids
from orchestrator.records.object_storage import ASKING_SECONDS, Storage
from orchestrator.sweeps.sweep_record import (
    SweepRecord,
    all_records,
    find_record,
    mark_output,
    output_id_of,
    storage_of,
)
from supsup_core.errors import InputError

if TYPE_CHECKING:  # fetching does not need torch, which this import would load
    from orchestrator.sweeps.sweep import Sweep

log = logging.getLogger("supsup")

_TAKE_OVER_TRIES = 5
"""How often this process fetches newer snapshots of a process elsewhere before it gives up."""


def fetch(storage: Storage, output: OutputFolder, wanted: str | None) -> list[str]:
    """Downloads sweeps from a storage to a local output, unless the output has the same state or a newer one.

    wanted: a sweep's name or the beginning of it; None for all sweeps. Returns the ids of the matching sweeps.
    Artifacts are not downloaded; the store reads them from the storage when they are needed. A local ledger with rows
    that the newer one lacks is renamed and kept. Raises InputError if the storage has no such sweep, or if a local
    process is running an older state of one.
    """
    files = storage.files(STORED_SWEEPS)
    known = stored_sweep_ids(files)
    if not known:
        raise InputError(f"storage: {storage.url}: no sweep there; start one with `supsup sweep FILE storage=…`")
    names = known if wanted is None else matching_names(wanted, known)
    if not names:
        raise InputError(f"{wanted}: no such sweep in {storage.url}; there are: {', '.join(known)}")
    mark_output(output, storage.url)
    for name in names:
        _fetch_sweep(storage, output.sweep(name), files)
    return names


def _fetch_sweep(storage: Storage, folder: SweepFolder, files: Iterable[str]) -> None:
    """Downloads one sweep, if the storage has a newer state. files: the names of all files of sweeps in the storage."""
    inside = [file.split("/") for file in files if file.startswith(f"{folder.stored_name}/groups/")]
    groups = [folder.group(name) for name in sorted({parts[3] for parts in inside if snapshot_ids(parts[4:5])})]
    behind = [group for group in groups if _is_behind(storage, group)]
    if not behind and folder.sweep_file.exists():
        return
    with owned(folder.path):
        stored = storage / folder.stored_name
        write_atomically(folder.sweep_file, stored.read(folder.sweep_file.name))
        for group in behind:
            _restore(_snapshots(storage, group), group.ledger)


def _snapshots(storage: Storage, group: GroupFolder) -> Snapshots:
    return Snapshots(storage / group.stored_name)


def _is_behind(storage: Storage, group: GroupFolder) -> bool:
    """Returns whether the storage has a newer state of a group than the local ledger."""
    return _snapshots(storage, group).are_ahead_of(group.ledger, output_id_of(group.sweep.output))


def _restore(snapshots: Snapshots, ledger: Path) -> None:
    """Replaces a ledger by the newest intact snapshot. A ledger with rows that the snapshot lacks is renamed and kept.

    Changes nothing if no snapshot is intact.
    """
    ledger.parent.mkdir(parents=True, exist_ok=True)
    for content, rows in snapshots.sound():
        known = rows_or_none(ledger)
        if ledger.exists() and not (known and rows[: len(known)] == known):
            set_aside(ledger)
        for suffix in ("-wal", "-shm"):
            ledger.with_name(ledger.name + suffix).unlink(missing_ok=True)
        write_atomically(ledger, content)
        return


def take_over(sweep: Sweep) -> None:
    """Prepares a launch with a storage: checks the storage, uploads missing artifacts, and becomes the only writer.

    A process elsewhere that still runs the sweep is fenced: its next snapshot is refused, and the process stops. Its
    newest snapshots are fetched first. Raises FencedError if it keeps storing newer snapshots.
    """
    storage = sweep.storage
    assert storage is not None
    storage.check()
    mark_output(sweep.output, storage.url)
    uploaded = sweep.store.upload()
    for group in sweep.folder.groups():
        uploaded += sweep.masks(group.group_id).upload()
    if uploaded:
        log.info("uploaded %d artifacts that were missing in %s", uploaded, storage.url)
    for group in sweep.folder.groups():
        _take_over_group(storage, group)


def _take_over_group(storage: Storage, group: GroupFolder) -> None:
    """Fences other writers of a group: raises its ledger's epoch above all stored ones and uploads a snapshot."""
    snapshots, output_id = _snapshots(storage, group), output_id_of(group.sweep.output)
    for tries_left in reversed(range(_TAKE_OVER_TRIES)):
        if _is_behind(storage, group):
            log.warning("%s: another process has stored a newer state; fetching it", group.ledger)
            _restore(snapshots, group.ledger)
        if not group.ledger.exists():
            return
        writer = LedgerWriter(group.ledger, max((snapshot.epoch for snapshot in snapshots.ids()), default=0))
        writer.close()
        try:
            snapshots.put(SnapshotId(writer.epoch, output_id), read_copy(group.ledger))
        except FencedError:
            if not tries_left:
                raise
        else:
            return


def publish(sweep: Sweep, report: Iterable[Path]) -> None:
    """Uploads snapshots of the sweep's ledgers, and the files of its report.

    Raises StorageError if an upload fails, and FencedError if another process has taken over the sweep.
    """
    storage = sweep.storage
    assert storage is not None
    for group in sweep.folder.groups():
        if group.ledger.exists():
            snapshot = SnapshotId(read_epoch(group.ledger), output_id_of(sweep.output))
            _snapshots(storage, group).put(snapshot, read_copy(group.ledger))
    for path in report:
        (storage / sweep.folder.stored_name).write(f"{sweep.folder.report.name}/{path.name}", path.read_bytes())


def fetch_newest(url: str | None, output: OutputFolder, wanted: str | None) -> SweepRecord:
    """Updates a sweep of an output from its storage, and returns its record.

    url: the storage; None for the output's own storage, if any. wanted: the sweep's name or the beginning of it; None
    for the newest sweep. Raises InputError if there is no such sweep, or if the output's own storage is another.
    """
    own, has_sweeps = storage_of(output), bool(output.sweeps())
    url = own if url is None else url.rstrip("/")
    if url is None or (url == own and has_sweeps and wanted is None):
        found = find_record(output, wanted)
        refresh(output, found.sweep_id)
        return find_record(output, found.sweep_id)
    storage = Storage(url, ASKING_SECONDS)
    try:
        names = fetch(storage, output, wanted if wanted is not None else _last_written(storage))
    except InputError:
        if url != own or not has_sweeps:
            raise
        return find_record(output, wanted)  # the sweep was never uploaded
    return find_record(output, names[0] if len(names) == 1 else wanted)


def _last_written(storage: Storage) -> str | None:
    """Returns the id of the sweep that was written last to a storage, or None if the storage has no sweep."""
    files = storage.files(STORED_SWEEPS)
    written = {stored_sweep_ids([name])[0]: file.written or 0.0 for name, file in files.items() if _is_sweep_file(name)}
    return max(written, key=lambda name: written[name], default=None)


def _is_sweep_file(name: str) -> bool:
    return bool(stored_sweep_ids([name]))


def refresh(output: OutputFolder, name: str | None = None) -> None:
    """Updates the sweep `name`, or all sweeps of an output, from the output's storage. No effect without a storage."""
    url = storage_of(output)
    if url is None:
        return
    storage = Storage(url, ASKING_SECONDS)
    files = storage.files(STORED_SWEEPS)
    stored = stored_sweep_ids(files)
    for record in all_records(output):
        if name in (None, record.sweep_id) and record.sweep_id in stored:
            _fetch_sweep(storage, record.folder, files)


def is_stored(sweep: Sweep) -> bool:
    """Returns whether the sweep's storage, if any, contains the sweep."""
    url, folder = sweep.config.storage, sweep.folder
    return url is not None and Storage(url, ASKING_SECONDS).has(f"{folder.stored_name}/{folder.sweep_file.name}")


def fetch_if_stored(sweep: Sweep) -> bool:
    """Downloads the sweep from its storage, if the storage contains it. Returns whether it does."""
    if not is_stored(sweep):
        return False
    assert sweep.config.storage is not None
    fetch(Storage(sweep.config.storage, ASKING_SECONDS), sweep.output, sweep.sweep_id)
    return True
