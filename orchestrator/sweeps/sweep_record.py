"""Reads the record of a sweep (`sweep.json`) and the marker of an output, without loading torch.

Commands that only need ledgers and folders (status, logs, stop, gc, …) use a SweepRecord. The class `Sweep` also has
the sweep's runs and training groups.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.base.files import is_utf8, write_atomically
from orchestrator.base.keys import content_key
from orchestrator.base.output_folder import STORED_STORE, GroupFolder, OutputFolder, SweepFolder
from orchestrator.base.plain_values import Node
from orchestrator.base.sealed_json import seal, unseal
from orchestrator.base.wording import command, in_shell, matching_names
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.object_storage import PATIENCE_SECONDS, Storage
from orchestrator.records.planned_group import GroupSize
from orchestrator.spec.sweep_keys import EXPERIMENT_KEYS, REPETITION_KEYS
from supsup_core.errors import InputError

FORMAT = 3
"""The version of all file formats in an output. The program refuses an output with another version."""


@dataclass(frozen=True)
class ForkOrigin:
    """The origin of a fork. `sweep_id`: the original sweep. `at_task`: the number of tasks learned before the fork.
    `groups`: the ids of the training groups that the fork continues, joined by `+`."""

    sweep_id: str
    at_task: int
    groups: str


@dataclass(frozen=True)
class SweepRecord:
    """The record of a sweep on disk.

    `config`: the SweepConfig as plain values. `file`: the sweep file that the config was read from.
    `extra_inferences`: the inferences that `supsup evaluate` added, each a set of `inference.*` overrides. `planned`:
    the size of each training group at the last launch. `origin`: None unless the sweep is a fork. `bases`: pairs of a
    dataset as configured and the same dataset as resolved (see Sweep). `storage`: the URL of the storage that holds all
    results, or None. `patience`: for how many seconds a request is retried while the storage does not answer.
    """

    folder: SweepFolder
    config: Node
    file: Path
    extra_inferences: tuple[Node, ...]
    planned: dict[str, GroupSize]
    origin: ForkOrigin | None
    bases: Sequence[tuple[object, object]]
    storage: str | None
    patience: float = field(default=PATIENCE_SECONDS, compare=False)

    @property
    def sweep_id(self) -> str:
        """The sweep's name and a hash of all settings that change results."""
        return self.folder.sweep_id

    def groups(self) -> list[GroupFolder]:
        """Returns the folders of the sweep's training groups, sorted by id.

        The list contains the groups of the last launch, even if their ledgers are missing, and the groups of earlier
        launches.
        """
        names = {group.group_id for group in self.folder.groups()} | self.planned.keys()
        return [self.folder.group(name) for name in sorted(names)]

    def command(self, verb: str) -> str:
        """Returns a `supsup` command for this sweep that can be pasted into a shell in the current folder."""
        return command(verb, self.folder.path)

    def masks(self, group_id: str) -> ArtifactStore:
        """Returns the store of the mask versions of a training group in scenario NNs."""
        folder = self.folder.group(group_id)
        storage = Storage(self.storage, self.patience) / folder.stored_masks_name if self.storage else None
        return ArtifactStore(folder.masks, storage, self.cache_bytes)

    @property
    def cache_bytes(self) -> int:
        """The largest size of each artifact folder of the output, in bytes.

        The limit applies only if the sweep has a storage.
        """
        return int(self.config["resources"]["cache_gb"] * 1e9)


_RECORD_KEYS = ("format", "sweep_id", "config", "file", "extra_inferences", "origin", "bases", "planned")
"""The keys of `sweep.json` in versions that wrote it without a checksum."""


def sweep_id_of(config: Node, origin: ForkOrigin | None) -> str:
    """Returns the id of a sweep: its name and a hash of all settings that change results.

    config: as `sweep_identity` returns it. origin: None unless the sweep is a fork.
    """
    science = {key: config[key] for key in (*EXPERIMENT_KEYS, *REPETITION_KEYS)}
    if config["search"] is not None:
        science["search"] = config["search"]
    if origin is not None:
        science["origin"] = [origin.sweep_id, origin.at_task, origin.groups]
    return f"{config['name']}-{content_key(science, 6)}"


