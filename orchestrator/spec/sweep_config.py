"""Sweep files and the command line in, a checked, typed sweep out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf

from orchestrator.records.object_storage import check_url
from orchestrator.spec.experiment import EXPERIMENT_KEYS, EvaluationConfig
from orchestrator.spec.search_space import Search
from orchestrator.spec.strict_merge import Node, check_finite, merge
from supsup_core.errors import InputError
from supsup_core.evaluation.protocol import Inference
from supsup_core.nns.allocator import Budget
from supsup_core.nns.streams import Stream
from supsup_core.registry import nearest
from supsup_core.training.loop import TrainingRecipe

PAPER = "paper"
"""The scale of a sweep file as it stands."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a sweep may use. `num_workers`: the most that a training group gets, of which one whose tasks wait for one
    another leaves those to others that it cannot use; each worker gets `threads` threads.

    `state_mb`: megabytes of scores and optimiser state of masks that a worker keeps in memory in NNs; the
    rest is on disk. `deterministic` and `tf32` are for CUDA: algorithms that give the same bits each time, and
    matrix products in TensorFloat-32. `tasks_at_once`: how many tasks a worker trains together, where they
    stand alone and the method can stack them; without it, as many as pay. `cache_gb`: the most gigabytes of what is
    in the sweep's `storage` that a machine keeps here too.
    """

    num_workers: int = 2
    threads: int = 1
    device: str = "cpu"
    state_mb: int = 256
    deterministic: bool = False
    tf32: bool = False
    tasks_at_once: int | None = None
    cache_gb: float = 50.0

    def __post_init__(self) -> None:
        for name in ("num_workers", "threads", "state_mb", "tasks_at_once"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"resources.{name}: must be at least 1, not {value}")
        if self.device not in ("cpu", "cuda"):
            raise InputError(
                f"resources.device: {self.device!r} is not cpu or cuda; each worker gets a CUDA device of its own"
            )
        if not self.cache_gb > 0:
            raise InputError(f"resources.cache_gb: must be a positive number of gigabytes, not {self.cache_gb}")


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A sweep file: an experiment, and what to vary, repeat and use.

    `benchmark`, `net` and `method` are nodes {name: …, and the fields of the class of that name};
    `training`, `inference` and `evaluation` hold the fields of TrainingRecipe, Inference and
    EvaluationConfig. All stay plain until an experiment is built, when the user's modules are loaded.
    `stream`, `allocation` and `budget` (of Stream, an allocation test, and Budget) are for scenario NNs.
    `variants` maps names to changes of dotted keys that belong together, such as a method and its recipe; `only`
    names those to run. `grid` maps dotted keys to lists of values. Every variant is run with every combination for
    every seed. `search` takes the place of both: it draws configurations, and stops the worse ones early. `scales`
    maps names to changes of any keys that make the whole smaller, such as `smoke` and `cpu`; those of the one that
    `scale` names come before the command line's, and `paper` is the file as it stands.
    `commit_every`: the most seconds of training between two commits of NNs, or between two states of a task that is
    being trained. `tracking`: the address of an MLflow server; without it, the output has a store of its own.
    `storage`: the URL of a folder (s3://, gs://, file://) that artifacts, snapshots of the ledgers and reports go to,
    so that any machine can go on; `output` is a cache of it then. `snapshot_every`: the most seconds between two
    snapshots.
    """

    name: str
    scenario: str = "GG"
    benchmark: dict[str, Any] = field(default_factory=lambda: {"name": "permuted"})
    net: dict[str, Any] = field(default_factory=lambda: {"name": "lenet_300_100"})
    method: dict[str, Any] = field(default_factory=lambda: {"name": "supsup"})
    training: dict[str, Any] = field(default_factory=dict)
    inference: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    stream: dict[str, Any] = field(default_factory=dict)
    allocation: dict[str, Any] = field(default_factory=lambda: {"name": "outlier"})
    budget: dict[str, Any] = field(default_factory=dict)
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    only: list[str] | None = None
    grid: dict[str, list[Any]] = field(default_factory=dict)
    search: Search | None = None
    seeds: list[int] = field(default_factory=lambda: [0])
    scale: str = PAPER
    scales: dict[str, dict[str, Any]] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    imports: list[str] = field(default_factory=list)
    commit_every: float = 5.0
    output: str = "runs"
    data: str | None = None
    tracking: str | None = None
    storage: str | None = None
    snapshot_every: float = 30.0

    def __post_init__(self) -> None:
        if not self.commit_every > 0:
            raise InputError(f"commit_every: must be a positive number of seconds, not {self.commit_every}")
        if not self.snapshot_every > 0:
            raise InputError(f"snapshot_every: must be a positive number of seconds, not {self.snapshot_every}")
        if self.tracking is not None:
            _check_server(self.tracking)
        if self.storage is not None:
            check_url(self.storage)
        if self.search is not None:
            if self.grid or self.variants:
                raise InputError("search: takes the place of grid and variants; leave those out")
            if len(self.seeds) != 1:
                raise InputError(f"search: runs with one seed, not {self.seeds}; repeat the best config with several")


