"""Defines every path and file name in an output folder. All other modules use these definitions.

    OUTPUT/
      supsup-output.json            the marker: format, and the URL of the storage, if any
      store/                        an ArtifactFolder: trained tasks and evaluations of all sweeps
      sweeps/SWEEP_ID/              a SweepFolder
        sweep.json, supsup.log, lock, holder, pause, waiting
        report/
        groups/GROUP_ID/            a GroupFolder
          ledger.sqlite, ledger.previous.sqlite, ledger.last-commit, stop, cancel, waiting
          masks/                    an ArtifactFolder: mask versions of a group in scenario NNs
      mlflow/                       an MLflowFolder
      trash/TIME/                   what `supsup gc --delete` deleted at a time, in the same layout

A storage (an object store or a folder, given by a URL) has the same layout, but holds ledger snapshots, not ledgers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.base.files import folder_entries

LOCK_FILES = ("lock", "holder")
"""The names of the files of a folder's lock: the lock itself, and the id of the process that holds it."""

_LEDGER, _SNAPSHOT, _LAST_COMMIT = "ledger.sqlite", "ledger.previous.sqlite", "ledger.last-commit"
_LOG = "supsup.log"
_SUFFIX = ".safetensors"
_WAITING = "waiting"


@dataclass(frozen=True)
class ArtifactFolder:
    """A folder that holds one file per artifact, named by the artifact's content key."""

    path: Path

    @staticmethod
    def name(key: str) -> str:
        """Returns the file name of the artifact with this key, relative to the folder."""
        return f"{key[:2]}/{key}{_SUFFIX}"

    @staticmethod
    def key_of(name: str) -> str | None:
        """Returns the key of an artifact's file, or None for other files. name: relative to the folder."""
        path = Path(name)
        return path.stem if path.match(f"??/*{_SUFFIX}") and len(path.parts) == 2 else None

    def file(self, key: str) -> Path:
        """Returns the path of the artifact with this key, whether or not the file exists."""
        return self.path / self.name(key)

    def files(self) -> Iterator[Path]:
        """Yields the files of all artifacts in the folder, in no particular order. See `entries`."""
        return (Path(entry.path) for entry in self.entries().values())

    def entries(self) -> dict[str, os.DirEntry[str]]:
        """Returns the directory entries of all artifacts' files in the folder, by key.

        Skips other files, such as dead links. Raises MachineError if a folder cannot be read.
        """
        return {
            file.name.removesuffix(_SUFFIX): file
            for subfolder in folder_entries(self.path)
            if len(subfolder.name) == 2 and subfolder.is_dir()
            for file in folder_entries(Path(subfolder.path))
            if file.name.endswith(_SUFFIX) and file.is_file()
        }

    def numbered(self, key: str) -> Iterator[Path]:
        """Yields the files of a training job's checkpoints, whose keys have the form KEY-NUMBER. key: the job's key."""
        return self.file(key).parent.glob(f"{key}-*{_SUFFIX}")

    def corrupt_file(self, key: str) -> Path:
        """Returns an unused path to which the corrupt artifact with this key can be moved."""
        number = sum(1 for _ in self.path.glob(f"corrupt/{key}.*"))
        return self.path / "corrupt" / f"{key}.{number}{_SUFFIX}"

    def corrupt_files(self) -> Iterator[Path]:
        """Yields the files of the corrupt artifacts that were moved to the subfolder `corrupt`."""
        return (self.path / "corrupt").glob("*")

    def claim_file(self, key: str) -> Path:
        """Returns the path of the file that a process locks while it computes the artifact with this key."""
        return self.path / "claims" / f"{key}.lock"

    def claim_files(self) -> Iterator[Path]:
        """Yields all lock files, whether a process holds them or a killed process left them."""
        return (self.path / "claims").glob("*.lock")

    @property
    def unfinished(self) -> ArtifactFolder:
        """The folder that holds the checkpoints of tasks in training."""
        return ArtifactFolder(self.path / "unfinished")