def read_record(folder: SweepFolder) -> SweepRecord:
    """Returns the record of the sweep in a folder.

    Raises InputError if `sweep.json` is damaged or missing, or if it belongs to a sweep with another id. A wrong id
    means that the folder was renamed, or that the file was replaced.
    """
    file = folder.sweep_file
    try:
        node, is_sealed = unseal(file.read_bytes(), _RECORD_KEYS)
        origin = node["origin"]
        record = SweepRecord(
            folder=folder,
            config=dict(node["config"]),
            file=Path(node["file"]),
            extra_inferences=tuple(dict(changes) for changes in node["extra_inferences"]),
            planned={group: GroupSize(int(shards), int(others)) for group, (shards, others) in node["planned"].items()},
            origin=ForkOrigin(str(origin[0]), int(origin[1]), str(origin[2])) if origin else None,
            bases=[(asked, found) for asked, found in node["bases"]],
            storage=storage_of(folder.output),
        )
        float(record.config["resources"]["cache_gb"])
        if not is_sealed and sweep_id_of(record.config, record.origin) != node["sweep_id"]:
            raise ValueError("its settings (`config`) do not match its sweep id, which contains a hash of them")
        sweep_id = str(node["sweep_id"])
    except FileNotFoundError as error:
        raise InputError(f"{file}: is missing; start the sweep again with `supsup sweep FILE`") from error
    except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
        raise InputError(f"{file}: is damaged ({error}); start the sweep again with `supsup sweep FILE`") from error
    if sweep_id != folder.sweep_id:
        raise InputError(
            f"{file}: belongs to the sweep {sweep_id}, not to {folder.sweep_id}; rename the folder back to {sweep_id}, "
            "or delete the folder if it is a copy"
        )
    return record


def keep_damaged_record(folder: SweepFolder) -> None:
    """Renames the record of a sweep if it exists and is damaged, so that a new record does not replace it."""
    try:
        read_record(folder)
    except InputError:
        if folder.sweep_file.exists():
            os.replace(folder.sweep_file, folder.corrupt_sweep_file())


def find_record(output: OutputFolder, wanted: str | None) -> SweepRecord:
    """Returns the record of the sweep that `wanted` names in full or in part (see matching_names).

    If `wanted` is None, returns the newest sweep: the one whose `sweep.json` was written last. Raises InputError, which
    lists the existing sweeps, if no sweep or more than one sweep fits.
    """
    check_output(output)
    folders = {folder.sweep_id: folder for folder in output.sweeps()}
    if not folders:
        raise InputError(f"{output.path}: contains no sweep; start one with `supsup sweep FILE`, or set output=DIR")
    if wanted is None:
        return read_record(max(folders.values(), key=lambda folder: _written(folder.sweep_file)))
    fitting = matching_names(wanted, list(folders))
    if len(fitting) == 1:
        return read_record(folders[fitting[0]])
    problem = "several sweeps match this name" if fitting else "no such sweep"
    raise InputError(f"{wanted}: {problem} in {output.path}; choose one of: {', '.join(fitting or folders)}")


def _written(file: Path) -> float:
    """Returns when a file was written, in seconds since 1970; 0 if the file is missing."""
    return file.stat().st_mtime if file.exists() else 0.0


def all_records(output: OutputFolder, on_damage: Callable[[InputError], None] | None = None) -> list[SweepRecord]:
    """Returns the records of all sweeps of an output, sorted by sweep id.

    on_damage: called with the error of each sweep whose `sweep.json` is damaged. Raises InputError for a damaged sweep
    if `on_damage` is None or if no sweep is intact.
    """
    check_output(output)
    found: list[SweepRecord] = []
    damaged: list[InputError] = []
    for folder in output.sweeps():
        try:
            found.append(read_record(folder))
        except InputError as error:
            damaged.append(error)
    for damage in damaged:
        if on_damage is None or not found:
            raise damage
        on_damage(damage)
    return found


@dataclass(frozen=True)
class _Marker:
    """The content of an output's marker (`supsup-output.json`). `format`: see FORMAT. `storage`: the URL of the
    output's storage, or None. `place`: a random id of this output, drawn once, if the output has a storage."""

    format: int
    storage: str | None = None
    place: str | None = None


