"""Downloads sweeps from a storage to a local output, and uploads sweeps to the storage."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.base.files import write_atomically
from orchestrator.base.folder_lock import owned
from orchestrator.base.output_folder import STORED_SWEEPS, GroupFolder, OutputFolder, SweepFolder, stored_sweep_ids
from orchestrator.base.wording import matching_names
from orchestrator.records.ledgers.ledger import FencedError, open_ledger
from orchestrator.records.ledgers.ledger_file import read_copy, read_epoch, set_aside, snapshot_path
from orchestrator.records.ledgers.snapshots import SnapshotId, Snapshots, rows_or_none, snapshot_ids
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

if TYPE_CHECKING:  # loads torch, which downloads do not need
    from orchestrator.sweeps.sweep import Sweep

log = logging.getLogger("supsup")

_TAKE_OVER_TRIES = 5
"""How many times this process tries to take over a group while another process stores newer snapshots."""


class NotStoredError(InputError):
    """A storage contains no sweep of the wanted name."""


def fetch(storage: Storage, output: OutputFolder, wanted: str | None) -> list[str]:
    """Downloads sweeps from a storage to a local output. Skips sweeps that the storage does not have in a newer state.

    wanted: a sweep's name or the beginning of its id; None for all sweeps. Returns the ids of the matching sweeps.
    Artifacts are not downloaded; the store reads an artifact from the storage when a command needs the artifact. If a
    local ledger has rows that the downloaded ledger lacks, the local ledger is renamed and kept. Raises NotStoredError
    if the storage has no matching sweep. Raises InputError if the output uses another storage, or if a local process is
    running a sweep to be downloaded.
    """
    files = storage.files(STORED_SWEEPS)
    known = stored_sweep_ids(files)
    if not known:
        raise NotStoredError(f"storage: {storage.url}: contains no sweep; start one with `supsup sweep FILE storage=…`")
    names = known if wanted is None else matching_names(wanted, known)
    if not names:
        raise NotStoredError(f"{wanted}: no such sweep in {storage.url}; choose one of: {', '.join(known)}")
    mark_output(output, storage.url)
    for name in names:
        _fetch_sweep(storage, output.sweep(name), files)
    return names


def _fetch_sweep(storage: Storage, folder: SweepFolder, files: Iterable[str]) -> None:
    """Downloads one sweep, if the storage has a newer state. files: the names of the storage's files below `sweeps`."""
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
    """Replaces a ledger and its local snapshot by the newest intact snapshot. Changes nothing if no snapshot is intact.

    If the local ledger is damaged, or has rows that the snapshot lacks, the ledger is renamed and kept.
    """
    ledger.parent.mkdir(parents=True, exist_ok=True)
    for content, rows in snapshots.sound():
        known = rows_or_none(ledger)
        if ledger.exists() and not (known and rows[: len(known)] == known):
            set_aside(ledger)
        for suffix in ("-wal", "-shm"):
            ledger.with_name(ledger.name + suffix).unlink(missing_ok=True)
        for path in (snapshot_path(ledger), ledger):
            write_atomically(path, content)
        return


def take_over(sweep: Sweep) -> None:
    """Prepares a launch with a storage: checks the storage, uploads artifacts, and makes this process the only writer.

    If another process still runs the sweep, this function downloads the newest snapshots of that process, and then
    fences that process off. The next snapshot upload of the fenced process fails, and the process stops. Raises
    FencedError if another process keeps storing newer snapshots, and InputError if the storage cannot be written.
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
    """Fences off other writers of a ledger: raises the epoch above all snapshots' epochs, and uploads a snapshot."""
    snapshots, output_id = _snapshots(storage, group), output_id_of(group.sweep.output)
    for tries_left in reversed(range(_TAKE_OVER_TRIES)):
        if _is_behind(storage, group):
            log.warning(
                "%s: the storage holds a newer or longer state of this ledger; downloading this state", group.ledger
            )
            _restore(snapshots, group.ledger)
        if not group.ledger.exists():
            return
        newest = max((snapshot.epoch for snapshot in snapshots.ids()), default=0)
        writer, _, aside = open_ledger(group.ledger, newest)
        writer.close()
        if aside is not None:
            log.warning(
                "%s: the ledger was damaged and has been restored; the damaged file is kept as %s",
                group.ledger,
                aside.name,
            )
        try:
            snapshots.put(SnapshotId(writer.epoch, output_id), read_copy(group.ledger))
        except FencedError:
            if not tries_left:
                raise
        else:
            return


def publish(sweep: Sweep, report: Iterable[Path]) -> None:
    """Uploads snapshots of the sweep's ledgers, and the files of its report.

    report: the paths of the report's files. Raises StorageError if an upload fails, and FencedError if another process
    has taken over the sweep.
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
    """Downloads the newest state of a sweep from a storage, and returns the sweep's record.

    url: the storage; None means the storage that the output uses. If the output uses no storage, nothing is downloaded.
    wanted: the sweep's name or the beginning of its id; None for the newest sweep. A sweep that is in the output, but
    not in the output's storage, is also found. Raises InputError as `fetch` and `find_record` do.
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
    except NotStoredError:
        if url != own or not has_sweeps:
            raise
        return find_record(output, wanted)
    return find_record(output, names[0] if len(names) == 1 else wanted)


def _last_written(storage: Storage) -> str | None:
    """Returns the id of the sweep that was written last to a storage, or None if the storage has no sweep."""
    files = storage.files(STORED_SWEEPS)
    written = {stored_sweep_ids([name])[0]: file.written or 0.0 for name, file in files.items() if _is_sweep_file(name)}
    return max(written, key=lambda name: written[name], default=None)


def _is_sweep_file(name: str) -> bool:
    return bool(stored_sweep_ids([name]))


def refresh(output: OutputFolder, name: str | None = None) -> None:
    """Downloads newer states of the sweep with id `name`, or of all sweeps, if the output has a storage."""
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
    """Downloads the sweep if its storage contains it. Returns whether the storage contains the sweep."""
    if not is_stored(sweep):
        return False
    assert sweep.config.storage is not None
    fetch(Storage(sweep.config.storage, ASKING_SECONDS), sweep.output, sweep.sweep_id)
    return True
