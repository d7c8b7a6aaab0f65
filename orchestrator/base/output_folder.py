"""Every path and file name in an output folder. No other module builds one.

    OUTPUT/
      supsup-output.json            the marker: format, and the storage that the output is a cache of
      store/                        an ArtifactFolder: trained tasks and evaluations of all sweeps
      sweeps/SWEEP_ID/              a SweepFolder
        sweep.json, supsup.log, lock, holder, pause
        report/
        groups/GROUP_ID/            a GroupFolder
          ledger.sqlite, ledger.previous.sqlite, stop, cancel
          masks/                    an ArtifactFolder: versions of an NNs group's masks
      mlflow/                       an MLflowFolder

A storage holds the same folders by the same names, with snapshots in the place of the ledgers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_LEDGER, _SNAPSHOT = "ledger.sqlite", "ledger.previous.sqlite"
_ARTIFACTS = "??/*.safetensors"


@dataclass(frozen=True)
class ArtifactFolder:
    """A folder of artifacts, each in a file named by its content key."""

    path: Path

    @staticmethod
    def name(key: str) -> str:
        """The file of a key, relative to the folder."""
        return f"{key[:2]}/{key}.safetensors"

    @staticmethod
    def key_of(name: str) -> str | None:
        """The key of a file by its name relative to the folder; None for a file that is no artifact."""
        path = Path(name)
        return path.stem if path.match(_ARTIFACTS) and len(path.parts) == 2 else None

    def file(self, key: str) -> Path:
        """Where the artifact of a key is or would be."""
        return self.path / self.name(key)

    def files(self) -> Iterator[Path]:
        """The files of all artifacts there are."""
        return self.path.glob(_ARTIFACTS)

    def numbered(self, key: str) -> Iterator[Path]:
        """The files of the artifacts KEY-NUMBER."""
        return self.file(key).parent.glob(f"{key}-*.safetensors")

    def corrupt_file(self, key: str) -> Path:
        """A new name for a corrupt artifact that is set aside."""
        folder = self.path / "corrupt"
        number = sum(1 for _ in folder.glob(f"{key}.*"))
        return folder / f"{key}.{number}.safetensors"

    def corrupt_files(self) -> Iterator[Path]:
        """What was set aside."""
        return (self.path / "corrupt").glob("*")

    def claim_file(self, key: str) -> Path:
        """The lock that a process holds while it makes the artifact of a key."""
        return self.path / "claims" / f"{key}.lock"

    def claim_files(self) -> Iterator[Path]:
        """The locks there are, held or left over."""
        return (self.path / "claims").glob("*.lock")

    @property
    def unfinished(self) -> ArtifactFolder:
        """Checkpoints of tasks that are being trained."""
        return ArtifactFolder(self.path / "unfinished")


@dataclass(frozen=True)
class GroupFolder:
    """The folder of one training group."""

    path: Path

    @property
    def group_id(self) -> str:
        """The identity of the training group."""
        return self.path.name

    @property
    def ledger(self) -> Path:
        """Its ledger."""
        return self.path / _LEDGER

    @property
    def ledger_files(self) -> Iterator[Path]:
        """The ledger, its snapshot, and their side files."""
        return self.path.glob("ledger*")

    @property
    def corrupt_ledgers(self) -> Iterator[Path]:
        """Ledgers that were set aside."""
        return self.path.glob("ledger*.corrupt*")

    @property
    def masks(self) -> ArtifactFolder:
        """In NNs, the versions of its masks."""
        return ArtifactFolder(self.path / "masks")

    @property
    def stop_file(self) -> Path:
        """Present once a search or the user has asked the group to stop."""
        return self.path / "stop"

    @property
    def cancel_file(self) -> Path:
        """Lists the tasks that the user has cancelled while the sweep runs."""
        return self.path / "cancel"

    @property
    def sweep(self) -> SweepFolder:
        """The folder of its sweep."""
        return SweepFolder(self.path.parents[1])

    @property
    def stored_name(self) -> str:
        """Its folder in a storage."""
        return f"{self.sweep.stored_name}/groups/{self.group_id}"

    @property
    def stored_masks_name(self) -> str:
        """The folder of its mask versions in a storage."""
        return f"{self.stored_name}/masks"


@dataclass(frozen=True)
class SweepFolder:
    """The folder of one sweep, named by the sweep's id."""

    path: Path

    @property
    def sweep_id(self) -> str:
        """The identity of the sweep."""
        return self.path.name

    @property
    def output(self) -> OutputFolder:
        """The output that the sweep is in."""
        return OutputFolder(self.path.parents[1])

    @property
    def sweep_file(self) -> Path:
        """What the sweep was asked to do, as JSON."""
        return self.path / "sweep.json"

    @property
    def log_file(self) -> Path:
        """Its log, one JSON object a line."""
        return self.path / "supsup.log"

    @property
    def pause_file(self) -> Path:
        """Present while the sweep is asked to pause; its text, if any, says why."""
        return self.path / "pause"

    @property
    def report(self) -> Path:
        """The folder of its report."""
        return self.path / "report"

    def group(self, group_id: str) -> GroupFolder:
        """The folder of one of its training groups."""
        return GroupFolder(self.path / "groups" / group_id)

    def groups(self) -> list[GroupFolder]:
        """The training groups that have a ledger or a snapshot of one, by their ids."""
        found = {path.parent for name in (_LEDGER, _SNAPSHOT) for path in self.path.glob(f"groups/*/{name}")}
        return [GroupFolder(path) for path in sorted(found)]

    def stop_files(self) -> Iterator[Path]:
        """The stop files of all its training groups."""
        return self.path.glob("groups/*/stop")

    @property
    def stored_name(self) -> str:
        """Its folder in a storage."""
        return f"sweeps/{self.sweep_id}"