def _read_marker(output: OutputFolder) -> _Marker | None:
    """Returns the marker of an output, or None if the output has neither a marker nor a sweep.

    Raises InputError if the marker is damaged, or if the output has sweeps but no marker.
    """
    try:
        node, _ = unseal(output.marker.read_bytes(), ("format", "storage", "place"))
        if not isinstance(node["format"], int):
            raise ValueError(f"format {node['format']!r}")
        return _Marker(node["format"], node.get("storage") or None, node.get("place"))
    except (FileNotFoundError, NotADirectoryError):
        if not any(folder.sweep_file.exists() for folder in output.sweeps()):
            return None
        raise InputError(
            f"{output.marker}: is missing, but the output has sweeps; `{_repair_command(output)}` restores the file"
        ) from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise InputError(
                f"{output.path}: cannot be an output ({error.strerror}); set output=DIR to another folder"
            ) from error
        raise InputError(
            f"{output.marker}: is damaged ({error}); `{_repair_command(output)}` restores the file"
        ) from error


def restore_marker(output: OutputFolder) -> bool:
    """Writes the marker of an output again if it is damaged or missing. Returns whether it wrote the marker.

    The records of the sweeps tell whether the output has a storage. Raises InputError if the records contradict each
    other, or if no record is intact.
    """
    try:
        _read_marker(output)
    except InputError as error:
        storages = set()
        for folder in output.sweeps():
            with contextlib.suppress(ValueError, KeyError, TypeError, OSError):
                storages.add(unseal(folder.sweep_file.read_bytes(), _RECORD_KEYS)[0]["config"]["storage"])
        if len(storages) != 1:
            raise InputError(
                f"{output.marker}: is damaged or missing, and the sweeps of this output do not tell whether it has a "
                "storage; copy the file from a backup"
            ) from error
        write_marker(output, storages.pop())
        return True
    return False


def _repair_command(output: OutputFolder) -> str:
    return f"supsup fsck output={in_shell(output.path)} --repair"


def check_output(output: OutputFolder) -> None:
    """Raises InputError if this version of the program cannot use the output: its path is not UTF-8, its format is not
    FORMAT, or its marker is damaged."""
    if not is_utf8(output.path):
        raise InputError(f"output: the path {output.path} is not UTF-8; set output=DIR to another folder")
    marker = _read_marker(output)
    if marker is not None and marker.format != FORMAT:
        raise InputError(
            f"{output.path}: was made by an incompatible version of supsup (format {marker.format}, but this version "
            f"writes format {FORMAT}); use the other version, or set output=DIR to another folder"
        )


def storage_of(output: OutputFolder) -> str | None:
    """Returns the URL of an output's storage, or None if the output has no storage.

    Raises InputError if the marker is damaged.
    """
    marker = _read_marker(output)
    return marker.storage if marker else None


def output_id_of(output: OutputFolder) -> str:
    """Returns the random id of an output that has a storage. The id is drawn once, in `mark_output`."""
    marker = _read_marker(output)
    if marker is None or marker.place is None:
        raise InputError(f"{output.marker}: does not name a storage; resume the sweep with storage=URL")
    return marker.place


def mark_output(output: OutputFolder, storage: str | None) -> None:
    """Writes the marker of an output, which records the format and the URL of the storage, if any.

    Raises InputError if an incompatible version wrote the output, or if the output already uses a different storage.
    """
    check_output(output)
    before, storage = storage_of(output), storage.rstrip("/") if storage else None
    if before is not None and before != storage:
        raise InputError(
            f"storage: {output.path} already uses the storage {before}, so it cannot use {storage or 'no storage'}; "
            "set output=DIR to another folder"
        )
    if before != storage or not output.marker.exists():
        write_marker(output, storage)


def write_marker(output: OutputFolder, storage: str | None) -> None:
    """Writes the marker of an output without any check. storage: the URL of the output's storage, or None."""
    output.path.mkdir(parents=True, exist_ok=True)
    node = {"format": FORMAT} | ({"storage": storage, "place": secrets.token_hex(4)} if storage else {})
    write_atomically(output.marker, seal(node))


def open_store(output: OutputFolder, storage: Storage | None, cache_bytes: int | None = None) -> ArtifactStore:
    """Opens the store of an output, which holds the trained tasks and evaluations of all its sweeps."""
    return ArtifactStore(output.store, storage and storage / STORED_STORE, cache_bytes)
