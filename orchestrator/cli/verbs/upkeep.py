"""Verbs that look after an output folder: gc and fsck."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from orchestrator.base.folder_lock import holder_of
from orchestrator.base.wording import as_typed
from orchestrator.cli import run_sweep
from orchestrator.records.ledger import set_aside, snapshot_path
from orchestrator.records.object_storage import ASKING_SECONDS, Storage
from orchestrator.results.output_inventory import Damage, Leftover, damages, leftovers
from orchestrator.sweeps.sweep import check_output, storage_of
from orchestrator.sweeps.sweep_transfer import fetch
from supsup_core.errors import InputError

SOUND, DAMAGED = 0, 1
"""Exit codes of fsck; bad input is 2."""

_TOLD_SECONDS = 2.0
"""How often fsck says how far it is."""


def gc(output: Path, delete: bool) -> int:
    """Print what an output holds that nothing asks for any more; with `delete`, delete it."""
    _check(output)
    if delete:
        _refuse_while_running(output, "gc --delete")
    _fetch_all(output)
    found = leftovers(output)
    by_reason: dict[str, list[Leftover]] = defaultdict(list)
    for item in found:
        by_reason[item.why].append(item)
    for why, items in sorted(by_reason.items()):
        print(f"{why}: {_counted(len(items), 'file')}, {_megabytes(items)}")
        if not delete:
            for item in items[:3]:
                print(f"  {item.name}")
            if len(items) > 3:
                print(f"  … and {len(items) - 3} more")
    if not found:
        print("nothing to delete: everything here is asked for")
        return 0
    if delete:
        for item in found:
            item.remove()
        print(f"deleted {_counted(len(found), 'file')}, {_megabytes(found)}")
    else:
        print(
            f"in all {_counted(len(found), 'file')}, {_megabytes(found)}; nothing was deleted: for that, add --delete"
        )
    return 0


def fsck(output: Path, repair: bool, cluster: str | None) -> int:
    """Verify every ledger and artifact of an output and print what is damaged. With `repair`, set that aside, run the
    sweeps it belongs to, which make it again, and verify anew."""
    _check(output)
    if repair:
        _refuse_while_running(output, "fsck --repair")
    _fetch_all(output)
    found = _verified(output)
    if not found or not repair:
        if found:
            print("to set aside what is damaged and make it again, add --repair")
        return DAMAGED if found else SOUND
    for damage in found:
        _set_aside(damage, found)
    for sweep in {sweep.sweep_id: sweep for damage in found for sweep in damage.sweeps}.values():
        print(f"\n{sweep.sweep_id}: making again what is lost")
        if run_sweep.run(sweep, cluster) == run_sweep.INTERRUPTED:
            return run_sweep.INTERRUPTED
    print()
    return DAMAGED if _verified(output) else SOUND


def _verified(output: Path) -> list[Damage]:
    """All faults of an output, printed."""
    progress = _Progress()
    found = damages(output, progress)
    for damage in found:
        print(f"{as_typed(damage.path)}: {damage.reason}; {_remedy(damage)}")
    print(f"{_counted(progress.total, 'artifact')} verified, and every ledger: {_counted(len(found), 'fault')}")
    return found


def _set_aside(damage: Damage, found: Sequence[Damage]) -> None:
    """Move what is damaged out of the way. A ledger only where its last copy is sound, and will take its place: of
    one without, the run itself keeps what it can."""
    aside = None
    if damage.store is not None:
        aside = damage.store.quarantine(damage.key) if damage.store.has(damage.key) else None
    elif damage.path.name == "ledger.sqlite":
        copy = snapshot_path(damage.path)
        if copy.exists() and all(other.path != copy for other in found):
            aside = set_aside(damage.path)
    elif damage.path.name == snapshot_path(damage.path).name:
        aside = set_aside(damage.path)
    if aside is not None:
        print(f"set aside: {as_typed(aside)}")


def _remedy(damage: Damage) -> str:
    if damage.sweeps:
        names = ", ".join(sweep.sweep_id for sweep in damage.sweeps)
        return f"{names} makes it again when it is run (`supsup resume`)"
    if damage.store is not None:
        return "nothing depends on it: what counts of it is in a ledger, or it is passed again"
    return "nothing that it learned is lost"


def _check(output: Path) -> None:
    check_output(output)
    if not (output / "sweeps").is_dir() and not (output / "store").is_dir():
        raise InputError(f"{output}: no output of supsup; set output=DIR to the folder that sweeps were run in")


def _fetch_all(output: Path) -> None:
    """Have here what the output's storage, if it has one, knows of all sweeps: those of other machines need their
    artifacts too."""
    url = storage_of(output)
    if url is not None and Storage(url, ASKING_SECONDS).files("sweeps"):
        fetch(Storage(url, ASKING_SECONDS), output, None)


def _refuse_while_running(output: Path, verb: str) -> None:
    for folder in (output / "sweeps").glob("*"):
        process = holder_of(folder)
        if process is not None:
            raise InputError(
                f"{verb}: {folder.name} is being run by process {process}; wait until it is done, or interrupt it"
            )


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _megabytes(items: list[Leftover]) -> str:
    return f"{sum(item.num_bytes for item in items) / 1e6:.1f} MB"


class _Progress:
    """Says on standard error how many files are verified, where it takes long."""

    def __init__(self) -> None:
        self.total = 0
        self._told = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        self.total = total
        if time.monotonic() - self._told >= _TOLD_SECONDS:
            self._told = time.monotonic()
            print(f"verified {done:,} of {total:,} files", file=sys.stderr, flush=True)