@dataclass(frozen=True, kw_only=True)
class _Schema(SweepConfig):
    """SweepConfig with the types that its sections are checked against."""

    training: TrainingRecipe = field(default_factory=TrainingRecipe)  # type: ignore[assignment]
    inference: Inference = field(default_factory=Inference)  # type: ignore[assignment]
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)  # type: ignore[assignment]
    stream: Stream = field(default_factory=Stream)  # type: ignore[assignment]
    budget: Budget = field(default_factory=Budget)  # type: ignore[assignment]


def read_sweep(path: Path, overrides: Sequence[str]) -> SweepConfig:
    """A sweep file with `key=value` overrides on top; InputError with file, key and remedy on any mistake.

    An override of a key that the grid, the variants or a search vary takes the place of their values.
    """
    return _overridden(_loaded(path), overrides, str(path))


def defaults() -> Node:
    """What every key of a sweep file is where the file does not say."""
    return asdict(_Schema(name=""))


def scales_of(path: Path) -> list[str]:
    """The scales that a sweep file has beside `paper`, in its order; InputError as `read_sweep` raises it."""
    return [str(name) for name in merge(_Schema, _loaded(path), str(path)).scales]


def _loaded(path: Path) -> DictConfig:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    try:
        if "${" in text:
            raise InputError(f"{path}: ${{…}} is not supported; write the value out")
        loaded = OmegaConf.create(text) if text.strip() else OmegaConf.create({})
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path}{not_yaml(error)}") from error
    if not isinstance(loaded, DictConfig):
        raise InputError(f"{path}: a sweep file is a mapping of keys to values, such as `name: my_sweep`")
    if "name" not in loaded:
        loaded.name = path.stem
    return loaded


def not_yaml(error: Exception) -> str:
    """What is wrong with a text that is no YAML, and where, to be put after the file's name."""
    mark = getattr(error, "problem_mark", None)
    where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    problem = getattr(error, "problem", None) or (str(error).splitlines() or ["?"])[0]
    return f"{where}: not valid YAML: {problem}"


def with_overrides(config: SweepConfig, overrides: Sequence[str]) -> SweepConfig:
    """A sweep's config with `key=value` overrides on top, as `read_sweep` takes them."""
    as_made = OmegaConf.create({**asdict(config), "scale": PAPER})  # its scale's changes are in it already
    return replace(_overridden(as_made, overrides, "command line"), scale=config.scale)


