"""Whole sweeps in a storage: brought from there to an output here, and back."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from orchestrator.base.files import write_atomically
from orchestrator.base.folder_lock import owned
from orchestrator.records.ledger import copy_of, epoch_of, set_aside
from orchestrator.records.ledger_snapshots import Snapshots, rows_of, versions_in
from orchestrator.records.object_storage import ASKING_SECONDS, Storage
from orchestrator.sweeps.lookup import all_sweeps, find_sweep
from orchestrator.sweeps.sweep import Sweep, mark_output, place_of, storage_of
from supsup_core.errors import InputError

log = logging.getLogger("supsup")


def fetch(storage: Storage, output: Path, wanted: str | None) -> list[str]:
    """Bring sweeps from a storage to an output here, where they are older or not there at all; the artifacts follow
    when they are asked for. Returns their names. wanted: one sweep, by its name or how it begins; None: all.

    InputError when there is no such sweep there, or when a process here runs an older state of one. What a newer ledger
    replaces is set aside.
    """
    files = storage.files("sweeps")
    known = sorted({name.split("/")[1] for name in files if name.endswith("/sweep.json")})
    if not known:
        raise InputError(f"storage: {storage.url}: no sweep there; start one with `supsup sweep FILE storage=…`")
    names = known
    if wanted is not None:
        exact = [name for name in known if wanted in (name, name.rpartition("-")[0])]
        names = exact or [name for name in known if name.startswith(wanted)]
        if not names:
            raise InputError(f"{wanted}: no such sweep in {storage.url}; there are: {', '.join(known)}")
    mark_output(output, storage.url)
    for name in names:
        _fetch_sweep(storage, output, name, sorted(files))
    return names


def _fetch_sweep(storage: Storage, output: Path, name: str, files: Sequence[str]) -> None:
    path = output / "sweeps" / name
    inside = [file.split("/") for file in files if file.startswith(f"sweeps/{name}/groups/")]
    stale = []
    for group_id in sorted({parts[3] for parts in inside if versions_in(parts[4:5])}):
        snapshots = Snapshots(storage / f"sweeps/{name}/groups/{group_id}")
        ledger = path / "groups" / group_id / "ledger.sqlite"
        if snapshots.are_ahead_of(ledger, place_of(output)):
            stale.append((snapshots, ledger))
    if not stale and (path / "sweep.json").exists():
        return
    with owned(path):
        write_atomically(path / "sweep.json", storage.read(f"sweeps/{name}/sweep.json"))
        for snapshots, ledger in stale:
            _restore(snapshots, ledger)


def _restore(snapshots: Snapshots, ledger: Path) -> None:
    """Put the newest sound snapshot in the place of a ledger, which is set aside where it knows something else."""
    ledger.parent.mkdir(parents=True, exist_ok=True)
    for content, rows in snapshots.sound():
        known = rows_of(ledger)
        if ledger.exists() and not (known and rows[: len(known)] == known):
            set_aside(ledger)
        for suffix in ("-wal", "-shm"):
            ledger.with_name(ledger.name + suffix).unlink(missing_ok=True)
        write_atomically(ledger, content)
        return
    log.warning(
        "%s: no snapshot of it is sound; trained tasks are found in the storage, and the rest is done again", ledger
    )


def publish(sweep: Sweep, report: Iterable[Path]) -> None:
    """Have all that the sweep knows in its storage: the ledgers as they stand, and its report.

    StorageError or FencedError when that cannot be.
    """
    storage = sweep.storage
    assert storage is not None
    folder = storage / f"sweeps/{sweep.sweep_id}"
    for ledger in sorted((sweep.path / "groups").glob("*/ledger.sqlite")):
        version = (epoch_of(ledger), place_of(sweep.output))
        Snapshots(folder / f"groups/{ledger.parent.name}").put(version, copy_of(ledger))
    for path in report:
        folder.write(f"report/{path.name}", path.read_bytes())


def prepare(sweep: Sweep) -> None:
    """Before a launch: see that the storage can be used, and has what is only here."""
    storage = sweep.storage
    assert storage is not None
    storage.check()
    mark_output(sweep.output, storage.url)
    uploaded = sweep.store.upload()
    for ledger in sorted((sweep.path / "groups").glob("*/ledger.sqlite")):
        uploaded += sweep.masks(ledger.parent.name).upload()
    if uploaded:
        log.info("%d artifacts were only here, and are in %s now", uploaded, storage.url)


def fetched(url: str | None, output: Path, wanted: str | None) -> Sweep:
    """The sweep of an output that is wanted, or the newest, brought up to what its storage knows of it. url: the
    storage, or None for the output's own, if it has one."""
    own = storage_of(output)
    here = [sweep.sweep_id for sweep in all_sweeps(output)]
    if url is None or (own is not None and url.rstrip("/") == own and wanted is None and here):
        if own is None or (here and wanted is None):
            found = find_sweep(output, wanted)
            refresh(output, found.sweep_id)
            return find_sweep(output, found.sweep_id)
        url = own
    storage = Storage(url, ASKING_SECONDS)
    if wanted is None:
        written = {
            name: when or 0.0 for name, (_, when) in storage.files("sweeps").items() if name.endswith("sweep.json")
        }
        wanted = max(written, key=lambda name: written[name]).split("/")[1] if written else None
    try:
        names = fetch(storage, output, wanted)
    except InputError:
        if own is None or not here:
            raise
        return find_sweep(output, wanted)  # one that was never stored
    return find_sweep(output, names[0] if len(names) == 1 else wanted)


def refresh(output: Path, name: str | None = None) -> None:
    """Bring what an output has of a sweep, or of all, up to what its storage, if it has one, knows."""
    url = storage_of(output)
    if url is None:
        return
    storage = Storage(url, ASKING_SECONDS)
    files = sorted(storage.files("sweeps"))
    stored_names = {file.split("/")[1] for file in files if file.endswith("/sweep.json")}
    for sweep in all_sweeps(output):
        if name in (None, sweep.sweep_id) and sweep.sweep_id in stored_names:
            _fetch_sweep(storage, output, sweep.sweep_id, files)


def stored(sweep: Sweep) -> bool:
    """Whether the sweep's storage knows it."""
    url = sweep.config.storage
    return url is not None and Storage(url, ASKING_SECONDS).has(f"sweeps/{sweep.sweep_id}/sweep.json")