@dataclass(frozen=True)
class GroupFolder:
    """The folder of one training group."""

    path: Path

    @staticmethod
    def of_ledger(ledger: Path) -> GroupFolder | None:
        """Returns the folder of the group that a ledger belongs to, or None if the ledger lies in no output."""
        return GroupFolder(ledger.parent) if ledger.parent.parent.name == "groups" else None

    @property
    def group_id(self) -> str:
        """The id of the training group."""
        return self.path.name

    @property
    def ledger(self) -> Path:
        """The ledger file of the group."""
        return self.path / _LEDGER

    @property
    def ledger_files(self) -> Iterator[Path]:
        """The ledger, its snapshot, the note of its last commit, side files of SQLite, and renamed corrupt ledgers."""
        return self.path.glob("ledger*")

    @property
    def corrupt_ledgers(self) -> Iterator[Path]:
        """The corrupt ledgers of the group, which were renamed and kept."""
        return self.path.glob("ledger*.corrupt*")

    @property
    def masks(self) -> ArtifactFolder:
        """The folder of the group's mask versions, in scenario NNs."""
        return ArtifactFolder(self.path / "masks")

    @property
    def stop_file(self) -> Path:
        """The file whose existence tells the group to stop. A search or `supsup cancel` creates this file."""
        return self.path / "stop"

    @property
    def cancel_file(self) -> Path:
        """The file in which `supsup cancel --task` lists the tasks that the running group must cancel."""
        return self.path / "cancel"

    @property
    def waiting_file(self) -> Path:
        """The file with the cluster resources that the running group waits for. It exists only while it waits."""
        return self.path / _WAITING

    @property
    def sweep(self) -> SweepFolder:
        """The folder of the group's sweep."""
        return SweepFolder(self.path.parents[1])

    @property
    def stored_name(self) -> str:
        """The name of the group's folder in a storage."""
        return f"{self.sweep.stored_name}/groups/{self.group_id}"

    @property
    def stored_masks_name(self) -> str:
        """The name that the folder of the group's mask versions has in a storage."""
        return f"{self.stored_name}/masks"


@dataclass(frozen=True)
class SweepFolder:
    """The folder of one sweep, named by the sweep's id."""

    path: Path

    @property
    def sweep_id(self) -> str:
        """The id of the sweep."""
        return self.path.name

    @property
    def output(self) -> OutputFolder:
        """The output folder that contains the sweep."""
        return OutputFolder(self.path.parents[1])

    @property
    def sweep_file(self) -> Path:
        """The JSON file with the sweep's record: its config, the sizes of its training groups, and a fork's origin."""
        return self.path / "sweep.json"

    @property
    def corrupt_sweep_files(self) -> list[Path]:
        """Corrupt `sweep.json` files that were renamed and kept."""
        return list(self.path.glob("sweep.json.corrupt*"))

    def corrupt_sweep_file(self) -> Path:
        """Returns an unused path to which a corrupt `sweep.json` can be renamed."""
        return self.path / f"sweep.json.corrupt{len(self.corrupt_sweep_files)}"

    @property
    def log_file(self) -> Path:
        """The sweep's log, with one JSON object per line."""
        return self.path / _LOG

    @property
    def pause_file(self) -> Path:
        """The file whose existence tells the sweep to pause. The file's text, if any, is the reason of the pause."""
        return self.path / "pause"

    @property
    def waiting_file(self) -> Path:
        """The file with the cluster resources that groups wait for to start. It exists only while they wait."""
        return self.path / _WAITING

    def waiting_files(self) -> list[Path]:
        """Returns the waiting files of the sweep and of its groups that exist now."""
        return [*self.path.glob(_WAITING), *sorted(self.path.glob(f"groups/*/{_WAITING}"))]

    @property
    def report(self) -> Path:
        """The folder of the sweep's report."""
        return self.path / "report"

    def group(self, group_id: str) -> GroupFolder:
        """Returns the folder of one training group of the sweep."""
        return GroupFolder(self.path / "groups" / group_id)

    def groups(self) -> list[GroupFolder]:
        """Returns the folders of the training groups that have, or had, a ledger, sorted by id."""
        names = (_LEDGER, _SNAPSHOT, _LAST_COMMIT)
        found = {path.parent for name in names for path in self.path.glob(f"groups/*/{name}")}
        return [GroupFolder(path) for path in sorted(found)]

    def stop_files(self) -> Iterator[Path]:
        """Yields the stop files of all training groups of the sweep."""
        return self.path.glob("groups/*/stop")

    @property
    def stored_name(self) -> str:
        """The name of the sweep's folder in a storage."""
        return f"sweeps/{self.sweep_id}"


