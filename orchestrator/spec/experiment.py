"""Builds an experiment from plain values: checks that the values fit together, and creates the objects that train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any, Literal, TypeVar

from orchestrator.base.plain_values import Node
from orchestrator.spec.strict_merge import field_names, merge
from orchestrator.spec.user_modules import source_digest
from supsup_core.datasets import Base
from supsup_core.errors import InputError, prefix_errors
from supsup_core.evaluation.protocol import Inference, check, check_objective
from supsup_core.field_limits import check_limits, limited
from supsup_core.inference import OBJECTIVES
from supsup_core.later_fields import added_later, identity_fields
from supsup_core.methods import METHODS, Method, Problem
from supsup_core.nets import NETS, Net
from supsup_core.nets.base import check_size
from supsup_core.nns.allocation_tests import ALLOCATION_TESTS, AllocationTest
from supsup_core.nns.allocator import NNS_VERSION, Budget
from supsup_core.nns.streams import Schedule, Stream
from supsup_core.registry import Registry
from supsup_core.scenarios import Scenario, scenario
from supsup_core.tasks import BENCHMARKS, Benchmark
from supsup_core.training.loop import TrainingRecipe
from supsup_core.training.optimizers import OPTIMIZERS

T = TypeVar("T")


class DatasetError(InputError):
    """The files of a dataset are missing or cannot be used."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """The evaluation points of a run. `at`: numbers of learned tasks; None means 1, 2, 5, 10, 20, 50, … and all tasks.

    `forgetting`: whether to measure forgetting, which needs one more evaluation of each task, directly after it was
    learned. Raises InputError if `at` is empty or contains a number below 1.
    """

    at: list[int] | None = limited(None, most=1_000_000_000, items=1000)
    forgetting: bool = added_later(True)

    def __post_init__(self) -> None:
        check_limits(self)
        if self.at is not None and (not self.at or min(self.at) < 1):
            raise InputError(
                f"at: must be a list of numbers of tasks, each at least 1, such as [10, 50], not {self.at}"
            )

    def points(self, num_tasks: int) -> list[int]:
        """Returns the evaluation points of a run of `num_tasks` tasks, ascending. Numbers above
        `num_tasks` become `num_tasks`."""
        if self.at is None:
            round_numbers = [digit * 10**power for power in range(8) for digit in (1, 2, 5)]
            return [n for n in round_numbers if n < num_tasks] + [num_tasks]
        return sorted({n for n in self.at if n <= num_tasks} | ({num_tasks} if max(self.at) > num_tasks else set()))


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """The part of an experiment that only scenario NNs has: the order of the data, and the rules for allocating masks.

    stream: the settings for the order of the data. test: decides whether a segment needs a new mask. policy: what to do
    if a segment needs a new mask and `capacity` masks are in use. capacity: the budget of masks. schedule: the segments
    of each stream, in order.
    """

    stream: Stream
    test: AllocationTest
    policy: Literal["skip", "reuse", "reclaim"]
    capacity: int
    schedule: Schedule

    def identity(self) -> Node:
        """Returns everything that determines the decisions, apart from the masks. Content keys contain the result.

        For a single stream of order `blocks`, the result does not contain the number of segments. A longer stream of
        this kind begins with all segments of a shorter stream, so both streams lead to the same decisions about these
        segments.
        """
        whole_prefix = self.stream.order == "blocks" and self.stream.num_streams == 1
        return {
            "version": NNS_VERSION,
            "stream": identity_fields(self.stream),
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
    """One configuration with one seed.

    `build_experiment` creates experiments, and checks that their parts fit together. allocation: None except in
    scenario NNs. node: the whole configuration as plain values, including defaults.
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
        """The number of tasks to learn."""
        return self.benchmark.num_tasks

    def problem(self, device: str) -> Problem:
        """Returns the part of the experiment that its method receives. Tensors are created on `device`."""
        return Problem(
            self.net, self.benchmark.input_shape, self.benchmark.num_labels, self.training, self.seed, device
        )

    def training_identity(self) -> Node:
        """Returns everything that determines what a group learns, except the number of tasks.

        Content keys contain the result.
        """
        return self.mask_identity() | ({"nns": self.allocation.identity()} if self.allocation else {})

    def mask_identity(self) -> Node:
        """Returns everything that determines a trained mask, except its task and the tasks on which that task builds.

        Content keys contain the result.
        """
        net = _identity(NETS, self.net)
        net["weight_seed"] = self.seed if self.net.weight_seed is None else self.net.weight_seed
        method = _identity(METHODS, self.method)
        if (version := type(self.method).results_version) > 1:
            method["version"] = version
        source = self.benchmark.source()
        return {
            "net": net,
            "method": method,
            "benchmark": {**_identity(BENCHMARKS, self.benchmark), "num_tasks": None, **self.benchmark.identity()},
            "dataset": {"checksum": source.checksum(), "source": source_digest(type(source.original()))},
            "training": {
                **identity_fields(self.training),
                "source": source_digest(OPTIMIZERS[self.training.optimizer]),
            },
            "seed": self.seed,
        }


