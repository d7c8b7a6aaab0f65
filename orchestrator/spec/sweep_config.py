"""Reads a sweep file with overrides into a checked and typed SweepConfig."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from orchestrator.base.plain_values import Node
from orchestrator.records.object_storage import check_url
from orchestrator.spec.experiment import EvaluationConfig
from orchestrator.spec.overrides import apply_changes, parse_overrides
from orchestrator.spec.search_space import Search
from orchestrator.spec.strict_merge import merge
from orchestrator.spec.sweep_checks import check_server, check_sweep
from orchestrator.spec.sweep_keys import MOST_RUNS
from orchestrator.spec.sweep_text import read_sweep_text
from supsup_core.errors import InputError, prefix_errors
from supsup_core.evaluation.protocol import Inference
from supsup_core.field_limits import check_limits, limited
from supsup_core.nns.allocator import Budget
from supsup_core.nns.streams import Stream
from supsup_core.registry import nearest
from supsup_core.training.loop import TrainingRecipe

MOST_SECONDS = 31_536_000
"""The longest time between two commits or snapshots: a year."""

PAPER = "paper"
"""The name of the default scale, which means the sweep file without changes."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """The machine resources that a sweep may use.

    num_workers: the largest number of workers of a training group. If tasks build on one another, a group gets fewer
    workers, so that several groups run at the same time. threads: CPU threads of each worker. device: `cpu` or `cuda`;
    on `cuda`, each worker uses a separate GPU. state_mb: in scenario NNs, the size in megabytes of a worker's LRU cache
    of scores and optimiser states; evicted states are on disk. deterministic: on CUDA, use only bitwise reproducible
    algorithms. tf32: on CUDA, compute matrix products in TensorFloat-32. tasks_at_once: how many independent tasks a
    worker trains together, if the method allows it; None lets the program choose. cache_gb: if `storage` is set, the
    largest size in gigabytes of each artifact folder of the output.

    Raises InputError if a value is out of its range.
    """

    num_workers: int = limited(2, least=1, most=10_000)
    threads: int = limited(1, least=1, most=512)
    device: str = "cpu"
    state_mb: int = limited(256, least=1, most=1_000_000)
    deterministic: bool = False
    tf32: bool = False
    tasks_at_once: int | None = limited(None, least=1, most=10_000)
    cache_gb: float = limited(50.0, most=1_000_000)

    def __post_init__(self) -> None:
        with prefix_errors("resources."):
            check_limits(self)
        if self.device not in ("cpu", "cuda"):
            raise InputError(
                f"resources.device: must be cpu or cuda, not {self.device!r}; on cuda, each worker uses a separate GPU"
            )
        if not self.cache_gb > 0:
            raise InputError(f"resources.cache_gb: must be a positive number of gigabytes, not {self.cache_gb}")


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """The content of a sweep file: an experiment, the keys to vary, the seeds, and the resources to use.

    These sections of the experiment remain plain values until `build_experiment` is called, because the user's classes
    must be imported first:
    - benchmark, net, method, allocation: the `name` of a registered class, and values of its fields.
    - training, inference, evaluation, stream, budget: fields of TrainingRecipe, Inference, EvaluationConfig, Stream and
      Budget. allocation, stream and budget are used in scenario NNs only.

    These keys say what to run. Every variant runs with every combination of the grid, for every seed:
    - variants: maps a variant's name to its changes, which are values by dotted key. only: the names of the variants to
      run; None runs all of them.
    - grid: maps a dotted key to a list of its values.
    - search: replaces variants and grid. A search tries configurations, and stops those with low accuracy early.
    - scales: maps a scale's name to changes that make the sweep smaller. scale: the name of the scale to run. The
      scale's changes are applied before the overrides of the command line; PAPER changes nothing.

    These keys say how to run the sweep:
    - imports: the user's modules, which register classes (see user_modules.load).
    - commit_every, in seconds: in NNs, the longest training time between two commits; in other scenarios, the shortest
      time between two checkpoints of a task.
    - output: the output folder. data: the folder of the datasets; None means SUPSUP_DATA or the user's cache.
    - tracking: the address of an MLflow server; None means a store in the output.
    - storage: the URL (s3://, gs://, file://) of a folder for artifacts, ledger snapshots and reports. With a storage,
      any machine can resume the sweep, and the output is only a cache. snapshot_every: the shortest time between two
      snapshots, in seconds.

    Raises InputError if values are out of their range or contradict each other.
    """

    name: str
    scenario: str = "GG"
    benchmark: Node = field(default_factory=lambda: {"name": "permuted"})
    net: Node = field(default_factory=lambda: {"name": "lenet_300_100"})
    method: Node = field(default_factory=lambda: {"name": "supsup"})
    training: Node = field(default_factory=dict)
    inference: Node = field(default_factory=dict)
    evaluation: Node = field(default_factory=dict)
    stream: Node = field(default_factory=dict)
    allocation: Node = field(default_factory=lambda: {"name": "outlier"})
    budget: Node = field(default_factory=dict)
    variants: dict[str, Node] = field(default_factory=dict)
    only: list[str] | None = None
    grid: dict[str, list[Any]] = field(default_factory=dict)
    search: Search | None = None
    seeds: list[int] = limited([0], items=MOST_RUNS)
    scale: str = PAPER
    scales: dict[str, Node] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    imports: list[str] = field(default_factory=list)
    commit_every: float = limited(5.0, most=MOST_SECONDS)
    output: str = "runs"
    data: str | None = None
    tracking: str | None = None
    storage: str | None = None
    snapshot_every: float = limited(30.0, most=MOST_SECONDS)

    def __post_init__(self) -> None:
        check_limits(self)
        if not self.commit_every > 0:
            raise InputError(f"commit_every: must be a positive number of seconds, not {self.commit_every}")
        if not self.snapshot_every > 0:
            raise InputError(f"snapshot_every: must be a positive number of seconds, not {self.snapshot_every}")
        if self.tracking is not None:
            check_server(self.tracking)
        if self.storage is not None:
            check_url(self.storage)
        if self.search is not None:
            if self.grid or self.variants:
                raise InputError("search: cannot be combined with grid or variants; remove grid and variants")
            if len(self.seeds) != 1:
                raise InputError(
                    f"search: needs exactly one seed, not {self.seeds}; run the best configuration with several seeds "
                    "afterwards"
                )


TEXT_KEYS = tuple(one.name for one in fields(SweepConfig) if one.type in ("str", "str | None"))
"""The keys of a sweep file whose value is text."""

LIST_KEYS = tuple(one.name for one in fields(SweepConfig) if one.type in ("list[str]", "list[str] | None"))
"""The keys of a sweep file whose value is a list of texts."""


@dataclass(frozen=True, kw_only=True)
class _TypedSections(SweepConfig):
    """SweepConfig with dataclasses as the types of its sections. Sweep files are checked against these types."""

    training: TrainingRecipe = field(default_factory=TrainingRecipe)  # type: ignore[assignment]
    inference: Inference = field(default_factory=Inference)  # type: ignore[assignment]
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)  # type: ignore[assignment]
    stream: Stream = field(default_factory=Stream)  # type: ignore[assignment]
    budget: Budget = field(default_factory=Budget)  # type: ignore[assignment]


def read_sweep(path: Path, overrides: Sequence[str]) -> SweepConfig:
    """Reads the config in a sweep file and applies `key=value` overrides.

    An override also replaces the values that the grid, the variants or a search give to its key. Raises InputError if
    the config is not valid; the error's text names the file or "command line", the key and a remedy.
    """
    return _with_changes(read_sweep_text(path, TEXT_KEYS), overrides, str(path))


def with_overrides(config: SweepConfig, overrides: Sequence[str]) -> SweepConfig:
    """Returns a config with `key=value` overrides applied, as in `read_sweep`."""
    node = {**asdict(config), "scale": PAPER}  # the changes of the config's scale are applied already
    return replace(_with_changes(node, overrides, "command line"), scale=config.scale)


def sweep_from_node(node: Node, where: str) -> SweepConfig:
    """Builds a config from the plain values that `asdict` returned for a config. Raises InputError, whose text begins
    with `where`, if the values are not valid."""
    return _build(merge(_TypedSections, node, where), where)


def defaults() -> Node:
    """Returns the default of every key of a sweep file."""
    return asdict(_TypedSections(name=""))


def scales_of(path: Path) -> list[str]:
    """Returns the names of a sweep file's scales in the file's order, without PAPER. Raises InputError like
    `read_sweep`."""
    return list(merge(_TypedSections, read_sweep_text(path, TEXT_KEYS), str(path))["scales"])


def _with_changes(node: Node, overrides: Sequence[str], where: str) -> SweepConfig:
    """Builds a config from a sweep file's plain values, and applies the changes of its scale and the overrides.

    where: where the values come from, such as the file's name. Errors about the values begin with this text.
    """
    changes = parse_overrides(overrides, TEXT_KEYS, LIST_KEYS)
    config = merge(_TypedSections, node, where)
    scale = str(changes.pop("scale", config["scale"]))
    for made, origin in (
        (_scale_changes(config, scale, where), f"{where}: scales.{scale}"),
        (changes, "command line"),
    ):
        apply_changes(_TypedSections, config, made, origin)
    return replace(_build(config, where), scale=scale, scales={})


def _scale_changes(config: Node, scale: str, where: str) -> Node:
    """Returns the changes that a scale makes. Raises InputError, which lists the scales, if there is no such scale."""
    scales = config["scales"]
    if PAPER in scales:
        raise InputError(
            f"{where}: scales.{PAPER}: this name is reserved for the file without a scale; give the scale another name"
        )
    if scale == PAPER:
        return {}
    if scale not in scales:
        known = [*sorted(scales), PAPER]
        raise InputError(
            f"{where}: scale: there is no scale {scale!r}{nearest(scale, known)}; choose one of: {', '.join(known)}"
        )
    return {"name": f"{config['name']}_{scale}", **scales[scale]}


def _build(node: Node, where: str) -> SweepConfig:
    """Builds a config from merged plain values. Raises InputError, beginning with `where`, if a value is invalid."""
    if "name" not in node:
        raise InputError(f"{where}: name: is missing; give the sweep a name")
    with prefix_errors(f"{where}: "):
        search = None if node["search"] is None else _build_search(node["search"])
        sweep = SweepConfig(**{**node, "resources": Resources(**node["resources"]), "search": search})
        check_sweep(sweep)
    return sweep


def _build_search(node: Node) -> Search:
    """Builds a search from merged plain values. Raises InputError if the values are not valid."""
    if "space" not in node:
        raise InputError(
            "search.space: is missing; name the keys to search, such as {training.learning_rate: [1.0e-4, 1.0e-3]}"
        )
    with prefix_errors("search."):
        return Search(**node)
