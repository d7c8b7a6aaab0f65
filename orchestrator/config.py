"""Strict, typed configs: a sweep file and the command line in, frozen dataclasses out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from orchestrator.user_modules import source_digest
from supsup_core.benchmarks import BENCHMARKS, Base, Benchmark
from supsup_core.errors import InputError
from supsup_core.evaluation import Inference, check, check_objective
from supsup_core.inference import ALLOCATION_TESTS, OBJECTIVES, AllocationTest
from supsup_core.methods import METHODS, Method, Problem
from supsup_core.nets import NETS, Net
from supsup_core.nns import NNS_VERSION, Budget
from supsup_core.optimizers import OPTIMIZERS
from supsup_core.registry import Registry, nearest
from supsup_core.scenarios import Scenario, scenario
from supsup_core.streams import Schedule, Stream
from supsup_core.training import TrainingRecipe

T = TypeVar("T")
Node = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """`at`: after how many tasks to evaluate; None takes 1, 2, 5, 10, 20, 50, … and the last."""

    at: list[int] | None = None

    def points(self, num_tasks: int) -> list[int]:
        """The numbers of tasks to evaluate after, ascending, each at most num_tasks."""
        if self.at is None:
            steps = [digit * 10**power for power in range(8) for digit in (1, 2, 5)]
            return [n for n in steps if n < num_tasks] + [num_tasks]
        return sorted({n for n in self.at if n <= num_tasks} | ({num_tasks} if max(self.at) > num_tasks else set()))


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a sweep may use. `num_workers` per training group; each worker gets `threads` threads.

    `state_mb`: megabytes of scores and optimiser state of masks that a worker keeps in memory in NNs; the
    rest is on disk. `deterministic` and `tf32` are for CUDA: algorithms that give the same bits each time, and
    matrix products in TensorFloat-32. `tasks_at_once`: how many tasks a worker trains together, where they
    stand alone and the method can stack them.
    """

    num_workers: int = 2
    threads: int = 1
    device: str = "cpu"
    state_mb: int = 256
    deterministic: bool = False
    tf32: bool = False
    tasks_at_once: int = 1

    def __post_init__(self) -> None:
        for name in ("num_workers", "threads", "state_mb", "tasks_at_once"):
            if getattr(self, name) < 1:
                raise InputError(f"resources.{name}: must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A sweep file: an experiment, and what to vary, repeat and use.

    `benchmark`, `net` and `method` are nodes {name: …, and the fields of the class of that name};
    `training`, `inference` and `evaluation` hold the fields of TrainingRecipe, Inference and
    EvaluationConfig. All stay plain until an experiment is built, when the user's modules are loaded.
    `stream`, `allocation` and `budget` (of Stream, an allocation test, and Budget) are for scenario NNs.
    `variants` maps names to changes of dotted keys that belong together, such as a method and its recipe; `only`
    names those to run. `grid` maps dotted keys to lists of values. Every variant is run with every combination for
    every seed. `commit_every`: the most seconds of training between two commits of NNs, or
    between two states of a task that is being trained.
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
    seeds: list[int] = field(default_factory=lambda: [0])
    resources: Resources = field(default_factory=Resources)
    imports: list[str] = field(default_factory=list)
    commit_every: float = 5.0
    output: str = "runs"
    data: str | None = None

    def __post_init__(self) -> None:
        if not self.commit_every > 0:
            raise InputError(f"commit_every: must be a positive number of seconds, not {self.commit_every}")


@dataclass(frozen=True, kw_only=True)
class _Schema(SweepConfig):
    """SweepConfig with the types that its sections are checked against."""

    training: TrainingRecipe = field(default_factory=TrainingRecipe)  # type: ignore[assignment]
    inference: Inference = field(default_factory=Inference)  # type: ignore[assignment]
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)  # type: ignore[assignment]
    stream: Stream = field(default_factory=Stream)  # type: ignore[assignment]
    budget: Budget = field(default_factory=Budget)  # type: ignore[assignment]


NNS_KEYS = ("stream", "allocation", "budget")
"""Keys of the experiment that mean something only where no task identity is given in training."""

COMPONENTS = ("benchmark", "net", "method", "allocation")
"""Keys whose `name` says what other keys they have: another one takes the place of the whole."""