@dataclass(frozen=True)
class MLflowFolder:
    """Where an output keeps its MLflow store."""

    path: Path

    @property
    def database(self) -> Path:
        """MLflow's database."""
        return self.path / "mlflow.db"

    def partial_database(self, number: int) -> Path:
        """A database that is being built under another name."""
        return self.path / f"mlflow.db.{number}.partial"

    def partial_databases(self) -> Iterator[Path]:
        """Those whose building was interrupted."""
        return self.path.glob("mlflow.db.*.partial")

    @property
    def artifacts(self) -> Path:
        """MLflow's artifacts."""
        return self.path / "artifacts"

    @property
    def lock_file(self) -> Path:
        """Held while the database and an experiment are created."""
        return self.path / "lock"


@dataclass(frozen=True)
class OutputFolder:
    """An output folder: `output=DIR`."""

    path: Path

    @property
    def marker(self) -> Path:
        """The file that marks the folder as an output."""
        return self.path / "supsup-output.json"

    @property
    def store(self) -> ArtifactFolder:
        """Trained tasks and evaluations, of all its sweeps."""
        return ArtifactFolder(self.path / "store")

    @property
    def mlflow(self) -> MLflowFolder:
        """Its MLflow store."""
        return MLflowFolder(self.path / "mlflow")

    @property
    def exists(self) -> bool:
        """Whether anything that sweeps leave is here."""
        return (self.path / "sweeps").is_dir() or self.store.path.is_dir()

    def sweep(self, sweep_id: str) -> SweepFolder:
        """The folder of one sweep."""
        return SweepFolder(self.path / "sweeps" / sweep_id)

    def sweeps(self) -> list[SweepFolder]:
        """The sweeps that have a sweep file, by their ids."""
        return [SweepFolder(path.parent) for path in sorted(self.path.glob("sweeps/*/sweep.json"))]

    def all_sweep_folders(self) -> list[SweepFolder]:
        """The sweeps that have a sweep file or training groups: what fsck and gc must account for."""
        found = {path.parent for name in ("sweep.json", "groups") for path in self.path.glob(f"sweeps/*/{name}")}
        return [SweepFolder(path) for path in sorted(found)]

    def hidden_files(self) -> Iterator[Path]:
        """Files whose names begin with a dot, among them those that an interrupted write has left."""
        for part in ("store", "sweeps"):
            yield from (self.path / part).rglob(".*")


STORED_SWEEPS, STORED_STORE = "sweeps", "store"
"""Folders of a storage: sweeps, and artifacts of all of them."""


def stored_sweep_ids(names: Iterable[str]) -> list[str]:
    """The sweeps that a storage knows, from the names of its files."""
    return sorted({name.split("/")[1] for name in names if name.count("/") == 2 and name.endswith("/sweep.json")})
