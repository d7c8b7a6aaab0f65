"""A sweep: its config, its folder, its runs and its training groups."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from omegaconf import OmegaConf

from orchestrator.base.files import write_atomically
from orchestrator.base.keys import content_key
from orchestrator.base.output_folder import OutputFolder, SweepFolder
from orchestrator.base.plain_values import Node
from orchestrator.base.wording import command
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.object_storage import PATIENCE_SECONDS, Storage
from orchestrator.records.planned_group import GroupSize
from orchestrator.spec import user_modules
from orchestrator.spec.experiment import COMPONENTS, EXPERIMENT_KEYS, build_component, build_experiment
from orchestrator.spec.overrides import parse_overrides
from orchestrator.spec.search_space import Search
from orchestrator.spec.sweep_config import SweepConfig, read_sweep, sweep_from_node
from orchestrator.sweeps.sweep_record import (
    FORMAT,
    ForkOrigin,
    SweepRecord,
    check_output,
    find_record,
    mark_output,
    open_store,
    read_record,
    storage_of,
)
from orchestrator.sweeps.training_groups import VARIANT, Group, Run, make_plan
from supsup_core.datasets import Base, base_from, base_node
from supsup_core.errors import InputError
from supsup_core.tasks import BENCHMARKS


@dataclass(frozen=True)
class Sweep:
    """A sweep with its config.

    `file`: the sweep file; `imports` are relative to its folder. `extra_inferences`, `planned`, `origin`, `patience`:
    as in SweepRecord. `bases`: each dataset as configured, and as resolved from its files when the sweep was first
    planned. Later plans do not read the files again.
    """

    config: SweepConfig
    file: Path
    extra_inferences: tuple[Node, ...] = ()
    planned: dict[str, GroupSize] = field(default_factory=dict)
    origin: ForkOrigin | None = None
    bases: dict[Base, Base] = field(default_factory=dict, compare=False)
    patience: float = field(default=PATIENCE_SECONDS, compare=False)

    @property
    def sweep_id(self) -> str:
        """The sweep's name and a hash of all settings that change results. Other values make another sweep."""
        node = asdict(self.config)
        science = {key: node[key] for key in (*EXPERIMENT_KEYS, "variants", "only", "grid", "seeds", "imports")}
        if self.config.search is not None:
            science["search"] = node["search"]
        if self.origin is not None:
            science["origin"] = [self.origin.sweep_id, self.origin.at_task, self.origin.groups]
        return f"{self.config.name}-{content_key(science, 6)}"

    @property
    def output(self) -> OutputFolder:
        """The output folder."""
        return OutputFolder(Path(self.config.output).expanduser().absolute())

    @property
    def folder(self) -> SweepFolder:
        """The sweep's own folder in the output."""
        return self.output.sweep(self.sweep_id)

    def command(self, verb: str) -> str:
        """The command on this sweep, as it can be typed in a shell here."""
        return command(verb, self.folder.path)

    @property
    def storage(self) -> Storage | None:
        """The storage that the output is a cache of, if it is one."""
        return Storage(self.config.storage, self.patience) if self.config.storage else None

    @property
    def cache_bytes(self) -> int:
        """The most bytes of artifacts that each folder of the output keeps, where there is a storage."""
        return int(self.config.resources.cache_gb * 1e9)

    @property
    def store(self) -> ArtifactStore:
        """Trained tasks and evaluations, of all sweeps of the output."""
        return open_store(self.output, self.storage, self.cache_bytes)

    def masks(self, group_id: str) -> ArtifactStore:
        """The mask versions of an NNs training group."""
        folder = self.folder.group(group_id)
        return ArtifactStore(folder.masks, self.storage and self.storage / folder.stored_masks_name, self.cache_bytes)

    @property
    def data_root(self) -> Path | None:
        """Where datasets are: the config's `data`, else SUPSUP_DATA, else None for the user's cache."""
        root = self.config.data or os.environ.get("SUPSUP_DATA")
        return Path(root).expanduser().absolute() if root else None

    @property
    def imports_folder(self) -> Path:
        """The folder that `imports` are relative to."""
        return self.file.parent

    def runs(self) -> list[Run]:
        """The runs of the sweep, in order; of a search, its trials.

        There is one for each variant, combination of the grid, inference that `evaluate` added, and seed. InputError,
        which names the sweep file and the key, when a combination is not a valid experiment.
        """
        node = asdict(self.config)
        experiment = {key: node[key] for key in EXPERIMENT_KEYS}
        if self.config.search is not None:
            validated = self._validation_changes(experiment, self.config.search)
            return [run for values in self._trials() for run in self._seeded(experiment, validated, values)]
        axes = list(self.config.grid.items())
        runs = []
        for name, changes in self._variants():
            for values in itertools.product(*(values for _, values in axes)):
                varied = name | dict(zip((key for key, _ in axes), values, strict=True))
                for extra in ({}, *self.extra_inferences):
                    runs += self._seeded(experiment, changes, {**varied, **extra})
        return runs

    def _variants(self) -> list[tuple[Node, Node]]:
        """The chosen variants: {VARIANT: name}, and its changes. Without variants, one pair of empty mappings."""
        variants = self.config.variants
        names = list(variants) if self.config.only is None else self.config.only
        return [({VARIANT: name}, variants[name]) for name in names] or [({}, {})]

    def _trials(self) -> list[Node]:
        """The configurations of a search."""
        assert self.config.search is not None
        try:
            return self.config.search.trials()
        except InputError as error:
            raise InputError(f"{self.file}: search.{error}") from error

    def _validation_changes(self, experiment: Node, search: Search) -> Node:
        """The changes of a search to every trial: evaluation on held-out training images, at the search's rungs."""
        try:
            benchmark = build_component(BENCHMARKS, experiment, "benchmark")
        except InputError as error:
            raise InputError(f"{self.file}: {error}") from error
        return {
            "benchmark.base": {"name": "held_out", "of": benchmark.base, "share": search.held_out, "seed": search.seed},
            "evaluation.at": search.rungs(benchmark.num_tasks),
        }

    def _resolved(self, base: Base) -> Base:
        """A dataset resolved from its files, which are read once."""
        if base not in self.bases:
            self.bases[base] = base.resolved(self.data_root)
        return self.bases[base]

    def _seeded(self, node: Node, changes: Node, varied: Node) -> list[Run]:
        config = OmegaConf.create(node)
        for key, value in {**changes, **varied}.items():
            if key != VARIANT:
                OmegaConf.update(config, key, value, merge=key not in COMPONENTS, force_add=True)
        plain: Node = OmegaConf.to_container(config)  # type: ignore[assignment]  # of a DictConfig, a dict
        try:
            return [Run(build_experiment(plain, seed, self._resolved), varied) for seed in self.config.seeds]
        except InputError as error:
            where = f"variants.{varied[VARIANT]}: " if VARIANT in varied else ""
            raise InputError(f"{self.file}: {where}{error}") from error

    def plan(self) -> list[Group]:
        """The sweep's training groups. Imports the user's modules first."""
        user_modules.load(self.config.imports, self.imports_folder)
        return make_plan(self.runs())

    def save(self, groups: Sequence[Group]) -> None:
        """Write the sweep file and the output's marker. InputError when the output is not writable."""
        check_output(self.output)
        origin = self.origin
        node = {
            "format": FORMAT,
            "sweep_id": self.sweep_id,
            "config": asdict(self.config),
            "file": str(self.file),
            "extra_inferences": list(self.extra_inferences),
            "origin": [origin.sweep_id, origin.at_task, origin.groups] if origin else None,
            "bases": [[base_node(asked), base_node(found)] for asked, found in self.bases.items() if asked != found],
            "planned": {group.group_id: list(group.size) for group in groups},
        }
        try:
            self.folder.path.mkdir(parents=True, exist_ok=True)
            mark_output(self.output, self.config.storage)
            content = json.dumps(node, indent=1).encode()
            write_atomically(self.folder.sweep_file, content)
        except OSError as error:
            raise InputError(
                f"output: {self.output.path} cannot be written ({error.strerror}); set output=DIR to a folder of yours"
            ) from error
        if self.storage is not None:
            (self.storage / self.folder.stored_name).write(self.folder.sweep_file.name, content)

    def with_inference(self, overrides: Sequence[str]) -> Sweep:
        """This sweep with a further inference, given as overrides. InputError for a key outside `inference`."""
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
                    f"command line: {key}: evaluate changes inference only; to change it, sweep with {key}=…"
                )
        if changes in self.extra_inferences:
            return self
        return replace(self, extra_inferences=(*self.extra_inferences, changes))