def _identity(registry: Registry[type[Any]], component: object) -> Node:
    """Returns a component's registered name and fields and, if its class is a user's own, the hash of the source."""
    cls = type(component)
    return {"name": registry.name_of(cls), **identity_fields(component), "source": source_digest(cls)}


def _fields_of(component: object) -> Node:
    """Returns the fields of a component, which must be a dataclass, as plain values."""
    assert is_dataclass(component)
    assert not isinstance(component, type)
    return asdict(component)


def build_component(registry: Registry[type[T]], node: Node, key: str) -> T:
    """Builds an object of the class that is registered as `node[key]["name"]`.

    The other values of `node[key]` become the object's fields. Raises InputError, whose text begins with the full key,
    if a name or field is unknown or a value is wrong.
    """
    if not isinstance(node[key], dict):
        raise InputError(f"{key}: must be a mapping with a name, such as {{name: {registry.names()[0]}}}")
    values = dict(node[key])
    name = values.pop("name", None)
    if not isinstance(name, str):
        raise InputError(f"{key}.name: is missing; choose one of: {', '.join(registry.names())}")
    with prefix_errors(f"{key}.name: "):
        cls = registry[name]
    return _build_section(cls, {key: values}, key)


def build_experiment(node: Node, seed: int, resolve: Callable[[Base], Base] = lambda base: base) -> Experiment:
    """Builds an Experiment from the plain values of EXPERIMENT_KEYS.

    resolve: a function that returns a dataset with the fields filled in that are read from the dataset's files (see
    Base.resolved).

    If the scenario gives the task identity at inference, the rule `known` replaces the inference section. Runs that
    differ only in the inference section are therefore equal, and are deduplicated.

    Raises InputError if the values contradict each other, and DatasetError if the dataset's files cannot be used.
    """
    with prefix_errors("scenario: "):
        row = scenario(str(node["scenario"]))
    benchmark = build_component(BENCHMARKS, node, "benchmark")
    with prefix_errors("benchmark.base: ", DatasetError):
        benchmark = benchmark.with_base(resolve(benchmark.source()))
    net = build_component(NETS, node, "net")
    method = build_component(METHODS, node, "method")
    inference = _build_inference(row, node)
    with prefix_errors("net: "):
        layers = net.layers(benchmark.input_shape)
        check_size(layers)
    with prefix_errors("method."):
        method.check(layers, benchmark.num_labels, benchmark.num_tasks)
    check(row, method, str(node["method"]["name"]), inference, net, benchmark.num_labels)
    training = _build_section(TrainingRecipe, node, "training")
    if training.batch_size == 1 and (net.norm_widths() or net.normalises_by_batch):
        raise InputError("training.batch_size: batch normalisation needs several images in a batch; set at least 2")
    allocation = None if row.given_in_training else _build_allocation(node, benchmark, net, training, seed)
    evaluation = _build_section(EvaluationConfig, node, "evaluation")
    plain: Node = {
        "scenario": row.name,
        **{key: {"name": node[key]["name"], **_fields_of(component)}
           for key, component in (("benchmark", benchmark), ("net", net), ("method", method))},
        "training": asdict(training), "inference": asdict(inference), "evaluation": asdict(evaluation),
    }  # fmt: skip
    if allocation is not None:
        plain["stream"] = asdict(allocation.stream)
        plain["allocation"] = {"name": node["allocation"]["name"], **_fields_of(allocation.test)}
        plain["budget"] = {"num_masks": allocation.capacity, "on_exhausted": allocation.policy}
    return Experiment(
        scenario=row, benchmark=benchmark, net=net, method=method, training=training, inference=inference,
        evaluation=evaluation, allocation=allocation, seed=seed, node=plain,
    )  # fmt: skip


