"""The work of a worker in scenario NNs: computing decision vectors, and training masks segment by segment."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from orchestrator.base import failpoints
from orchestrator.coordination.messages import AdvancedMask, DecisionVector, MaskVersion
from orchestrator.records.artifact_format import CorruptArtifactError
from orchestrator.records.artifact_store import ArtifactStore
from orchestrator.records.facts import MaskVersionFacts, provenance_of
from orchestrator.records.learned_tensors import LEARNED, TRAINING
from orchestrator.records.machine_kind import MachineKind, Machines, Provenance, check_weights, joined
from orchestrator.spec.experiment import Experiment
from supsup_core.datasets import Dataset
from supsup_core.inference import OBJECTIVES
from supsup_core.methods import Problem, Trainee
from supsup_core.tasks import Task
from supsup_core.training.loop import batch_order

_NUM_CACHED_ORDERS = 8
"""An LRU cache keeps the batch orders of this number of tasks. A batch order takes about 1 MB per thousand batches."""


@dataclass
class _CachedMask:
    """A mask in memory. `key`: the key of its current version, or "" for an untrained mask.

    `num_bytes`: the memory that the mask takes. `saved`: whether the current version is on disk. `loss`: the mean
    training loss over the mask's last segment. `machines`: the kinds of the machines that trained the mask.
    """

    key: str
    trainee: Trainee
    num_bytes: int
    saved: bool
    loss: float
    machines: Machines


@dataclass(frozen=True)
class SegmentTraining:
    """A mask and the segment that it is trained on next, as an argument of a failpoint (see `base.failpoints`).

    `order`: the image indices of the segment, (segment_batches, batch_size).
    """

    trainee: Trainee
    task: Task
    order: Tensor


@final
class MaskTrainer:
    """Trains the masks of one experiment. Keeps masks in an LRU cache of `limit` bytes, but always at least one mask.

    Writes evicted masks to disk. A crash loses only time, because any version can be retrained from an earlier stored
    version, or from the start. Methods that train raise CorruptArtifactError if the version to start from is missing or
    corrupt, and DivergedError if the loss becomes NaN or infinite. Methods that train raise SupSupError if the version
    to start from belongs to other frozen weights.
    """

    def __init__(
        self,
        experiment: Experiment,
        problem: Problem,
        dataset: Dataset,
        here: Provenance,
        versions: ArtifactStore,
        limit: int,
    ) -> None:
        """here: the provenance of this process."""
        assert experiment.allocation is not None
        self._experiment = experiment
        self._allocation = experiment.allocation
        self._problem = problem
        self._dataset = dataset
        self._here = here
        self._machines: set[MachineKind] = set()
        self._versions = versions
        self._limit = limit
        self._cache: OrderedDict[int, _CachedMask] = OrderedDict()
        self._evicted: list[str] = []
        self._tasks: OrderedDict[int, tuple[Task, Tensor]] = OrderedDict()

    def _segment(self, task: int, index: int) -> tuple[Task, Tensor]:
        """Returns a task, and the image indices of segment `index` of this task, (segment_batches, batch_size)."""
        if task not in self._tasks:
            made = self._experiment.benchmark.task(task, self._dataset, self._experiment.seed)
            self._tasks[task] = (made, batch_order(self._problem.recipe, made, self._problem.order_seed(task)))
            if len(self._tasks) > _NUM_CACHED_ORDERS:
                self._tasks.popitem(last=False)
        self._tasks.move_to_end(task)
        found, order = self._tasks[task]
        length = self._allocation.stream.segment_batches
        return found, order[index * length : (index + 1) * length]

    def decision_vector(self, superposition: Tensor, task: int, index: int) -> DecisionVector:
        """Returns -d objective / dW * W, flattened to (n,), on the first `images_per_decision` images of a segment.

        superposition: the mean of all masks, (n,). The gradient is computed at the frozen weights times
        `superposition`. task, index: the segment's task, and the segment's index within the task.
        """
        started = time.perf_counter()
        problem, test = self._problem, self._allocation.test
        found, order = self._segment(task, index)
        x, _ = found.train_batch(order[0, : test.images_per_decision])
        pieces = torch.split(superposition.to(problem.device), [layer.size for layer in problem.layers])
        means = [piece.view(w.shape) * w for piece, w in zip(pieces, problem.weights, strict=True)]
        (gradients,) = problem.net.decision_gradients(
            means, x[None].to(problem.device), OBJECTIVES[test.objective], problem.num_labels
        )
        vector = torch.cat([-(g * w).flatten() for g, w in zip(gradients, problem.weights, strict=True)]).cpu()
        return DecisionVector(vector.numpy(), time.perf_counter() - started)

    def advance(self, version: MaskVersion) -> AdvancedMask:
        """Trains one mask up to the given version. Returns the mask, its loss, and the training time in seconds."""
        cached, seconds = self._bring(version)
        return AdvancedMask(cached.trainee.learned()["mask"].numpy().tobytes(), cached.loss, seconds)

    def save(self, version: MaskVersion) -> int:
        """Writes a mask version to disk. If necessary, first trains the mask up to this version.

        Returns the number of bytes written, or 0 if the version was already on disk.
        """
        if self._versions.has(version.key):
            cached = self._cache.get(version.mask)
            if cached is not None and cached.key == version.key:
                cached.saved = True
            return 0
        cached, _ = self._bring(version)
        return self._write(cached)

    def _bring(self, version: MaskVersion) -> tuple[_CachedMask, float]:
        """Brings the mask in memory to the given version, by loading and training if necessary.

        Returns the mask, and the training time in seconds.
        """
        keys = version.keys
        cached = self._cache.pop(version.mask, None)  # after an exception, the cache holds no half-trained mask
        if cached is not None and cached.key in (version.key, version.base, *keys):
            start = keys.index(cached.key) + 1 if cached.key in keys else 0
        else:
            cached, start = self._load_latest(version)
        started = time.perf_counter()
        for (task, index), key in zip(version.segments[start:], keys[start:], strict=True):
            found, order = self._segment(task, index)
            failpoints.reach("segment_begins", SegmentTraining(cached.trainee, found, order))
            cached.loss = cached.trainee.train(found, order, num_points=1).losses[-1]
            cached.key, cached.saved = key, False
            cached.machines = joined(cached.machines, self._here.machines)
        seconds = time.perf_counter() - started
        self._cache[version.mask] = cached
        self._machines.update(cached.machines)
        self._evict()
        return cached, seconds

    def _load_latest(self, version: MaskVersion) -> tuple[_CachedMask, int]:
        """Loads the latest stored version from which the given version can be trained.

        Returns the mask, and the number of `version.segments` on which the loaded mask is already trained.
        """
        keys = version.keys
        for done in range(len(keys), 0, -1):
            if self._versions.has(keys[done - 1]):
                try:
                    return self._load(version.mask, keys[done - 1]), done
                except CorruptArtifactError:
                    continue  # the corrupt version is retrained from an earlier one
        return self._load(version.mask, version.base), 0

    def _load(self, number: int, base: str | None) -> _CachedMask:
        """Returns mask `number` at the stored version with the key `base`. If `base` is None, the mask is untrained."""
        trainee = self._experiment.method.begin(self._problem, number)
        loss, machines = 0.0, Machines()
        if base is not None:
            stored = self._versions.require(base)
            assert isinstance(stored.facts, MaskVersionFacts)
            check_weights(self._versions.path(base), provenance_of(stored.facts), self._here)
            loss, machines = stored.facts.loss, stored.facts.machines
            state = {n.removeprefix(TRAINING): t for n, t in stored.tensors.items() if n.startswith(TRAINING)}
            trainee.restore(state)
        # a trainee's working memory is about as large as its state
        num_bytes = 2 * sum(tensor.nbytes for tensor in trainee.state.values())
        return _CachedMask(base or "", trainee, num_bytes, base is not None, loss, machines)

    def _evict(self) -> None:
        while len(self._cache) > 1 and sum(cached.num_bytes for cached in self._cache.values()) > self._limit:
            _, evicted = self._cache.popitem(last=False)
            if not evicted.saved:
                self._write(evicted)
                self._evicted.append(evicted.key)

    def take_evicted(self) -> tuple[str, ...]:
        """Returns the keys of the versions that were evicted and written to disk since the last call."""
        found, self._evicted = tuple(self._evicted), []
        return found

    def take_provenance(self) -> Provenance:
        """Returns the provenance of what this trainer has computed since the last call."""
        found, self._machines = self._here.with_machines(self._machines), set()
        return found

    def _write(self, cached: _CachedMask) -> int:
        tensors = {f"{TRAINING}{name}": tensor.cpu() for name, tensor in cached.trainee.state.items()}
        tensors |= {f"{LEARNED}{name}": tensor for name, tensor in cached.trainee.learned().items()}
        facts = MaskVersionFacts(cached.loss, cached.machines, self._here.weights_sha256)
        written = self._versions.put(cached.key, tensors, facts)
        cached.saved = True
        return written.num_bytes
