"""A worker's part in NNs: slopes for decisions, and masks trained segment by segment."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from orchestrator.nns.mask_versions import Version
from orchestrator.records.artifact_store import ArtifactStore, CorruptArtifactError
from orchestrator.records.learned_tensors import LEARNED, TRAINING
from orchestrator.spec.experiment import Experiment
from supsup_core.datasets import Dataset
from supsup_core.inference import OBJECTIVES
from supsup_core.methods import Problem, Trainee
from supsup_core.tasks import Task
from supsup_core.training.loop import batch_order

_ORDERS = 8
"""Tasks whose batch orders are kept; each is a megabyte for a thousand batches."""


@dataclass
class _Held:
    """A mask in memory, as of version `key`. `saved`: that version is on disk. `loss`: of its last segment."""

    key: str
    trainee: Trainee
    num_bytes: int
    saved: bool
    loss: float


class MaskTrainer:
    """Trains masks of one experiment, keeping those it used last in memory, up to `limit` bytes, others on disk.

    What it holds is only a cache: any version can be had again from the store and its segments.
    """

    def __init__(
        self, experiment: Experiment, problem: Problem, dataset: Dataset, versions: ArtifactStore, limit: int
    ) -> None:
        assert experiment.allocation is not None
        self._experiment = experiment
        self._allocation = experiment.allocation
        self._problem = problem
        self._dataset = dataset
        self._versions = versions
        self._limit = limit
        self._held: OrderedDict[int, _Held] = OrderedDict()
        self._evicted: list[str] = []
        self._tasks: OrderedDict[int, tuple[Task, Tensor]] = OrderedDict()

    def _segment(self, task: int, index: int) -> tuple[Task, Tensor]:
        """A task and the order of one segment's batches, (segment_batches, batch_size)."""
        if task not in self._tasks:
            made = self._experiment.benchmark.task(task, self._dataset, self._experiment.seed)
            self._tasks[task] = (made, batch_order(self._problem.recipe, made, self._problem.order_seed(task)))
            if len(self._tasks) > _ORDERS:
                self._tasks.popitem(last=False)
        self._tasks.move_to_end(task)
        found, order = self._tasks[task]
        length = self._allocation.stream.segment_batches
        return found, order[index * length : (index + 1) * length]

    def steepness(self, superposition: Tensor, task: int, index: int) -> Tensor:
        """-d objective / dW * W, flat (n,), at a superposition of masks (n,), on a segment's first images."""
        problem, test = self._problem, self._allocation.test
        found, order = self._segment(task, index)
        x, _ = found.train_batch(order[0, : test.images_per_decision])
        pieces = torch.split(superposition.to(problem.device), [layer.size for layer in problem.layers])
        means = [piece.view(w.shape) * w for piece, w in zip(pieces, problem.weights, strict=True)]
        (gradients,) = problem.net.decision_gradients(
            means, x[None].to(problem.device), OBJECTIVES[test.objective], problem.num_labels
        )
        return torch.cat([-(g * w).flatten() for g, w in zip(gradients, problem.weights, strict=True)]).cpu()

    def advance(self, version: Version) -> tuple[Tensor, float, float]:
        """Bring a mask to a version: its mask blob, the mean loss of the last segment, and seconds of training."""
        held, seconds = self._bring(version)
        return held.trainee.learned()["mask"], held.loss, seconds

    def save(self, version: Version) -> int:
        """Have a version on disk; the bytes that were written for it, 0 if it was there."""
        if self._versions.has(version["key"]):
            self._note_saved(version)
            return 0
        held, _ = self._bring(version)
        return self._write(held)

    def _note_saved(self, version: Version) -> None:
        held = self._held.get(version["mask"])
        if held is not None and held.key == version["key"]:
            held.saved = True

    def _bring(self, version: Version) -> tuple[_Held, float]:
        number, keys = version["mask"], version["keys"]
        held = self._held.pop(number, None)  # put back whole, or not at all
        if held is not None and held.key in (version["key"], version["base"], *keys):
            start = keys.index(held.key) + 1 if held.key in keys else 0
        else:
            held, start = self._load_latest(version)
        started = time.perf_counter()
        for (task, index), key in zip(version["segments"][start:], keys[start:], strict=True):
            found, order = self._segment(task, index)
            held.loss = held.trainee.train(found, order, num_points=1).losses[-1]
            held.key, held.saved = key, False
        seconds = time.perf_counter() - started
        self._held[number] = held
        self._make_room()
        return held, seconds

    def _load_latest(self, version: Version) -> tuple[_Held, int]:
        """A mask as of the latest stored version on the way to one, and how many of its segments that has seen."""
        keys = version["keys"]
        for done in range(len(keys), 0, -1):
            if self._versions.has(keys[done - 1]):
                try:
                    return self._load(version["mask"], keys[done - 1]), done
                except CorruptArtifactError:
                    continue  # nothing is lost: it is on the way, and passed again
        return self._load(version["mask"], version["base"]), 0

    def _load(self, number: int, base: str | None) -> _Held:
        """A mask as of a stored version, or fresh."""
        trainee = self._experiment.method.begin(self._problem, number)
        loss = 0.0
        if base is not None:
            kept = self._versions.require(base)
            loss = kept.facts["loss"]
            trainee.restore({n.removeprefix(TRAINING): t for n, t in kept.tensors.items() if n.startswith(TRAINING)})
        # beside its state, a trainee has working memory of about the same size
        num_bytes = 2 * sum(tensor.nbytes for tensor in trainee.state.values())
        return _Held(base or "", trainee, num_bytes, base is not None, loss)

    def _make_room(self) -> None:
        while len(self._held) > 1 and sum(held.num_bytes for held in self._held.values()) > self._limit:
            _, evicted = self._held.popitem(last=False)
            if not evicted.saved:
                self._write(evicted)
                self._evicted.append(evicted.key)

    def take_evicted(self) -> list[str]:
        """The versions written since the last call only to make room."""
        found, self._evicted = self._evicted, []
        return found

    def _write(self, held: _Held) -> int:
        tensors = {f"{TRAINING}{name}": tensor.cpu() for name, tensor in held.trainee.state.items()}
        tensors |= {f"{LEARNED}{name}": tensor for name, tensor in held.trainee.learned().items()}
        written = self._versions.put(held.key, tensors, {"kind": "version", "loss": held.loss})
        held.saved = True
        return written.num_bytes