@dataclass(frozen=True)
class MLflowFolder:
    """The folder of an output's own MLflow store."""

    path: Path

    @property
    def database(self) -> Path:
        """The SQLite database of MLflow."""
        return self.path / "mlflow.db"

    def partial_database(self, number: int) -> Path:
        """Returns a temporary path for a database that is still being built. number: makes the path unique."""
        return self.path / f"mlflow.db.{number}.partial"

    def partial_databases(self) -> Iterator[Path]:
        """Yields the temporary databases that an interrupted process left."""
        return self.path.glob("mlflow.db.*.partial*")

    @property
    def artifacts(self) -> Path:
        """The folder of MLflow's artifacts."""
        return self.path / "artifacts"

    @property
    def lock_file(self) -> Path:
        """The file that a process locks while it creates the database or an MLflow experiment."""
        return self.path / "lock"

    def writer_lock_file(self, sweep_id: str) -> Path:
        """Returns the file that a process locks while it creates or writes the MLflow runs of a sweep."""
        return self.path / "writers" / f"{sweep_id}.lock"


@dataclass(frozen=True)
class OutputFolder:
    """An output folder, which `output=DIR` sets."""

    path: Path

    @property
    def marker(self) -> Path:
        """The file that marks the folder as an output."""
        return self.path / "supsup-output.json"

    @property
    def store(self) -> ArtifactFolder:
        """The folder of the trained tasks and evaluations of all sweeps in the output."""
        return ArtifactFolder(self.path / "store")

    @property
    def mlflow(self) -> MLflowFolder:
        """The folder of the output's MLflow store."""
        return MLflowFolder(self.path / "mlflow")

    @property
    def trash(self) -> Path:
        """The folder to which `supsup gc --delete` moves files, each time to a subfolder named by the time."""
        return self.path / "trash"

    @property
    def exists(self) -> bool:
        """Whether the output has a folder for sweeps or a folder for artifacts."""
        return (self.path / "sweeps").is_dir() or self.store.path.is_dir()

    def sweep(self, sweep_id: str) -> SweepFolder:
        """Returns the folder of one sweep."""
        return SweepFolder(self.path / "sweeps" / sweep_id)

    def unfinished_fork(self, sweep_id: str) -> OutputFolder:
        """Returns the hidden folder, named like a temporary file, in which a fork is written before it is published."""
        return OutputFolder(self.path / "sweeps" / f".{sweep_id}.new_fork")

    def unfinished_forks(self) -> Iterator[OutputFolder]:
        """Yields the hidden folders of all forks that are being written, or whose writing was interrupted."""
        yield from map(OutputFolder, self.path.glob("sweeps/.*.new_fork"))

    def sweeps(self) -> list[SweepFolder]:
        """Returns the folders of the sweeps that have a `sweep.json` or a ledger, sorted by id."""
        return [folder for folder in self.all_sweep_folders() if folder.sweep_file.exists() or folder.groups()]

    def all_sweep_folders(self) -> list[SweepFolder]:
        """Returns all folders in `sweeps` that a sweep has used, sorted by name. Leaves out hidden folders.

        Includes the folders of sweeps that lost their `sweep.json`. A process that was killed before it wrote
        `sweep.json` leaves an unused folder: a lock, an empty log and hidden files.
        """
        found = [path for path in sorted(self.path.glob("sweeps/*")) if path.is_dir() and not path.name.startswith(".")]
        return [SweepFolder(path) for path in found if any(map(_shows_use, path.iterdir()))]

    def hidden_files(self) -> Iterator[Path]:
        """Yields the files whose names begin with a dot, such as temporary files that an interrupted write left."""
        yield from self.store.path.rglob(".*")
        yield from (self.path / "sweeps").rglob(".*")


def _shows_use(file: Path) -> bool:
    """Returns whether a file in the folder of a sweep shows that the sweep was started and its `sweep.json` written."""
    is_empty_log = file.name == _LOG and file.stat().st_size == 0
    return not is_empty_log and file.name not in LOCK_FILES and not file.name.startswith(".")


STORED_SWEEPS, STORED_STORE = "sweeps", "store"
"""The names of a storage's two top folders: for sweeps, and for the trained tasks and evaluations of all sweeps."""


def stored_sweep_ids(names: Iterable[str]) -> list[str]:
    """Returns the ids of the sweeps in a storage, sorted. names: file names relative to the storage."""
    return sorted({name.split("/")[1] for name in names if name.count("/") == 2 and name.endswith("/sweep.json")})
