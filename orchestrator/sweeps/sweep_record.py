"""A sweep as its sweep file on disk records it, read without loading the science.

Verbs that look at ledgers and folders alone (status, logs, stop, gc, …) work with records. `Sweep` adds what the sweep
computes.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.base.files import write_atomically
from orchestrator.base.name_lookup import matching_names
from orchestrator.base.output_folder import STORED_STORE, OutputFolder, SweepFolder
from orchestrator.base.plain_values import Node
from orchestrator.base.wording import command
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.object_storage import PATIENCE_SECONDS, Storage
from orchestrator.records.planned_group import GroupSize
from supsup_core.errors import InputError

FORMAT = 3
"""Version of everything an output folder holds. A program of another format refuses the folder."""


@dataclass(frozen=True)
class ForkOrigin:
    """What a fork starts from: a sweep, the number of tasks it had learned, and the ids of its training groups."""

    sweep_id: str
    at_task: int
    groups: str


@dataclass(frozen=True)
class SweepRecord:
    """A sweep that is on disk.

    `config`: its SweepConfig as plain values. `file`: the sweep file it was read from. `extra_inferences`: the
    inferences that `supsup evaluate` added, each a set of `inference.*` overrides. `planned`: the size of each training
    group at the last launch. `bases`: each dataset as configured, and as resolved from its files. `storage`: the URL of
    the storage that the output is a cache of. `patience`: the seconds for which a storage that does not answer is
    retried.
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
        """The sweep's name and the hash of its content."""
        return self.folder.sweep_id

    def command(self, verb: str) -> str:
        """The command on this sweep, as it can be typed in a shell here."""
        return command(verb, self.folder.path)

    def masks(self, group_id: str) -> ArtifactStore:
        """The mask versions of an NNs training group."""
        folder = self.folder.group(group_id)
        storage = Storage(self.storage, self.patience) / folder.stored_masks_name if self.storage else None
        return ArtifactStore(folder.masks, storage, self.cache_bytes)

    @property
    def cache_bytes(self) -> int:
        """The most bytes of artifacts that each folder of the output keeps, where there is a storage."""
        return int(self.config["resources"]["cache_gb"] * 1e9)


def read_record(folder: SweepFolder) -> SweepRecord:
    """The sweep in a folder. InputError when its sweep file is damaged."""
    file = folder.sweep_file
    try:
        node = json.loads(file.read_text())
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
    except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
        raise InputError(f"{file}: damaged ({error}); start the sweep again from its file") from error
    return record


def find_record(output: OutputFolder, wanted: str | None) -> SweepRecord:
    """The sweep of an output that `wanted` names or begins; without it, the only one or the newest.

    InputError, listing the sweeps there are, when none or several fit.
    """
    check_output(output)
    folders = {folder.sweep_id: folder for folder in output.sweeps()}
    if not folders:
        raise InputError(f"{output.path}: no sweep here; start one with `supsup sweep FILE`, or set output=DIR")
    if wanted is None:
        return read_record(max(folders.values(), key=lambda folder: folder.sweep_file.stat().st_mtime))
    fitting = matching_names(wanted, list(folders))
    if len(fitting) == 1:
        return read_record(folders[fitting[0]])
    problem = "several sweeps fit" if fitting else "no such sweep"
    raise InputError(f"{wanted}: {problem} in {output.path}; there are: {', '.join(fitting or folders)}")


def all_records(output: OutputFolder, on_damage: Callable[[InputError], None] | None = None) -> list[SweepRecord]:
    """Every sweep of an output, by name.

    on_damage: called for each sweep whose sweep file is damaged; without it, and where there is no other, they raise.
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


def check_output(output: OutputFolder) -> None:
    """InputError when the output was made by a version whose formats this one does not read."""
    if not output.marker.exists():
        return
    try:
        found = json.loads(output.marker.read_text())["format"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(
            f"{output.marker}: damaged ({error}); restore it, or set output=DIR to another folder"
        ) from error
    if found != FORMAT:
        raise InputError(
            f"{output.path}: made by an incompatible version of supsup (format {found}, this one writes {FORMAT}); "
            "use that version, or set output=DIR to another folder"
        )


def storage_of(output: OutputFolder) -> str | None:
    """The URL of the storage that an output is a cache of, if it is one."""
    try:
        found = json.loads(output.marker.read_text()).get("storage")
    except (OSError, ValueError, AttributeError):
        return None  # check_output reports what is wrong with the marker
    return str(found) if found else None


def output_id_of(output: OutputFolder) -> str:
    """The id of an output that has a storage: drawn once, and no other output's."""
    return str(json.loads(output.marker.read_text())["place"])


def mark_output(output: OutputFolder, storage: str | None) -> None:
    """Mark a folder as an output of this version, with its storage. InputError when it has another one."""
    check_output(output)
    before, storage = storage_of(output), storage.rstrip("/") if storage else None
    if before is not None and before != storage:
        raise InputError(
            f"storage: {output.path} keeps its artifacts in {before}, not in {storage or 'itself alone'}; "
            "set output=DIR to another folder"
        )
    if before != storage or not output.marker.exists():
        output.path.mkdir(parents=True, exist_ok=True)
        node = {"format": FORMAT} | ({"storage": storage, "place": secrets.token_hex(4)} if storage else {})
        write_atomically(output.marker, json.dumps(node).encode())


def open_store(output: OutputFolder, storage: Storage | None, cache_bytes: int | None = None) -> ArtifactStore:
    """The store of an output: trained tasks and evaluations of all its sweeps."""
    return ArtifactStore(output.store, storage and storage / STORED_STORE, cache_bytes)
