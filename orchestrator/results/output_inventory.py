"""What lies in an output folder: what of it nobody needs, and what of it is not as it was written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from orchestrator.base.files import is_partial
from orchestrator.base.folder_lock import holder_of
from orchestrator.base.wording import as_typed
from orchestrator.nns.evaluations import StreamEvaluations
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.group_state import GroupState
from orchestrator.records.ledger import LedgerReader, snapshot_path
from orchestrator.records.object_storage import Storage
from orchestrator.sweeps.lookup import read_state, sweep_at
from orchestrator.sweeps.sweep import Sweep, storage_of, store_at
from supsup_core.errors import CorruptError, InputError, SupSupError

YOUNG_SECONDS = 86400.0
"""What is younger than this stays in a storage: a sweep elsewhere may have made it, whose snapshot is still to come."""


@dataclass(frozen=True)
class Leftover:
    """A file that nothing will ever ask for again, and why. `remove` deletes it."""

    name: str
    why: str
    num_bytes: int
    remove: Callable[[], None] = field(compare=False)


@dataclass(frozen=True)
class Damage:
    """Something that is missing or not as it was written. `sweeps`: those that make it again; none do where what
    counts of it is kept elsewhere. `store`, `key`: of an artifact."""

    path: Path
    reason: str
    sweeps: tuple[Sweep, ...] = ()
    store: ArtifactStore | None = None
    key: str = ""


def _sweep_folders(output: Path) -> list[Path]:
    return sorted({path.parent for name in ("sweep.json", "groups") for path in (output / "sweeps").glob(f"*/{name}")})


def _group_ids(sweep: Sweep) -> list[str]:
    """The training groups that have a ledger, whether the sweep still plans them or not."""
    names = ("ledger.sqlite", snapshot_path(sweep.ledger_path("")).name)
    return sorted({path.parent.name for name in names for path in (sweep.path / "groups").glob(f"*/{name}")})


def _needed(state: GroupState) -> set[str]:
    """The keys of all artifacts in the store that a group has or will have."""
    if not state.plan:
        return set()
    group = state.group
    keys = {item["key"] for item in (*group["shards"], *group["evaluations"])} | set(state.evaluated)
    if group["segments_per_task"] is not None:
        evaluations = StreamEvaluations(group, state)
        keys.update(key for run in group["runs"] for its in evaluations.points_of(run).values() for key in its)
    return keys


def _live_masks(state: GroupState) -> set[str]:
    """In NNs, the keys of the versions of the masks in use, as of the last commit."""
    current: dict[str, str] = {}
    for row in sorted((*state.decisions, *state.commits), key=lambda row: row.seq):
        if row.kind == "committed":
            current |= {str(number): str(key) for number, key in row.payload["versions"].items()}
        elif row.payload["freed"] is not None:
            current.pop(str(row.payload["freed"]), None)
    return set(current.values())


def leftovers(output: Path) -> list[Leftover]:
    """All files of an output that could go: results and states that no sweep there asks for, what was set aside as
    damaged, and what interrupted writes left. What NNs keeps of its masks its own run cleans up.

    InputError or CorruptError when a sweep cannot be read: then nobody knows what it needs.
    """
    needed: set[str] = set()
    unfinished = False
    for folder in _sweep_folders(output):
        sweep = sweep_at(folder)
        for group_id in _group_ids(sweep):
            state = read_state(sweep, group_id)
            if not (state.plan or state.stopped or state.cancelled):  # one may be cancelled before it has begun
                raise CorruptError(
                    f"{sweep.ledger_path(group_id)}: tells nothing; `supsup fsck --repair` makes it good"
                )
            needed |= _needed(state)
            unfinished |= state.status != "done"
    url = storage_of(output)
    store = store_at(output, Storage(url) if url else None, None)
    states = store.child("unfinished")
    trained = set(store)
    left = [(store, key, "no sweep asks for it") for key in trained if key not in needed]
    for key in states:
        shard = key.partition("-")[0]
        if shard in trained:
            left.append((states, key, "its task has been trained"))
        elif shard not in needed and not unfinished:  # the state of several tasks has a key of its own
            left.append((states, key, "no sweep asks for its task"))
    sizes = {its: its.sizes(older_than=YOUNG_SECONDS) for its in (store, states)}
    artifacts = [
        Leftover(as_typed(its.path(key)), why, sizes[its][key], partial(its.delete, key))
        for its, key, why in left
        if key in sizes[its]
    ]
    found = [(path, "set aside as damaged") for path in _set_aside(output)]
    for part in ("store", "sweeps"):
        cut_short = (path for path in (output / part).rglob(".*") if is_partial(path))
        found += [(path, "a write that was interrupted") for path in cut_short]
    found += [(path, "a claim on a task") for path in (output / "store" / "claims").glob("*.lock")]
    files = [
        Leftover(as_typed(path), why, path.stat().st_size, partial(path.unlink, missing_ok=True))
        for path, why in found
        if path.is_file()
    ]
    return sorted([*artifacts, *files], key=lambda item: item.name)


def _set_aside(output: Path) -> Iterator[Path]:
    yield from (output / "store" / "corrupt").glob("*")
    yield from (output / "sweeps").glob("*/groups/*/masks/corrupt/*")
    yield from (output / "sweeps").glob("*/groups/*/ledger*.corrupt*")


def damages(output: Path, on_progress: Callable[[int, int], None]) -> list[Damage]:
    """All that is missing or damaged in an output, every file read and compared with its checksum.

    on_progress: called now and then with the files verified so far, and all there are.
    """
    found: list[Damage] = []
    owners: dict[str, list[Sweep]] = {}
    trained: set[str] = set()
    to_verify: list[tuple[ArtifactStore, str, tuple[Sweep, ...], bool]] = []
    for folder in _sweep_folders(output):
        try:
            sweep = sweep_at(folder)
        except InputError as error:
            found.append(Damage(folder / "sweep.json", str(error).removeprefix(f"{folder / 'sweep.json'}: ")))
            continue
        for group_id in _group_ids(sweep):
            state = _verified_ledger(sweep, group_id, found)
            for key in _needed(state):
                owners.setdefault(key, []).append(sweep)
            trained |= set(state.trained)
            masks = sweep.masks(group_id)
            live = _live_masks(state) if holder_of(sweep.path) is None else set()  # else they change meanwhile
            to_verify += [(masks, key, (sweep,), key in live) for key in {*masks, *live}]
    url = storage_of(output)
    store = store_at(output, Storage(url) if url else None, None)
    states = store.child("unfinished")
    for key in {*store, *trained}:
        again = tuple(owners.get(key, ())) if key in trained else ()
        to_verify.append((store, key, again, key in trained))
    to_verify += [(states, key, (), False) for key in states]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        verified = pool.map(lambda item: _damage(*item), to_verify)
        for number, damage in enumerate(verified, start=1):
            if damage is not None:
                found.append(damage)
            on_progress(number, len(to_verify))
    return sorted(found, key=lambda damage: damage.path)


def _verified_ledger(sweep: Sweep, group_id: str, found: list[Damage]) -> GroupState:
    """The state that a ledger tells, verified whole, or else its last copy; damage goes to `found`."""
    path = sweep.ledger_path(group_id)
    told = GroupState()
    for file in (snapshot_path(path), path):
        if file is not path and not file.exists():
            continue
        try:
            with LedgerReader(file) as reader:
                rows = reader.verify()
            if not rows:
                raise CorruptError(f"{file}: missing, or has lost its rows")
            told = GroupState().apply(rows)
        except SupSupError as error:
            found.append(Damage(file, str(error).removeprefix(f"{file}: "), (sweep,)))
    return told


def _damage(store: ArtifactStore, key: str, sweeps: tuple[Sweep, ...], required: bool) -> Damage | None:
    """What is wrong with an artifact, if anything; one that is not required may be gone."""
    path = store.path(key)
    try:
        store.verify(key)
    except FileNotFoundError:
        return Damage(path, "missing", sweeps, store, key) if required else None
    except CorruptError as error:
        return Damage(path, str(error).removeprefix(f"{path}: "), sweeps, store, key)
    except OSError as error:
        raise SupSupError(f"{path}: cannot be read ({error.strerror or error}); mend that and look again") from error
    return None
