"""A sweep: what was asked for, where it lives on disk, and the runs it stands for."""

from __future__ import annotations

import itertools
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from orchestrator.base.files import write_atomically
from orchestrator.base.keys import content_key
from orchestrator.base.wording import command
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.object_storage import PATIENCE_SECONDS, Storage
from orchestrator.spec import user_modules
from orchestrator.spec.experiment import COMPONENTS, EXPERIMENT_KEYS, build_component, build_experiment
from orchestrator.spec.search_space import Search
from orchestrator.spec.sweep_config import SweepConfig, parse_overrides
from orchestrator.sweeps.training_groups import VARIANT, Group, Run, make_plan
from supsup_core.datasets import Base, base_node
from supsup_core.errors import InputError
from supsup_core.tasks import BENCHMARKS

FORMAT = 3
"""Version of everything an output folder holds; a program of another format refuses the folder."""

_MARKER = "supsup-output.json"


@dataclass(frozen=True)
class Sweep:
    """A sweep as asked for.

    `file`: where it was read from; its imports are relative to that file's folder. `extra_inferences`:
    the inferences that `supsup evaluate` added, each a set of `inference.*` overrides. `planned`: shards
    and evaluations of each training group at its last launch, so that a status needs no plan. `origin`: the
    sweep, the number of tasks, and the training groups that a fork starts from. `bases`: each base as asked for, and
    with what its files told when it was first planned, so that only training and testing need them. `patience`:
    seconds for which a storage that does not answer is asked again.
    """

    config: SweepConfig
    file: Path
    extra_inferences: tuple[dict[str, Any], ...] = ()
    planned: dict[str, tuple[int, int]] = field(default_factory=dict)
    origin: tuple[str, int, str] | None = None
    bases: dict[Base, Base] = field(default_factory=dict, compare=False)
    patience: float = field(default=PATIENCE_SECONDS, compare=False)

    @property
    def sweep_id(self) -> str:
        """Name and content: the same file with other values is another sweep, with its own folder."""
        node = asdict(self.config)
        science = {key: node[key] for key in (*EXPERIMENT_KEYS, "variants", "only", "grid", "seeds", "imports")}
        if self.config.search is not None:
            science["search"] = node["search"]
        if self.origin is not None:
            science["origin"] = list(self.origin)
        return f"{self.config.name}-{content_key(science, 6)}"

    @property
    def output(self) -> Path:
        """The absolute output folder."""
        return Path(self.config.output).expanduser().absolute()

    @property
    def path(self) -> Path:
        """The sweep's own folder below the output."""
        return self.output / "sweeps" / self.sweep_id

    def command(self, verb: str) -> str:
        """The command on this sweep, as it can be typed in a shell here."""
        return command(verb, self.path)

    @property
    def storage(self) -> Storage | None:
        """Where artifacts, snapshots of the ledgers and reports are kept beside the output, which is a cache then."""
        return Storage(self.config.storage, self.patience) if self.config.storage else None

    @property
    def cache_bytes(self) -> int | None:
        """The most bytes of stored artifacts that each folder of the output keeps, where there is a storage."""
        limit = self.config.resources.cache_gb
        return None if limit is None else int(limit * 1e9)

    @property
    def store(self) -> ArtifactStore:
        """Trained tasks and evaluations, of all sweeps of the output."""
        return store_at(self.output, self.storage, self.cache_bytes)

    def masks(self, group_id: str) -> ArtifactStore:
        """The versions of the masks of an NNs training group."""
        storage = self.storage and self.storage / f"sweeps/{self.sweep_id}/groups/{group_id}/masks"
        return ArtifactStore(self.ledger_path(group_id).parent / "masks", storage, self.cache_bytes)

    @property
    def data_root(self) -> Path | None:
        """Where datasets are: the config's `data`, else SUPSUP_DATA, else None for the user's cache."""
        root = self.config.data or os.environ.get("SUPSUP_DATA")
        return Path(root).expanduser().absolute() if root else None

    @property
    def folder(self) -> Path:
        """What the sweep's imports are relative to."""
        return self.file.parent

    @property
    def pause_path(self) -> Path:
        """A file that is there while the sweep is asked to pause."""
        return self.path / "pause"

    def stop_path(self, group_id: str) -> Path:
        """A file that is there once a search, or the user, has asked a training group to stop."""
        return self.ledger_path(group_id).with_name("stop")

    def cancel_path(self, group_id: str) -> Path:
        """A file of the numbers of tasks, one a line, that the user has asked a training group to give up."""
        return self.ledger_path(group_id).with_name("cancel")

    def ledger_path(self, group_id: str) -> Path:
        """The ledger of one training group."""
        return self.path / "groups" / group_id / "ledger.sqlite"

    def runs(self) -> list[Run]:
        """Every variant with every combination of the grid for every seed, then those that `evaluate` added; or the
        trials of a search, in order.

        InputError names the sweep and the key when a combination is not a valid experiment.
        """
        node = asdict(self.config)
        experiment = {key: node[key] for key in EXPERIMENT_KEYS}
        if self.config.search is not None:
            judged = self._judged(experiment, self.config.search)
            return [run for values in self._trials() for run in self._seeded(experiment, judged, values)]
        axes = list(self.config.grid.items())
        runs = []
        for name, changes in self._variants():
            for values in itertools.product(*(values for _, values in axes)):
                varied = name | dict(zip((key for key, _ in axes), values, strict=True))
                for extra in ({}, *self.extra_inferences):
                    runs += self._seeded(experiment, changes, {**varied, **extra})
        return runs

    def _variants(self) -> list[tuple[dict[str, str], dict[str, Any]]]:
        """The variants that are asked for: {VARIANT: name}, or nothing where the file has none, and the changes."""
        variants = self.config.variants
        names = list(variants) if self.config.only is None else self.config.only
        return [({VARIANT: name}, variants[name]) for name in names] or [({}, {})]

    def _trials(self) -> list[dict[str, Any]]:
        """The configurations of a search."""
        assert self.config.search is not None
        try:
            return self.config.search.trials()
        except InputError as error:
            raise InputError(f"{self.file}: search.{error}") from error

    def _judged(self, experiment: dict[str, Any], search: Search) -> dict[str, Any]:
        """What a search changes of every trial: validation takes the place of the test, at the search's rungs."""
        try:
            benchmark = build_component(BENCHMARKS, experiment, "benchmark")
        except InputError as error:
            raise InputError(f"{self.file}: {error}") from error
        return {
            "benchmark.base": {"name": "held_out", "of": benchmark.base, "share": search.held_out, "seed": search.seed},
            "evaluation.at": search.rungs(benchmark.num_tasks),
        }

    def _resolved(self, base: Base) -> Base:
        """A base with what its files tell, which are asked once."""
        if base not in self.bases:
            self.bases[base] = base.resolved(self.data_root)
        return self.bases[base]

    def _seeded(self, node: dict[str, Any], changes: dict[str, Any], varied: dict[str, Any]) -> list[Run]:
        config = OmegaConf.create(node)
        for key, value in {**changes, **varied}.items():
            if key != VARIANT:
                OmegaConf.update(config, key, value, merge=key not in COMPONENTS, force_add=True)
        plain: Any = OmegaConf.to_container(config)
        try:
            return [Run(build_experiment(plain, seed, self._resolved), varied) for seed in self.config.seeds]
        except InputError as error:
            where = f"variants.{varied[VARIANT]}: " if VARIANT in varied else ""
            raise InputError(f"{self.file}: {where}{error}") from error

    def plan(self) -> list[Group]:
        """The sweep's training groups. Imports the user's modules first."""
        user_modules.load(self.config.imports, self.folder)
        return make_plan(self.runs())

    def save(self, groups: Sequence[Group]) -> None:
        """Write the sweep's folder and the output's marker; InputError when the output is not writable."""
        check_output(self.output)
        node = {
            "format": FORMAT,
            "sweep_id": self.sweep_id,
            "config": asdict(self.config),
            "file": str(self.file),
            "extra_inferences": list(self.extra_inferences),
            "origin": list(self.origin) if self.origin else None,
            "bases": [[base_node(asked), base_node(found)] for asked, found in self.bases.items() if asked != found],
            "planned": {group.group_id: list(group.size) for group in groups},
        }
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            mark_output(self.output, self.config.storage)
            content = json.dumps(node, indent=1).encode()
            write_atomically(self.path / "sweep.json", content)
        except OSError as error:
            raise InputError(
                f"output: {self.output} cannot be written ({error.strerror}); set output=DIR to a folder of yours"
            ) from error
        if self.storage is not None:
            (self.storage / f"sweeps/{self.sweep_id}").write("sweep.json", content)

    def with_inference(self, overrides: Sequence[str]) -> Sweep:
        """This sweep with one more inference; InputError for a key outside `inference`."""
        changes = parse_overrides(overrides)
        if self.config.search is not None:
            raise InputError(
                f"{self.sweep_id}: a search is judged by one inference; sweep its best.yaml, and evaluate that"
            )
        if not changes:
            raise InputError("command line: name the inference to try, such as inference.objective=energy")
        for key in changes:
            if not key.startswith("inference."):
                raise InputError(
                    f"command line: {key}: evaluate changes inference only; for the rest, sweep with {key}=…"
                )
        if changes in self.extra_inferences:
            return self
        return replace(self, extra_inferences=(*self.extra_inferences, changes))