def _overridden(loaded: DictConfig, overrides: Sequence[str], where: str) -> SweepConfig:
    changes = parse_overrides(overrides)
    if isinstance(changes.get("only"), str):
        changes["only"] = [changes["only"]]
    merged = merge(_Schema, loaded, where)
    scale = str(changes.pop("scale", merged.scale))
    asked = ((_scaled(merged, scale, where), f"{where}: scales.{scale}"), (changes, "command line"))
    for made, origin in ((_by_key(node), origin) for node, origin in asked):
        for section in (merged.grid, *merged.variants.values(), _space(merged)):
            for key, value in made.items():
                _take_over(section, key, value)
        for axis in made.get("search.space") or ():
            _space(merged).pop(axis, None)  # a range is one value: nothing of the old one stays
        for key, value in made.items():
            node: Any = value
            for part in reversed(key.split(".")):
                node = {part: node}
            _make_way(merged, key.split("."), value)
            merged = merge(merged, OmegaConf.create(node), origin)
    return replace(_sweep_from(merged, where), scale=scale, scales={})


def _space(merged: DictConfig) -> DictConfig:
    """What a search varies; empty where there is none."""
    found: Any = merged
    for part in ("search", "space"):
        found = found._get_node(part)
        if not isinstance(found, DictConfig) or found._is_none() or found._is_missing():
            return OmegaConf.create({})
    return cast(DictConfig, found)


def _scaled(merged: DictConfig, scale: str, where: str) -> Node:
    """The changes of a scale; InputError, listing those there are, when a sweep has no such one."""
    scales = cast(dict[str, Node], OmegaConf.to_container(merged.scales))
    if PAPER in scales:
        raise InputError(f"{where}: scales.{PAPER}: is the file as it stands; give the scale another name")
    if scale == PAPER:
        return {}
    if scale not in scales:
        known = [*sorted(scales), PAPER]
        raise InputError(f"{where}: scale: no {scale!r}{nearest(scale, known)}; there are: {', '.join(known)}")
    return {"name": f"{merged.name}_{scale}", **scales[scale]}


_WHOLE = ("grid", "variants", "scales", "search.space")
"""Mappings whose keys are dotted ones or names, and so stay as they are."""


def _by_key(changes: Node, prefix: str = "") -> Node:
    """Changes by their full dotted keys; a mapping with a `name` is one value, and one of dotted keys stays whole."""
    found: Node = {}
    for key, value in changes.items():
        full = f"{prefix}{key}"
        if isinstance(value, dict) and value and "name" not in value and full not in _WHOLE:
            found |= _by_key(value, f"{full}.")
        else:
            found[full] = value
    return found


def _make_way(held: Any, path: Sequence[str], value: Any) -> None:
    """Before a change that is a mapping with a `name`: empty what is held there under another, and has other keys."""
    if not isinstance(held, DictConfig) or held._is_none() or held._is_missing():
        return
    if path:
        _make_way(held._get_node(path[0]) if path[0] in held else None, path[1:], value)
    elif isinstance(value, dict):
        if "name" in held and value.get("name", held.name) != held.name:
            for key in list(held):
                held.pop(key)
        for key, inner in value.items():
            _make_way(held, [key], inner)


def _take_over(section: DictConfig, key: str, value: Any) -> None:
    """Have an override win over what a grid or a variant says of the same key, or of one above or below it."""
    for other in list(section):
        varied = str(other)
        if varied == key or varied.startswith(f"{key}."):
            section.pop(other)
        elif key.startswith(f"{varied}."):
            held = section._get_node(other)
            for node in list(held) if isinstance(held, ListConfig) else [held]:
                if isinstance(node, DictConfig):
                    OmegaConf.update(node, key.removeprefix(f"{varied}."), value, merge=False, force_add=True)


def sweep_from_node(node: Node, where: str) -> SweepConfig:
    """A SweepConfig from the plain dictionary that `asdict` made of one."""
    return _sweep_from(merge(_Schema, OmegaConf.create(node), where), where)


