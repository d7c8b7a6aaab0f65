"""The class Sweep: a sweep's config, folder, runs and training groups."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from omegaconf import OmegaConf

from orchestrator.base.files import write_atomically
from orchestrator.base.output_folder import OutputFolder, SweepFolder
from orchestrator.base.plain_values import Node
from orchestrator.base.sealed_json import seal
from orchestrator.base.wording import command
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.object_storage import PATIENCE_SECONDS, Storage
from orchestrator.records.planned_group import GroupSize
from orchestrator.spec import user_modules
from orchestrator.spec.experiment import build_component, build_experiment
from orchestrator.spec.overrides import parse_overrides
from orchestrator.spec.search_space import Search
from orchestrator.spec.sweep_config import SweepConfig, read_sweep, sweep_from_node
from orchestrator.spec.sweep_identity import sweep_identity
from orchestrator.spec.sweep_keys import COMPONENTS, EXPERIMENT_KEYS
from orchestrator.sweeps.sweep_record import (
    FORMAT,
    ForkOrigin,
    SweepRecord,
    check_output,
    find_record,
    keep_damaged_record,
    mark_output,
    open_store,
    read_record,
    storage_of,
    sweep_id_of,
)
from orchestrator.sweeps.training_groups import VARIANT, Group, Run, limited_runs, make_plan
from supsup_core.datasets import Base, base_from, base_node
from supsup_core.errors import InputError, prefix_errors
from supsup_core.input_files import user_path
from supsup_core.tasks import BENCHMARKS

log = logging.getLogger("supsup")


@dataclass(frozen=True)
class Sweep:
    """A sweep, as its config describes it.

    `file`: the sweep file; `imports` are relative to its folder. `extra_inferences`, `planned`, `patience`: as in
    SweepRecord. `origin`: None unless the sweep is a fork. `bases`: maps each dataset as configured to the same dataset
    as resolved, that is, with the fields filled in that are read from its files. A dataset is resolved when the sweep
    is first planned. Later plans do not read the dataset's files again.
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
        """The sweep's name and a hash of all settings that change results. Different settings give different ids."""
        return sweep_id_of(sweep_identity(self.config), self.origin)

    @property
    def output(self) -> OutputFolder:
        """The output folder."""
        return OutputFolder(user_path(self.config.output))

    @property
    def folder(self) -> SweepFolder:
        """The sweep's own folder in the output."""
        return self.output.sweep(self.sweep_id)

    def command(self, verb: str) -> str:
        """Returns a `supsup` command for this sweep that can be pasted into a shell in the current folder."""
        return command(verb, self.folder.path)

    @property
    def portable_config(self) -> Node:
        """The config as plain values. The config does not name the output's folder, so an output can be moved."""
        return asdict(replace(self.config, output=SweepConfig.output))

    @property
    def storage(self) -> Storage | None:
        """The storage of all results, or None if the config sets no storage.

        With a storage, the output is only a cache.
        """
        return Storage(self.config.storage, self.patience) if self.config.storage else None

    @property
    def cache_bytes(self) -> int:
        """The largest size of each artifact folder of the output, in bytes.

        The limit applies only if the sweep has a storage.
        """
        return int(self.config.resources.cache_gb * 1e9)

    @property
    def store(self) -> ArtifactStore:
        """The store of trained tasks and evaluations, which all sweeps in the output folder share."""
        return open_store(self.output, self.storage, self.cache_bytes)

    def masks(self, group_id: str) -> ArtifactStore:
        """Returns the store of the mask versions of a training group in scenario NNs."""
        folder = self.folder.group(group_id)
        return ArtifactStore(folder.masks, self.storage and self.storage / folder.stored_masks_name, self.cache_bytes)

    @property
    def data_root(self) -> Path | None:
        """The folder of datasets: the config's `data`, else SUPSUP_DATA, else None, which means the user's cache."""
        root = self.config.data or os.environ.get("SUPSUP_DATA")
        return user_path(root) if root else None

    @property
    def imports_folder(self) -> Path:
        """The folder that `imports` are relative to."""
        return self.file.parent

    def runs(self) -> list[Run]:
        """Returns the runs of the sweep in order. For a search, returns one run for each trial.

        Without a search, each run is one combination of a variant, values of the grid, inference settings and a seed.
        The inference settings are those of the config and those that `supsup evaluate` added. Raises InputError, which
        names the sweep file and the key, if a combination is not a valid experiment, or if the runs together are too
        large (see limited_runs).
        """
        with prefix_errors(f"{self.file}: "):
            return list(limited_runs(self._runs()))

    def _runs(self) -> Iterator[Run]:
        """Yields the runs of the sweep. Each run is built only when the caller needs it."""
        node = asdict(self.config)
        experiment = {key: node[key] for key in EXPERIMENT_KEYS}
        if self.config.search is not None:
            validated = self._validation_changes(experiment, self.config.search)
            for values in self._trials():
                yield from self._seeded(experiment, validated, values)
            return
        axes = list(self.config.grid.items())
        for name, changes in self._variants():
            for chosen in itertools.product(*(values for _, values in axes)):
                varied = name | dict(zip((key for key, _ in axes), chosen, strict=True))
                for extra in ({}, *self.extra_inferences):
                    yield from self._seeded(experiment, changes, {**varied, **extra})

    def _variants(self) -> list[tuple[Node, Node]]:
        """Returns a pair ({VARIANT: name}, changes) for each chosen variant, or one pair ({}, {}) without variants."""
        variants = self.config.variants
        names = list(variants) if self.config.only is None else self.config.only
        return [({VARIANT: name}, variants[name]) for name in names] or [({}, {})]

    def _trials(self) -> list[Node]:
        """Returns the configurations that a search tries, as values by dotted key."""
        assert self.config.search is not None
        with prefix_errors("search."):
            return self.config.search.trials()

    def _validation_changes(self, experiment: Node, search: Search) -> Node:
        """Returns the changes, as values by dotted key, that a search makes to the experiment of every trial.

        With these changes, trials are evaluated on held-out training images, and only at the numbers of tasks that
        `Search.rungs` returns.
        """
        benchmark = build_component(BENCHMARKS, experiment, "benchmark")
        return {
            "benchmark.base": {"name": "held_out", "of": benchmark.base, "share": search.held_out, "seed": search.seed},
            "evaluation.at": search.rungs(benchmark.num_tasks),
            "evaluation.forgetting": False,
        }

    def _resolved(self, base: Base) -> Base:
        """Returns a dataset with the fields that are read from its files filled in. Reads the files only once."""
        if base not in self.bases:
            self.bases[base] = base.resolved(self.data_root)
        return self.bases[base]

    def _seeded(self, node: Node, changes: Node, varied: Node) -> Iterator[Run]:
        """Yields a run for each seed, with changes of the experiment `node` by dotted key."""
        config = OmegaConf.create(node)
        for key, value in {**changes, **varied}.items():
            if key != VARIANT:
                OmegaConf.update(config, key, value, merge=key not in COMPONENTS, force_add=True)
        plain: Node = OmegaConf.to_container(config)  # type: ignore[assignment]  # a DictConfig gives a dict
        for seed in self.config.seeds:
            with prefix_errors(f"variants.{varied[VARIANT]}: " if VARIANT in varied else ""):
                run = Run(build_experiment(plain, seed, self._resolved), varied)
            yield run

    def plan(self) -> list[Group]:
        """Imports the user's modules, and returns the sweep's training groups. Raises InputError as `runs` does."""
        user_modules.load(self.config.imports, self.imports_folder)
        return make_plan(self.runs())

    def save(self, groups: Sequence[Group]) -> None:
        """Writes the sweep's record (`sweep.json`) and the output's marker. Uploads the record to the storage, if any.

        groups: the sweep's plan; the record holds the groups' sizes. Raises InputError if the output cannot be written.
        """
        check_output(self.output)
        origin = self.origin
        node = {
            "format": FORMAT,
            "sweep_id": self.sweep_id,
            "config": self.portable_config,
            "file": str(self.file),
            "extra_inferences": list(self.extra_inferences),
            "origin": [origin.sweep_id, origin.at_task, origin.groups] if origin else None,
            "bases": [[base_node(asked), base_node(found)] for asked, found in self.bases.items() if asked != found],
            "planned": {group.group_id: list(group.size) for group in groups},
        }
        try:
            self.folder.path.mkdir(parents=True, exist_ok=True)
            mark_output(self.output, self.config.storage)
            content = seal(node)
            keep_damaged_record(self.folder)
            write_atomically(self.folder.sweep_file, content)
        except OSError as error:
            raise InputError(
                f"output: {self.output.path} cannot be written ({error.strerror}); set output=DIR to another folder"
            ) from error
        if self.storage is not None:
            (self.storage / self.folder.stored_name).write(self.folder.sweep_file.name, content)

    def with_inference(self, overrides: Sequence[str]) -> Sweep:
        """Returns this sweep with one more inference, given as overrides such as `inference.objective=energy`.

        Returns the sweep unchanged if it has this inference already. Raises InputError if no override is given, if an
        override changes a key outside `inference`, or if the sweep is a search.
        """
        changes = parse_overrides(overrides)
        if self.config.search is not None:
            raise InputError(
                f"{self.sweep_id}: is a search, whose trials all use the same inference settings; "
                "run its best.yaml as a sweep, and evaluate that sweep"
            )
        if not changes:
            raise InputError("command line: name the inference keys to change, such as inference.objective=energy")
        for key in changes:
            if not key.startswith("inference."):
                raise InputError(
                    f"command line: {key}: `supsup evaluate` can change only inference.*; "
                    f"to change this key, run `supsup sweep` with {key}=…"
                )
        if changes in self.extra_inferences:
            return self
        return replace(self, extra_inferences=(*self.extra_inferences, changes))