def check_output(output: Path) -> None:
    """InputError when `output` was made by a version whose formats this one does not read."""
    marker = output / _MARKER
    if not marker.exists():
        return
    try:
        found = json.loads(marker.read_text())["format"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(f"{marker}: damaged ({error}); restore it, or set output=DIR to another folder") from error
    if found != FORMAT:
        raise InputError(
            f"{output}: made by an incompatible version of supsup (format {found}, this one writes {FORMAT}); "
            "use that version, or set output=DIR to another folder"
        )


def storage_of(output: Path) -> str | None:
    """The URL of the storage that an output is a cache of, if it is one."""
    try:
        found = json.loads((output / _MARKER).read_text()).get("storage")
    except (OSError, ValueError, AttributeError):
        return None  # check_output tells what is wrong with it
    return str(found) if found else None


def mark_output(output: Path, storage: str | None) -> None:
    """Mark a folder as an output of this version, with its storage. InputError when it has another."""
    check_output(output)
    before, storage = storage_of(output), storage.rstrip("/") if storage else None
    if before is not None and before != storage:
        raise InputError(
            f"storage: {output} keeps its artifacts in {before}, not in {storage or 'itself alone'}; "
            "set output=DIR to another folder"
        )
    if before != storage or not (output / _MARKER).exists():
        output.mkdir(parents=True, exist_ok=True)
        node = {"format": FORMAT} | ({"storage": storage, "place": secrets.token_hex(4)} if storage else {})
        write_atomically(output / _MARKER, json.dumps(node).encode())


def place_of(output: Path) -> str:
    """What an output that has a storage is called there: drawn once, and no other's."""
    return str(json.loads((output / _MARKER).read_text())["place"])


def store_at(output: Path, storage: Storage | None, limit: int | None) -> ArtifactStore:
    """The store of an output: trained tasks and evaluations, of all its sweeps."""
    return ArtifactStore(output / "store", storage and storage / "store", limit)
