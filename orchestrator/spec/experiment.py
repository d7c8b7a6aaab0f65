"""One experiment: its plain values checked as a whole, and made into the parts that it is computed by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeVar, cast

from omegaconf import OmegaConf

from orchestrator.spec.strict_merge import Node, check_finite, merge
from orchestrator.spec.user_modules import source_digest
from supsup_core.datasets import Base
from supsup_core.errors import InputError
from supsup_core.evaluation.protocol import Inference, check, check_objective
from supsup_core.inference import OBJECTIVES
from supsup_core.methods import METHODS, Method, Problem
from supsup_core.nets import NETS, Net
from supsup_core.nns.allocation_tests import ALLOCATION_TESTS, AllocationTest
from supsup_core.nns.allocator import NNS_VERSION, Budget
from supsup_core.nns.streams import Schedule, Stream
from supsup_core.registry import Registry
from supsup_core.scenarios import Scenario, scenario
from supsup_core.tasks import BENCHMARKS, Benchmark
from supsup_core.training.loop import TrainingRecipe
from supsup_core.training.optimizers import OPTIMIZERS

T = TypeVar("T")

NNS_KEYS = ("stream", "allocation", "budget")
"""Keys of the experiment that mean something only where no task identity is given in training."""

COMPONENTS = ("benchmark", "net", "method", "allocation")
"""Keys whose `name` says what other keys they have: another one takes the place of the whole."""

EXPERIMENT_KEYS = ("scenario", "benchmark", "net", "method", "training", "inference", "evaluation", *NNS_KEYS)
"""The keys that say what is computed; the others say how often, with what and where."""


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
            "dataset": {"checksum": source.checksum(), "source": source_digest(type(source.original()))},
            "training": {**asdict(self.training), "source": source_digest(OPTIMIZERS[self.training.optimizer])},
            "seed": self.seed,
        }


def _identity(registry: Registry[type[Any]], component: Any) -> Node:
    """A component's name, fields and, for a user's own class, its source."""
    cls = type(component)
    return {"name": registry.name_of(cls), **asdict(component), "source": source_digest(cls)}


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
    if training.batch_size == 1 and (net.norm_widths() or net.normalises_by_batch):
        raise InputError("training.batch_size: batch normalisation needs several images; set at least 2")
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
    merged = merge(cls, OmegaConf.create(node[key]), "", key)
    check_finite(OmegaConf.to_container(merged), "", key)
    return _keyed(key, ".", lambda: cls(**cast(Any, OmegaConf.to_container(merged))))


def _keyed(key: str, joint: str, make: Callable[[], T]) -> T:
    """`make()`, with the key put before the text of an InputError."""
    try:
        return make()
    except InputError as error:
        raise InputError(f"{key}{joint}{error}") from error
