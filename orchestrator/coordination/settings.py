"""The settings of a training group for its coordinator and workers, as plain values and absolute paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.base.output_folder import GroupFolder
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.object_storage import Storage
from orchestrator.records.planned_group import PlannedGroup
from orchestrator.records.rows import LaunchEnvironment


@dataclass(frozen=True, kw_only=True)
class StorageSettings:
    """The locations of a group's files in the sweep's storage.

    `store`, `masks`, `group`: the URLs of three folders, which hold the artifacts of all sweeps, the group's mask
    versions, and the group's snapshots. `output_id`: the id of the output, which is a cache of the storage.
    `cache_bytes`: the largest size in bytes of each artifact folder in the output; None means no limit.
    `snapshot_every`: the shortest time between two snapshots, in seconds.
    """

    store: str
    masks: str
    group: str
    output_id: str
    cache_bytes: int | None
    snapshot_every: float


@dataclass(frozen=True, kw_only=True)
class GroupSettings:
    """The settings of one training group, for its coordinator and its workers.

    `is_trial`: whether the group is a trial of a search. `origin`: the id of the sweep from which the group was forked,
    or None. `imports`: the user's modules, as in a sweep file; paths of
    files are relative to `imports_folder`. `device` to `tasks_at_once`: as in a sweep file's `resources`.
    `commit_every`, in seconds: the longest training time between two commits in scenario NNs, and the shortest time
    between two checkpoints of a task in other scenarios. `continues_launch`: whether the launching process has already
    recorded the plan and verified the artifacts. `code_digest`: a hash of the program's source; every process of the
    group must import source code with this hash. `working_folder`: the working folder of the command; None if it was
    deleted.
    """

    group: PlannedGroup
    folder: GroupFolder
    storage: StorageSettings | None
    environment: LaunchEnvironment
    is_trial: bool
    origin: str | None
    data_root: Path | None
    imports: tuple[str, ...]
    imports_folder: Path
    device: str
    threads: int
    state_mb: int
    deterministic: bool
    tf32: bool
    tasks_at_once: int
    commit_every: float
    code_digest: str
    working_folder: Path | None
    continues_launch: bool = False

    @property
    def num_workers(self) -> int:
        """The largest number of workers that the group may use at once."""
        return self.environment.num_workers

    def open_store(self) -> ArtifactStore:
        """Opens the store of trained tasks and evaluations, which all sweeps of the output share."""
        store = self.folder.sweep.output.store
        if self.storage is None:
            return ArtifactStore(store)
        return ArtifactStore(store, Storage(self.storage.store), self.storage.cache_bytes)

    def open_masks(self) -> ArtifactStore:
        """Opens the store of the group's mask versions, used in scenario NNs."""
        if self.storage is None:
            return ArtifactStore(self.folder.masks)
        return ArtifactStore(self.folder.masks, Storage(self.storage.masks), self.storage.cache_bytes)
