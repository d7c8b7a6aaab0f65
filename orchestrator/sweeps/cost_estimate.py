"""What a plan will cost, from what was measured: earlier shards of the same group, or a few real batches."""

from __future__ import annotations

import contextlib
import json
import math
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from orchestrator.base import environment
from orchestrator.base.files import write_atomically
from orchestrator.base.keys import content_key
from orchestrator.records.group_state import GroupState
from orchestrator.spec.experiment import Experiment
from orchestrator.sweeps.training_groups import Group
from supsup_core import RECIPE_VERSION
from supsup_core.datasets.download import user_cache
from supsup_core.methods import SHARED
from supsup_core.tasks import Task

_TIMED_BATCHES = 12
_TIMED_SECONDS = 3.0
"""Batches that are timed, at most, and about how long they may take together."""

_PROCESS_BYTES = 450 << 20
"""Memory of a worker before it holds anything: Python, torch and Ray, measured."""

_STATE_BYTES = 8
"""Bytes a weight of what NNs keeps to go on with a mask: its score and the optimiser's mean square."""


_TIMED_FLOATS = 1 << 22
"""Pixels of a batch that is timed, about, at most: larger ones are timed in part, and scaled up."""

_NUM_NOISE = 2000
"""Images that the trial's task seems to have."""


@dataclass(frozen=True)
class Estimate:
    """What is left to spend: seconds of wall time on so many workers, bytes of disk, bytes of memory over them all."""

    seconds: float
    num_workers: int
    disk_bytes: int
    memory_bytes: int
    basis: str


class _Noise(Task):
    """One batch of noise, as often as it is asked for, under labels in turn."""

    def __init__(self, shape: tuple[int, ...], num_labels: int, batch_size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self._x = torch.zeros(batch_size, *shape).normal_(generator=generator)
        self._num_labels = num_labels
        self.num_train = self.num_test = max(_NUM_NOISE, num_labels, batch_size)

    def train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self._x[indices % len(self._x)], indices % self._num_labels

    test_batch = train_batch


@dataclass(frozen=True)
class Trial:
    """One task of an experiment's method on a few batches of noise.

    `per_batch`, `beside`: seconds of a training batch, and of all that is done beside them. `own`, `shared`: bytes of
    what is stored of it (see Learned).
    """

    per_batch: float
    beside: float
    own: int
    shared: int


_TRIALS: dict[str, Trial] = {}


def trial_of(experiment: Experiment) -> Trial:
    """The trial of an experiment, made once on a machine for all that differ in seed, length or data of one shape.

    Kept in the user's cache, so that only the first plan of its kind takes torch and the time.
    """
    identity = experiment.mask_identity()
    training = {**identity["training"], "num_batches": None}
    shape = [*experiment.benchmark.input_shape, experiment.benchmark.num_labels]
    net = {**identity["net"], "weight_seed": None}
    machine = [platform.node(), environment.processor(), environment.versions(), RECIPE_VERSION]
    key = content_key([net, identity["method"], training, shape, min(2, experiment.num_tasks), machine])
    if key not in _TRIALS:
        file = user_cache() / "trials" / f"{key}.json"
        _TRIALS[key] = _kept(file) or _keep(file, _tried(experiment))
    return _TRIALS[key]


def _kept(file: Path) -> Trial | None:
    """What an earlier plan found; None where none did, or the file is not what `_keep` writes."""
    try:
        node = json.loads(file.read_text())
        return Trial(float(node["per_batch"]), float(node["beside"]), int(node["own"]), int(node["shared"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _keep(file: Path, trial: Trial) -> Trial:
    """Keep it for later plans; where nothing can be written, they will time again."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(asdict(trial)).encode())
    return trial


def _tried(experiment: Experiment) -> Trial:
    """Learn a second task, if there is one, which builds on a first where the method does so."""
    torch.set_num_threads(1)
    asked = experiment.training.batch_size
    shape = experiment.benchmark.input_shape
    batch = min(asked, max(8, _TIMED_FLOATS // math.prod(shape)))
    task = _Noise(shape, experiment.benchmark.num_labels, batch)
    states: list[Mapping[str, Tensor]] = []

    def timed(index: int, num_batches: int) -> float:
        recipe = replace(
            experiment.training, num_batches=num_batches, batch_size=batch, schedule="constant", warmup_batches=0
        )
        problem = replace(experiment.problem("cpu"), recipe=recipe)
        parents = [states[parent] for parent in experiment.method.dependence.parents(index)]
        assert problem.weights
        started = time.perf_counter()
        state = experiment.method.learn(problem, index, task, parents).state
        elapsed = time.perf_counter() - started
        states[index:] = [state]
        return elapsed

    first = timed(0, 1)
    many = max(1, min(_TIMED_BATCHES, int(_TIMED_SECONDS / 2 / first)))
    last = min(1, experiment.num_tasks - 1)
    short, long = (min(timed(last, count) for _ in range(2)) for count in (1, 1 + many))
    per_batch = max(long - short, 0.0) / many
    shared = sum(tensor.nbytes for name, tensor in states[last].items() if name.startswith(SHARED))
    own = sum(tensor.nbytes for tensor in states[last].values()) - shared
    return Trial(per_batch * asked / batch, max(short - per_batch, 0.0), own, shared)


def estimate_group(group: Group, state: GroupState, left: tuple[int, int], num_workers: int) -> Estimate:
    """The cost of what is left of one group. left: shards and evaluations to do.

    Evaluations count by their measured mean, or as a tenth of a shard while none is known.
    """
    experiment, (total, _) = group.experiment, group.size
    found = trial_of(experiment)
    trained = state.shard_seconds()
    per_shard = fmean(trained) if trained else found.beside + experiment.training.num_batches * found.per_batch
    basis = (
        f"the mean of {len(trained)} shards already trained"
        if trained
        else "a few training batches timed on this machine"
    )
    measured = [row.event.seconds for row in state.evaluated.values() if row.event.seconds]
    per_evaluation = fmean(measured) if measured else per_shard / 10
    shards, evaluations = left
    num_weights = sum(layer.size for layer in experiment.problem("cpu").layers)
    bank = total * found.own + found.shared + 4 * num_weights
    gradients = 256 << 20 if not experiment.scenario.given_at_inference else 0
    source = experiment.benchmark.source()
    pixels = source.resident_images * math.prod(source.shape)
    kept = found.own + found.shared + 1024 + (0 if experiment.allocation is None else _STATE_BYTES * num_weights)
    training = shards * per_shard
    return Estimate(
        seconds=max(training / (group.width or num_workers), (training + evaluations * per_evaluation) / num_workers),
        num_workers=num_workers,
        disk_bytes=shards * kept + evaluations * 4096,
        memory_bytes=num_workers * (_PROCESS_BYTES + bank + gradients + pixels + 24 * num_weights),
        basis=basis,
    )