def parse_overrides(overrides: Iterable[str]) -> Node:
    """["a.b=1", …] to {"a.b": 1, …}, values read as YAML; InputError when there is no `=`."""
    changes: Node = {}
    for item in overrides:
        key, equals, value = item.partition("=")
        if "${" in value:
            raise InputError(f"command line: {key}: ${{…}} is not supported; write the value out")
        if not equals or not key:
            raise InputError(f"command line: {item!r} is not key=value; for example benchmark.num_tasks=10")
        try:
            changes[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"command line: {key}: {value!r} is not a YAML value") from error
        changes[key] = _with_numbers(changes[key])
    return changes


def _with_numbers(value: Any) -> Any:
    """YAML 1.1 takes 1e-4 for a string; researchers do not."""
    match value:
        case dict():
            return {key: _with_numbers(inner) for key, inner in value.items()}
        case list():
            return [_with_numbers(inner) for inner in value]
        case str() if any(c.isdigit() for c in value):
            with contextlib.suppress(ValueError):
                return float(value)
    return value


def _sweep_from(config: DictConfig, where: str) -> SweepConfig:
    if OmegaConf.is_missing(config, "name"):
        raise InputError(f"{where}: name: missing; give the sweep a name")
    node = cast(Node, OmegaConf.to_container(config))
    check_finite(node, where)
    try:
        search = None if node["search"] is None else _search_from(node["search"])
        sweep = SweepConfig(**{**node, "resources": Resources(**node["resources"]), "search": search})
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if not sweep.seeds:
        raise InputError(f"{where}: seeds: empty; list at least one, such as [0]")
    for seed in sweep.seeds:
        if not isinstance(seed, int):
            raise InputError(f"{where}: seeds: {seed!r} is not a whole number")
    if len(set(sweep.seeds)) < len(sweep.seeds):
        raise InputError(f"{where}: seeds: {sweep.seeds} has one twice; each would be the same run")
    for key, values in sweep.grid.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{where}: grid.{key}: empty; list at least one value, or leave the key out")
        _check_key(key, f"{where}: grid.{key}")
    for name, changes in sweep.variants.items():
        for key in changes:
            _check_key(key, f"{where}: variants.{name}.{key}")
            if any(overlap(key, axis) for axis in sweep.grid):
                raise InputError(f"{where}: variants.{name}.{key}: the grid varies it too; leave it to one of them")
    if sweep.only == []:
        raise InputError(f"{where}: only: empty; name at least one variant, or leave the key out")
    for name in sweep.only or []:
        if name not in sweep.variants:
            known = sorted(sweep.variants)
            raise InputError(
                f"{where}: only: no variant {name!r}{nearest(name, known)}; there are: {', '.join(known) or 'none'}"
            )
    if not sweep.name or not all(c.isalnum() or c in "._-" for c in sweep.name) or sweep.name.startswith("."):
        raise InputError(f"{where}: name: {sweep.name!r} names a folder; use letters, digits, '.', '_' and '-'")
    return sweep


def _check_server(address: str) -> None:
    """InputError unless it is the address of an MLflow server, without a password in it."""
    try:
        parts = urlsplit(address)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not match, a port that is no number
        sound = False
    if not sound:
        raise InputError(f"tracking: the address of an MLflow server, such as http://localhost:5000, not {address!r}")
    if parts.username or parts.password:
        raise InputError(
            "tracking: no user or password in the address, which is written to files; "
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )


def _search_from(node: Node) -> Search:
    if node["space"] == "???":
        raise InputError(
            "search.space: missing; name what to search, such as {training.learning_rate: [1.0e-4, 1.0e-3]}"
        )
    try:
        return Search(**node)
    except InputError as error:
        raise InputError(f"search.{error}") from error


def overlap(one: str, other: str) -> bool:
    """Whether two dotted keys are the same, or one is a part of the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _check_key(key: str, where: str) -> None:
    """InputError when a key that is to be varied is not one of the experiment."""
    if key.split(".")[0] not in EXPERIMENT_KEYS:
        raise InputError(
            f"{where}: not a key of the experiment{nearest(key, list(EXPERIMENT_KEYS))}; "
            f"keys start with one of: {', '.join(EXPERIMENT_KEYS)}"
        )