EXPERIMENT_KEYS = ("scenario", "benchmark", "net", "method", "training", "inference", "evaluation", *NNS_KEYS)
"""The keys that say what is computed; the others say how often, with what and where."""


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """How an NNs experiment's data arrives and gets its masks. `capacity`: the most masks there may be."""

    stream: Stream
    test: AllocationTest
    policy: Literal["skip", "reuse", "reclaim"]
    capacity: int
    schedule: Schedule

    def identity(self) -> Node:
        """All that determines its decisions, given the masks.

        A longer stream begins with a shorter one only where tasks come one by one.
        """
        whole_prefix = self.stream.order == "blocks" and self.stream.num_streams == 1
        return {
            "version": NNS_VERSION,
            "stream": asdict(self.stream),
            "num_segments": None if whole_prefix else sum(map(len, self.schedule.sequences)),
            "test": {
                **_identity(ALLOCATION_TESTS, self.test),
                "objective_source": source_digest(OBJECTIVES[self.test.objective]),
            },
            "policy": self.policy,
            "capacity": self.capacity,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One configured experiment and its seed, validated as a whole. `node` is its plain config.

    `allocation`: in NNs alone.
    """

    scenario: Scenario
    benchmark: Benchmark
    net: Net
    method: Method
    training: TrainingRecipe
    inference: Inference
    evaluation: EvaluationConfig
    allocation: Allocation | None
    seed: int
    node: Node

    @property
    def num_tasks(self) -> int:
        """Tasks to learn."""
        return self.benchmark.num_tasks

    def problem(self, device: str) -> Problem:
        """What the method needs to know, with its tensors on `device`."""
        return Problem(
            self.net, self.benchmark.input_shape, self.benchmark.num_labels, self.training, self.seed, device
        )

    def training_identity(self) -> Node:
        """All that determines what its training group learns, but for the tasks themselves."""
        return self.mask_identity() | ({"nns": self.allocation.identity()} if self.allocation else {})

    def mask_identity(self) -> Node:
        """All that determines the training of a mask, but the data it is given and the tasks it builds on."""
        net = _identity(NETS, self.net)
        net["weight_seed"] = self.seed if self.net.weight_seed is None else self.net.weight_seed
        source = self.benchmark.source()
        return {
            "net": net,
            "method": _identity(METHODS, self.method),
            "benchmark": {**_identity(BENCHMARKS, self.benchmark), "num_tasks": None, **self.benchmark.identity()},
            "dataset": {"checksum": source.checksum(), "source": source_digest(type(source))},
            "training": {**asdict(self.training), "source": source_digest(OPTIMIZERS[self.training.optimizer])},
            "seed": self.seed,
        }


def _identity(registry: Registry[type[Any]], component: Any) -> Node:
    """A component's name, fields and, for a user's own class, its source."""
    cls = type(component)
    return {"name": registry.name_of(cls), **asdict(component), "source": source_digest(cls)}


def read_sweep(path: Path, overrides: Sequence[str]) -> SweepConfig:
    """A sweep file with `key=value` overrides on top; InputError with file, key and remedy on any mistake.

    An override of a key that the grid or variants vary takes the place of their values.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    try:
        if "${" in text:
            raise InputError(f"{path}: ${{…}} is not supported; write the value out")
        loaded = OmegaConf.create(text) if text.strip() else OmegaConf.create({})
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{path}{where}: not valid YAML: {problem}") from error
    if not isinstance(loaded, DictConfig):
        raise InputError(f"{path}: a sweep file is a mapping of keys to values, such as `name: my_sweep`")
    if "name" not in loaded:
        loaded.name = path.stem
    return _overridden(loaded, overrides, str(path))


def with_overrides(config: SweepConfig, overrides: Sequence[str]) -> SweepConfig:
    """A sweep's config with `key=value` overrides on top, as `read_sweep` takes them."""
    return _overridden(OmegaConf.create(asdict(config)), overrides, "command line")


def _overridden(loaded: DictConfig, overrides: Sequence[str], where: str) -> SweepConfig:
    changes = parse_overrides(overrides)
    if isinstance(changes.get("only"), str):
        changes["only"] = [changes["only"]]
    grid, variants = loaded.get("grid"), loaded.get("variants")
    for section in (grid, *(variants.values() if isinstance(variants, DictConfig) else ())):
        if isinstance(section, DictConfig):
            for key, value in changes.items():
                _take_over(section, key, value)
    merged = _merge(_Schema, loaded, where)
    for key, value in changes.items():
        node: Any = value
        for part in reversed(key.split(".")):
            node = {part: node}
        merged = _merge(merged, OmegaConf.create(node), "command line")
    return _sweep_from(merged, where)


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
    return _sweep_from(_merge(_Schema, OmegaConf.create(node), where), where)


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
        if isinstance(changes[key], str):
            changes[key] = _number(changes[key])
    return changes


def _number(text: str) -> str | float:
    """YAML 1.1 takes 1e-4 for a string; researchers do not."""
    try:
        return float(text) if any(c.isdigit() for c in text) else text
    except ValueError:
        return text


def _merge(schema: Any, node: Any, where: str, path: str = "") -> DictConfig:
    """`node` merged into a dataclass's (or a structured config's) fields; unknown keys are errors.

    An error's text begins with `where`, if any, and the key's full name below `path`.
    """
    base = OmegaConf.structured(schema) if isinstance(schema, type) else schema
    OmegaConf.set_readonly(base, None)
    for child in base:
        inner = base._get_node(child)
        if isinstance(inner, DictConfig):
            OmegaConf.set_readonly(inner, None)
    try:
        return cast(DictConfig, OmegaConf.merge(base, node))
    except OmegaConfBaseException as error:
        raise InputError(_explain(error, where, path)) from error
    except TypeError as error:
        lists = [str(key) for key in node if OmegaConf.is_list(node._get_node(key)) and OmegaConf.is_dict(base[key])]
        problem = f"{lists[0]}: must be a mapping, not a list" if lists else f"a value has the wrong shape ({error})"
        raise InputError(": ".join(part for part in (where, path, problem) if part)) from error


def _explain(error: OmegaConfBaseException, where: str, path: str) -> str:
    key = error.full_key or ""
    message = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "AnyNode is not a" in message:
        message = f"must be a {'list' if 'ListConfig' in message else 'mapping'}"
    if "$VALUE" in message:
        message = "a value in this list has the wrong type"
    if isinstance(error, ConfigKeyError):
        parent = error.parent_node
        known = sorted(str(k) for k in parent) if isinstance(parent, DictConfig) else []
        message = f"unknown key{nearest(key.rpartition('.')[2], known)}; there are: {', '.join(known)}"
    full = ".".join(part for part in (path, key) if part)
    return ": ".join(part for part in (where, full, message) if part)


def _sweep_from(config: DictConfig, where: str) -> SweepConfig:
    if OmegaConf.is_missing(config, "name"):
        raise InputError(f"{where}: name: missing; give the sweep a name")
    node = cast(Node, OmegaConf.to_container(config))
    try:
        sweep = SweepConfig(**{**node, "resources": Resources(**node["resources"])})
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if not sweep.seeds:
        raise InputError(f"{where}: seeds: empty; list at least one, such as [0]")
    if len(set(sweep.seeds)) < len(sweep.seeds):
        raise InputError(f"{where}: seeds: {sweep.seeds} has one twice; each would be the same run")
    for key, values in sweep.grid.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{where}: grid.{key}: empty; list at least one value, or leave the key out")
        _check_key(key, f"{where}: grid.{key}")
    for name, changes in sweep.variants.items():
        for key in changes:
            _check_key(key, f"{where}: variants.{name}.{key}")
            if any(_overlap(key, axis) for axis in sweep.grid):
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


def _overlap(one: str, other: str) -> bool:
    """Whether two dotted keys are the same, or one is a part of the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _check_key(key: str, where: str) -> None:
    """InputError when a key that is to be varied is not one of the experiment."""
    if key.split(".")[0] not in EXPERIMENT_KEYS:
        raise InputError(
            f"{where}: not a key of the experiment{nearest(key, list(EXPERIMENT_KEYS))}; "
            f"keys start with one of: {', '.join(EXPERIMENT_KEYS)}"
        )


def build_component(registry: Registry[type[T]], node: Node, key: str) -> T:
    """The registered class that `node[key]` names, made from the rest of it; InputError with the full key."""
    fields = dict(node[key])
    name = fields.pop("name", None)
    if not isinstance(name, str):
        raise InputError(f"{key}.name: missing; there are: {', '.join(registry.names())}")
    cls = _keyed(f"{key}.name", ": ", lambda: registry[name])
    return _section(cls, {key: fields}, key)


def build_experiment(node: Node, seed: int, resolve: Callable[[Base], Base] = lambda base: base) -> Experiment:
    """An Experiment from the plain values of EXPERIMENT_KEYS; InputError where they do not go together.

    `resolve` fills in what only the data can tell (Base.resolved).

    Where the scenario gives the task identity, nothing is inferred: the inference keys fall back to
    rule `known`, so that runs which differ only in them are one run.
    """
    row = _keyed("scenario", ": ", lambda: scenario(str(node["scenario"])))
    benchmark = build_component(BENCHMARKS, node, "benchmark")
    benchmark = benchmark.with_base(_keyed("benchmark.base", ": ", lambda: resolve(benchmark.source())))
    net = build_component(NETS, node, "net")
    method = build_component(METHODS, node, "method")
    inference = _section(Inference, node, "inference")
    if row.given_at_inference:
        inference = Inference(rule="known", strict_images=0)
    else:
        objective = OBJECTIVES.name_of(OBJECTIVES[inference.objective])
        inference = replace(inference, objective=objective)
    _keyed("net", ": ", lambda: net.layers(benchmark.input_shape))
    _keyed(
        "method",
        ".",
        lambda: method.check(net.layers(benchmark.input_shape), benchmark.num_labels, benchmark.num_tasks),
    )
    check(row, method, str(node["method"]["name"]), inference, net, benchmark.num_labels)
    training = _section(TrainingRecipe, node, "training")
    allocation = None if row.given_in_training else _allocation(node, benchmark, net, training, seed)
    evaluation = _section(EvaluationConfig, node, "evaluation")
    if evaluation.at is not None and (not evaluation.at or min(evaluation.at) < 1):
        raise InputError(f"evaluation.at: {evaluation.at} must list numbers of tasks from 1 on, such as [10, 50]")
    return Experiment(
        scenario=row, benchmark=benchmark, net=net, method=method, training=training, inference=inference,
        evaluation=evaluation, allocation=allocation, seed=seed,
        node={
            "scenario": row.name,
            "benchmark": {"name": node["benchmark"]["name"], **asdict(cast(Any, benchmark))},
            "net": {"name": node["net"]["name"], **asdict(cast(Any, net))},
            "method": {"name": node["method"]["name"], **asdict(cast(Any, method))},
            "training": asdict(training), "inference": asdict(inference), "evaluation": asdict(evaluation),
            **({} if allocation is None else {
                "stream": asdict(allocation.stream),
                "allocation": {"name": node["allocation"]["name"], **asdict(cast(Any, allocation.test))},
                "budget": {"num_masks": allocation.capacity, "on_exhausted": allocation.policy},
            }),
        },
    )  # fmt: skip


def _allocation(node: Node, benchmark: Benchmark, net: Net, training: TrainingRecipe, seed: int) -> Allocation:
    """The NNs part of an experiment."""
    num_tasks, num_batches = benchmark.num_tasks, training.num_batches
    stream = _section(Stream, node, "stream")
    if training.changes_rate:
        raise InputError(
            "training.schedule: in NNs nobody knows how long a mask will be trained; "
            "leave schedule and warmup_batches out"
        )
    test = build_component(ALLOCATION_TESTS, node, "allocation")
    test = replace(test, objective=OBJECTIVES.name_of(OBJECTIVES[test.objective]))
    _keyed("allocation", ".", lambda: check_objective(test.objective, (net.num_outputs, benchmark.num_labels)))
    budget = _section(Budget, node, "budget")
    capacity = num_tasks if budget.num_masks is None else budget.num_masks
    if stream.num_streams > num_tasks:
        raise InputError(f"stream.num_streams: {stream.num_streams} streams need a task each; there are {num_tasks}")
    if test.images_per_decision > training.batch_size:
        raise InputError(
            f"allocation.images_per_decision: a decision sees one batch, training.batch_size={training.batch_size} "
            f"images, not {test.images_per_decision}"
        )
    if capacity < stream.num_streams:
        raise InputError(
            f"budget.num_masks: {capacity} cannot serve {stream.num_streams} streams; "
            "set at least one a stream, or stream.num_streams lower"
        )
    sequences = _keyed("stream", ".", lambda: stream.sequences(num_tasks, num_batches, seed))
    schedule = Schedule(sequences, stream.segments_per_task(num_batches))
    return Allocation(stream=stream, test=test, policy=budget.on_exhausted, capacity=capacity, schedule=schedule)


def _section(cls: type[T], node: Node, key: str) -> T:
    """A frozen config class from `node[key]`."""
    merged = _merge(cls, OmegaConf.create(node[key]), "", key)
    return _keyed(key, ".", lambda: cls(**cast(Any, OmegaConf.to_container(merged))))


def _keyed(key: str, joint: str, make: Callable[[], T]) -> T:
    """`make()`, with the key put before the text of an InputError."""
    try:
        return make()
    except InputError as error:
        raise InputError(f"{key}{joint}{error}") from error