def open_sweep(file: Path, overrides: Sequence[str]) -> Sweep:
    """Returns the sweep that a sweep file and overrides describe.

    If the sweep has an intact record on disk, the record supplies the resolved datasets and the inferences that
    `supsup evaluate` added. Raises InputError if the config is not valid.
    """
    config = read_sweep(file, overrides)
    config = replace(config, output=str(user_path(config.output)))
    if config.data:
        config = replace(config, data=str(user_path(config.data)))
    output = OutputFolder(Path(config.output))
    check_output(output)
    url = config.storage.rstrip("/") if config.storage else storage_of(output)
    sweep = Sweep(replace(config, storage=url), file.absolute())
    if sweep.folder.sweep_file.exists():
        try:
            before = open_record(read_record(sweep.folder))
        except InputError as error:
            log.warning(
                "%s. The next launch of this sweep replaces the file; if `supsup evaluate` had added runs to the "
                "sweep, run `supsup evaluate` again",
                error,
            )
            return sweep
        sweep = replace(sweep, extra_inferences=before.extra_inferences, bases=before.bases)
    return sweep


def open_record(record: SweepRecord) -> Sweep:
    """Returns the sweep that a record describes. Raises InputError if the recorded config is damaged."""
    file = record.folder.sweep_file
    config = sweep_from_node(record.config, str(file))
    try:
        bases = {base_from(asked): base_from(found) for asked, found in record.bases}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: is damaged ({error}); start the sweep again with `supsup sweep FILE`") from error
    config = replace(config, output=str(record.folder.output.path), storage=record.storage)
    return Sweep(config, record.file, record.extra_inferences, record.planned, record.origin, bases)


def find_sweep(output: OutputFolder, wanted: str | None) -> Sweep:
    """Returns the sweep that `wanted` names in full or in part, or the newest if `wanted` is None (see find_record)."""
    return open_record(find_record(output, wanted))
