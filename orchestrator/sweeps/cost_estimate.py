"""Estimates the cost of a plan, from shards that are already trained or from a few batches timed on this machine."""

from __future__ import annotations

import contextlib
import math
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import fmean
from typing import final

import torch
from torch import Tensor

from orchestrator.base import environment
from orchestrator.base.files import write_atomically
from orchestrator.base.keys import content_key
from orchestrator.base.plain_values import from_node
from orchestrator.base.sealed_json import seal, unseal
from orchestrator.base.wording import count
from orchestrator.records.group_state import GroupState
from orchestrator.records.planned_group import GroupSize
from orchestrator.spec.experiment import Experiment
from orchestrator.sweeps.training_groups import Group
from supsup_core import RECIPE_VERSION
from supsup_core.datasets.download import user_cache
from supsup_core.errors import InputError
from supsup_core.methods import SHARED
from supsup_core.tasks import Task

_PROBE_BATCHES = 12
_PROBE_SECONDS = 3.0
"""The largest number of batches that a probe times, and approximately the longest time for these batches, in
seconds."""

_LONG_SECONDS = 0.5
"""If training on one batch takes at least this time, a probe measures it only once."""

_PROBE_FLOATS = 1 << 22
"""Approximately the largest number of pixel values in a timed batch. Instead of a larger batch, a batch of this size is
timed, and the time is scaled up."""

_NUM_NOISE = 2000
"""The minimum number of images of the noise task."""

_PROCESS_BYTES = 450 << 20
"""Bytes of memory of a worker without data (Python, torch and Ray), as measured."""

_NNS_STATE_BYTES = 8
"""Bytes per weight that NNs stores to resume a mask's training: 4 for the score, 4 for the optimiser's mean square."""

_EVALUATION_BYTES = 4096
"""Bytes on disk of one evaluation."""

_GRADIENT_BYTES = 256 << 20
"""Bytes of memory of the gradients that are computed to infer a task."""

_BYTES_PER_WEIGHT = 24
"""Bytes of memory per weight of a task in training."""

_BYTES_PER_INDEX = 16
"""Bytes of memory per position in the order of a task's training images, while this order is drawn."""


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of the remaining work.

    `seconds`: wall time with `num_workers` workers. `disk_bytes`: disk space of the results. `memory_bytes`: memory of
    all workers together. `basis`: how the times were estimated, in words.
    """

    seconds: float
    num_workers: int
    disk_bytes: int
    memory_bytes: int
    basis: str


@final
class _NoiseTask(Task):
    """A task whose images are one batch of noise, repeated, and whose labels cycle through all labels."""

    def __init__(self, shape: tuple[int, ...], num_labels: int, batch_size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self._x = torch.zeros(batch_size, *shape).normal_(generator=generator)
        self._num_labels = num_labels
        self.num_train = self.num_test = max(_NUM_NOISE, num_labels, batch_size)

    def train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self._x[indices % len(self._x)], indices % self._num_labels

    test_batch = train_batch


@dataclass(frozen=True)
class TimingProbe:
    """The cost of one task of an experiment, measured by training on a few batches of noise.

    `batch_seconds`: time of one training batch. `task_seconds`: time of a task apart from its batches. `shared_bytes`:
    size of the task's tensors that replace those of the previous task (see SHARED). `own_bytes`: size of the task's
    other tensors.
    """

    batch_seconds: float
    task_seconds: float
    own_bytes: int
    shared_bytes: int


_PROBES: dict[str, TimingProbe] = {}


def probe_of(experiment: Experiment) -> TimingProbe:
    """Returns the timing probe of an experiment. Measures the probe only if it is not cached.

    Two experiments share a probe if their net, method, training recipe, image shape and number of labels are equal.
    Their seeds, numbers of batches and learning rates may differ. Experiments with one task share no probe with
    experiments with several tasks. Probes are cached in memory and in the user's cache folder.
    """
    identity = experiment.mask_identity()
    training = {**identity["training"], "num_batches": None, "learning_rate": None}
    shape = [*experiment.benchmark.input_shape, experiment.benchmark.num_labels]
    net = {**identity["net"], "weight_seed": None}
    machine = [platform.node(), environment.processor(), environment.versions(), RECIPE_VERSION]
    key = content_key([net, identity["method"], training, shape, min(2, experiment.num_tasks), machine])
    if key not in _PROBES:
        file = user_cache() / "timings" / f"{key}.json"
        _PROBES[key] = _read_probe(file) or _write_probe(file, _measure(experiment))
    return _PROBES[key]


def _read_probe(file: Path) -> TimingProbe | None:
    """Reads a probe from the cache. Returns None if the file is missing or damaged."""
    try:
        node, _ = unseal(file.read_bytes(), [one.name for one in fields(TimingProbe)])
        return from_node(node, TimingProbe)
    except (OSError, ValueError):
        return None


def _write_probe(file: Path, probe: TimingProbe) -> TimingProbe:
    """Writes a probe to the cache and returns it. If writing fails, later plans measure the probe again."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, seal(asdict(probe)))
    return probe