def _build_inference(row: Scenario, node: Node) -> Inference:
    """Builds the inference section. An alias of an objective, such as `H`, is replaced by the registered name, so that
    both names give the same content key."""
    inference = _build_section(Inference, node, "inference")
    if row.given_at_inference:
        return Inference(rule="known", strict_images=0)
    return replace(inference, objective=OBJECTIVES.name_of(OBJECTIVES[inference.objective]))


def _build_allocation(node: Node, benchmark: Benchmark, net: Net, training: TrainingRecipe, seed: int) -> Allocation:
    """Builds the part of an experiment that only NNs has. Raises InputError if the values do not fit together."""
    num_tasks, num_batches = benchmark.num_tasks, training.num_batches
    stream = _build_section(Stream, node, "stream")
    if training.changes_rate:
        raise InputError(
            "training.schedule: in scenario NNs, the length of a mask's training is not known in advance; "
            "remove training.schedule and training.warmup_batches"
        )
    test = build_component(ALLOCATION_TESTS, node, "allocation")
    test = replace(test, objective=OBJECTIVES.name_of(OBJECTIVES[test.objective]))
    with prefix_errors("allocation."):
        check_objective(test.objective, (net.num_outputs, benchmark.num_labels))
    budget = _build_section(Budget, node, "budget")
    capacity = num_tasks if budget.num_masks is None else budget.num_masks
    if stream.num_streams > num_tasks:
        raise InputError(
            f"stream.num_streams: {stream.num_streams} streams need at least {stream.num_streams} tasks, but the "
            f"benchmark has {num_tasks}; lower stream.num_streams, or raise benchmark.num_tasks"
        )
    if test.images_per_decision > training.batch_size:
        raise InputError(
            f"allocation.images_per_decision: must be at most training.batch_size={training.batch_size}, not "
            f"{test.images_per_decision}, because a decision uses the images of one batch"
        )
    if capacity < stream.num_streams:
        raise InputError(
            f"budget.num_masks: {capacity} masks are too few for {stream.num_streams} streams; "
            f"set at least {stream.num_streams}, or lower stream.num_streams"
        )
    with prefix_errors("stream."):
        sequences = stream.sequences(num_tasks, num_batches, seed)
        schedule = Schedule(sequences, stream.segments_per_task(num_batches))
    return Allocation(stream=stream, test=test, policy=budget.on_exhausted, capacity=capacity, schedule=schedule)


def _build_section(cls: type[T], node: Node, key: str) -> T:
    """Builds a dataclass object from `node[key]`. Raises InputError, with the full key, if a value is wrong."""
    values = merge(cls, node[key], "", key)
    for name in field_names(cls):
        if name not in values:
            raise InputError(f"{key}.{name}: is missing; set this key")
    with prefix_errors(f"{key}."):
        return cls(**values)