def open_sweep(file: Path, overrides: Sequence[str]) -> Sweep:
    """The sweep that a sweep file and overrides describe, with the inferences that `evaluate` added to it on disk."""
    config = read_sweep(file, overrides)
    config = replace(config, output=str(Path(config.output).expanduser().absolute()))
    if config.data:
        config = replace(config, data=str(Path(config.data).expanduser().absolute()))
    output = OutputFolder(Path(config.output))
    check_output(output)
    url = config.storage.rstrip("/") if config.storage else storage_of(output)
    sweep = Sweep(replace(config, storage=url), file.absolute())
    if sweep.folder.sweep_file.exists():
        before = open_record(read_record(sweep.folder))
        sweep = replace(sweep, extra_inferences=before.extra_inferences, bases=before.bases)
    return sweep


def open_record(record: SweepRecord) -> Sweep:
    """The sweep that is recorded on disk. InputError when its config is damaged."""
    file = record.folder.sweep_file
    config = sweep_from_node(record.config, str(file))
    try:
        bases = {base_from(asked): base_from(found) for asked, found in record.bases}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: damaged ({error}); start the sweep again from its file") from error
    config = replace(config, output=str(record.folder.output.path), storage=record.storage)
    return Sweep(config, record.file, record.extra_inferences, record.planned, record.origin, bases)


def find_sweep(output: OutputFolder, wanted: str | None) -> Sweep:
    """The sweep of an output that `wanted` names or begins; without it, the newest (see find_record)."""
    return open_record(find_record(output, wanted))