def check_memory(experiment: Experiment) -> None:
    """Raises InputError if training one task of an experiment needs more memory than this machine has.

    Counts the weights, their scores, gradients and optimiser states, two batches, and the order of the images. The
    check allocates no tensor.
    """
    recipe, shape = experiment.training, experiment.benchmark.input_shape
    num_weights = sum(layer.size for layer in experiment.net.layers(shape))
    needed = _BYTES_PER_WEIGHT * num_weights + _BYTES_PER_INDEX * recipe.num_batches * recipe.batch_size
    needed += 2 * 4 * recipe.batch_size * math.prod(shape)
    room = environment.memory_bytes()
    if needed > room:
        raise InputError(
            f"net: training one task needs {needed / 1e9:.1f} GB of memory ({num_weights:,} weights, "
            f"{recipe.num_batches:,} batches of {recipe.batch_size:,} images), but this machine has "
            f"{room / 1e9:.1f} GB; lower net.num_outputs, net.width, training.batch_size or training.num_batches"
        )


def _measure(experiment: Experiment) -> TimingProbe:
    """Measures a probe by training the second task, or the first task if the experiment has only one task.

    The second task is typical of later tasks: if the method's tasks build on earlier tasks, the second builds on the
    first. The time of a batch is computed from the difference between the training times with one batch and with
    several. Sets torch to one thread.
    """
    torch.set_num_threads(1)
    check_memory(experiment)
    asked = experiment.training.batch_size
    shape = experiment.benchmark.input_shape
    batch = min(asked, max(8, _PROBE_FLOATS // math.prod(shape)))
    task = _NoiseTask(shape, experiment.benchmark.num_labels, batch)
    states: list[Mapping[str, Tensor]] = []

    def timed(index: int, num_batches: int) -> float:
        recipe = replace(
            experiment.training, num_batches=num_batches, batch_size=batch, schedule="constant", warmup_batches=0
        )
        problem = replace(experiment.problem("cpu"), recipe=recipe)
        parents = [states[parent] for parent in experiment.method.dependence.parents(index)]
        assert problem.weights  # draw the weights before the timer starts
        started = time.perf_counter()
        state = experiment.method.learn(problem, index, task, parents).state
        elapsed = time.perf_counter() - started
        states[index:] = [state]
        return elapsed

    first = timed(0, 1)
    many = max(1, min(_PROBE_BATCHES, int(_PROBE_SECONDS / 2 / first)))
    last = min(1, experiment.num_tasks - 1)
    repeats = 2 if first < _LONG_SECONDS else 1  # a long time varies less
    short, long = (min(timed(last, count) for _ in range(repeats)) for count in (1, 1 + many))
    batch_seconds = max(long - short, 0.0) / many
    shared = sum(tensor.nbytes for name, tensor in states[last].items() if name.startswith(SHARED))
    return TimingProbe(
        batch_seconds=batch_seconds * asked / batch,
        task_seconds=max(short - batch_seconds, 0.0),
        own_bytes=sum(tensor.nbytes for tensor in states[last].values()) - shared,
        shared_bytes=shared,
    )


def estimate_group(group: Group, state: GroupState, left: GroupSize, num_workers: int) -> Estimate:
    """Estimates the cost of the remaining work of one group.

    left: the numbers of shards and evaluations still to do. num_workers: how many workers the group gets. The time of
    an evaluation is the mean time of the group's evaluations so far. If the group has no evaluations yet, the time is a
    tenth of a shard's time.
    """
    experiment = group.experiment
    probe = probe_of(experiment)
    shard_seconds, evaluation_seconds, basis = _times(experiment, probe, state)
    num_weights = sum(layer.size for layer in experiment.problem("cpu").layers)
    artifact_bytes = probe.own_bytes + probe.shared_bytes + 1024
    if experiment.allocation is not None:
        artifact_bytes += _NNS_STATE_BYTES * num_weights
    training = left.shards * shard_seconds
    work = training + left.evaluations * evaluation_seconds
    return Estimate(
        seconds=max(training / (group.width or num_workers), work / num_workers),
        num_workers=num_workers,
        disk_bytes=left.shards * artifact_bytes + left.evaluations * _EVALUATION_BYTES,
        memory_bytes=num_workers * _worker_bytes(group, probe, num_weights),
        basis=basis,
    )


def _times(experiment: Experiment, probe: TimingProbe, state: GroupState) -> tuple[float, float, str]:
    """Returns the seconds of a shard, the seconds of an evaluation, and the basis of the estimate in words."""
    trained = state.shard_seconds()
    if trained:
        shard_seconds = fmean(trained)
        basis = f"from the mean time of {count(len(trained), 'shard')} already trained"
    else:
        shard_seconds = probe.task_seconds + experiment.training.num_batches * probe.batch_seconds
        basis = "from a few training batches timed on this machine"
    measured = [row.event.seconds for row in state.evaluated.values() if row.event.seconds]
    return shard_seconds, fmean(measured) if measured else shard_seconds / 10, basis


def _worker_bytes(group: Group, probe: TimingProbe, num_weights: int) -> int:
    """Returns one worker's memory in bytes: the process, all masks, gradients, the dataset, and a task in training."""
    experiment = group.experiment
    masks = group.size.shards * probe.own_bytes + probe.shared_bytes + 4 * num_weights
    gradients = 0 if experiment.scenario.given_at_inference else _GRADIENT_BYTES
    source = experiment.benchmark.source()
    pixels = source.resident_images * math.prod(source.shape)
    return _PROCESS_BYTES + masks + gradients + pixels + _BYTES_PER_WEIGHT * num_weights
