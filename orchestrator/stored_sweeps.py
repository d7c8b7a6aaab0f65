"""Whole sweeps in a storage: brought from there to an output here, and back."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from orchestrator.files import owned, write_atomically
from orchestrator.ledger import LedgerReader, copy_of, epoch_of, set_aside
from orchestrator.snapshots import Snapshots, place_of, versions_in
from orchestrator.storage import ASKING_SECONDS, Storage
from orchestrator.sweep import Sweep, find_sweep, mark_output, storage_of
from supsup_core.errors import CorruptError, InputError

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
        if snapshots.versions()[0] > (epoch_of(ledger), place_of(ledger)):
            stale.append((snapshots, ledger))
    if not stale and (path / "sweep.json").exists():
        return
    with owned(path):
        write_atomically(path / "sweep.json", storage.read(f"sweeps/{name}/sweep.json"))
        for snapshots, ledger in stale:
            _restore(snapshots, ledger)


def _restore(snapshots: Snapshots, ledger: Path) -> None:
    """Put the newest sound snapshot in the place of a ledger."""
    ledger.parent.mkdir(parents=True, exist_ok=True)
    trial = ledger.with_name("ledger.fetched.sqlite")
    for version in snapshots.versions():
        write_atomically(trial, snapshots.get(version))
        try:
            with LedgerReader(trial) as reader:
                reader.verify()
        except CorruptError as error:
            log.warning("a snapshot is damaged, and the one before it takes its place: %s", error)
            continue
        if ledger.exists():
            set_aside(ledger)
        trial.replace(ledger)
        return
    trial.unlink(missing_ok=True)


def publish(sweep: Sweep, report: Iterable[Path]) -> None:
    """Have all that the sweep knows in its storage: the ledgers as they stand, and its report.

    StorageError or FencedError when that cannot be.
    """
    storage = sweep.storage
    assert storage is not None
    folder = storage / f"sweeps/{sweep.sweep_id}"
    for ledger in sorted((sweep.path / "groups").glob("*/ledger.sqlite")):
        version = (epoch_of(ledger), place_of(ledger))
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
    """The sweep of an output that is wanted, or the newest, brought up to what its storage knows. url: the storage, or
    None for the output's own, if it has one."""
    url = url or storage_of(output)
    if url is None:
        return find_sweep(output, wanted)
    names = fetch(Storage(url, ASKING_SECONDS), output, wanted)
    return find_sweep(output, names[0] if len(names) == 1 else wanted)


def stored(sweep: Sweep) -> bool:
    """Whether the sweep's storage knows it."""
    url = sweep.config.storage
    return url is not None and Storage(url, ASKING_SECONDS).has(f"sweeps/{sweep.sweep_id}/sweep.json")
