"""HopSupSup: masks on units, stored in a Hopfield network and recovered from it (paper, section 3.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor

from supsup_core.errors import CorruptError, InputError
from supsup_core.field_limits import MOST_IMAGES, MOST_RATE, check_limits, limited
from supsup_core.masks import Threshold, codec
from supsup_core.methods.base import METHODS, ChecksProblem, Dependence, HasMemory, Learned, Method, Problem, States
from supsup_core.methods.fitting import fit
from supsup_core.methods.hopfield_memory import Recovered, Recovery, sign, storkey, storkey_of_the_authors
from supsup_core.methods.learners import Recalled, RecallingLearner
from supsup_core.methods.weights_learner import WeightsLearner
from supsup_core.nets.base import Layer, Objective
from supsup_core.tasks.base import Task
from supsup_core.training.checkpoint import NOWHERE, Checkpoint
from supsup_core.training.parametrizations import Fixed, Scored

_ENTRY_BYTES = 4
"""Bytes of an entry of a Hopfield weight matrix, a float32 number."""


def _gated(problem: Problem, pattern: Sequence[Tensor]) -> list[Tensor]:
    """Returns the frozen weights, with the gates (z + 1) / 2.

    pattern: z, with values from -1 to +1, as one tensor (d,) for each gate layer of d units.
    """
    gates = iter([(z + 1) / 2 for z in pattern])
    layers = zip(problem.layers, problem.weights, strict=True)
    return [next(gates).view(layer.shape) if layer.is_gate else weight for layer, weight in layers]


@final
class HopfieldLearner(RecallingLearner):
    """Predicts labels with the frozen net, whose units a mask keeps or drops. A Hopfield network stores the masks."""

    def __init__(self, problem: Problem, states: States, recovery: Recovery) -> None:
        self._problem = problem
        self._recovery = recovery
        sizes = [layer.size for layer in problem.layers if layer.is_gate]
        patterns = [_pattern(state, sizes, problem) for state in states]
        self.patterns = patterns
        """The stored pattern of each task: one tensor (d,) of -1 and +1 for each gate layer."""
        self._memories: list[Tensor] | None = None
        self._single = WeightsLearner(problem, states, lambda mask: _gated(problem, patterns[mask]))
        self.num_masks, self.num_labels = len(states), problem.num_labels
        self.normalises_by_batch = problem.net.normalises_by_batch
        self.recall_images = recovery.batch_size

    def logits(self, x: Tensor, mask: int) -> Tensor:
        return self._single.logits(x, mask)

    def answers(self, x: Tensor, pattern: Sequence[Tensor]) -> Tensor:
        """Returns the labels (batch,) of images x under a pattern. The pattern need not be one of the stored
        patterns."""
        weights = _gated(self._problem, pattern)
        logits = self._problem.net.forward(weights, x.to(self._problem.device))
        return logits[:, : self.num_labels].argmax(1).to(x.device)

    @property
    def memories(self) -> list[Tensor]:
        """One Hopfield weight matrix (d, d) for each gate layer. The matrix stores one pattern for each task."""
        store = storkey_of_the_authors if self._recovery.descent == "paper" else storkey
        if self._memories is None:
            self._memories = []
            for column in zip(*self.patterns, strict=True):
                memory = torch.zeros(len(column[0]), len(column[0]), device=column[0].device)
                for z in column:
                    memory = store(memory, z)
                self._memories.append(memory)
        return self._memories

    def recovered(self, x: Tensor, objective: Objective) -> Recovered:
        """Recovers a pattern from images x of one task. The first descent starts at the mean of all stored patterns."""
        start = [torch.stack(column).mean(0) for column in zip(*self.patterns, strict=True)]

        def objective_of(z: Sequence[Tensor], images: Tensor) -> Tensor:
            logits = self._problem.net.forward(_gated(self._problem, z), images)
            return objective(logits, self.num_labels)

        images = x.to(self._problem.device)
        return self._recovery.recover(self.memories, start, self.num_masks, objective_of, images)

    def distances(self, pattern: Sequence[Tensor]) -> list[int]:
        """Returns, for each task, the Hamming distance from the task's stored pattern to the signs of `pattern`.

        The Hamming distance is the number of units in which the two differ.
        """
        found = [sign(part) for part in pattern]
        return [sum(int((a != b).sum()) for a, b in zip(stored, found, strict=True)) for stored in self.patterns]

    def recall(self, x: Tensor, objective: Objective) -> Recalled:
        recovered = self.recovered(x, objective)
        distances = torch.tensor([self.distances(z) for z in recovered.path])
        return Recalled(lambda images: self.answers(images, recovered.pattern), distances)


def _pattern(state: Mapping[str, Tensor], sizes: Sequence[int], problem: Problem) -> list[Tensor]:
    """Reads a task's stored mask, and returns its pattern: one tensor (d,) for each gate layer.

    sizes: the number of units d of each gate layer. Raises CorruptError if the mask is missing or does not fit the net.
    """
    if "mask" not in state:
        raise CorruptError("the stored state of a task has no mask")
    bits, size = codec.decode(state["mask"].numpy().tobytes())
    if size != sum(sizes):
        raise CorruptError(f"a mask of {size} units does not fit a net with {sum(sizes)} gates")
    flat = torch.from_numpy(codec.unpack(bits, size).astype(np.float32)).to(problem.device)
    return list(torch.split(2 * flat - 1, list(sizes)))


@final
@METHODS.register("hop_sup_sup")
@dataclass(frozen=True, kw_only=True)
class HopSupSup(Method, ChecksProblem, HasMemory):
    """Learns one binary mask for each task. The mask keeps or drops the units of frozen layers; its scores start at 0.

    If the task is unknown, `inference.rule=hopfield` recovers a mask from the Hopfield network that stores all masks,
    and predicts labels with the recovered mask. The settings of the recovery are `gamma`, `recovery_rate` (learning
    rate), `recovery_batch` (images per step), `recovery_steps`, `recovery_descent` and `recovery_tries` (see
    hopfield_memory.Recovery). The method needs a net with gates, such as hopfield_mlp.
    """

    scenarios: ClassVar[frozenset[str]] = frozenset({"GG", "GNs", "GNu"})
    superposes: ClassVar[bool] = False
    results_version: ClassVar[int] = 2

    gamma: float = limited(1.5e-3, most=MOST_RATE)
    recovery_rate: float = limited(500.0, most=MOST_RATE)
    recovery_batch: int = limited(64, most=MOST_IMAGES)
    recovery_steps: int = limited(30, most=10_000)
    recovery_descent: Literal["memory", "paper"] = "memory"
    recovery_tries: int = limited(3, most=1000)

    def __post_init__(self) -> None:
        check_limits(self)
        try:
            self.recovery()
        except InputError as error:
            raise InputError(f"recovery: {error}") from error

    def recovery(self) -> Recovery:
        """Returns a Recovery with the settings in the fields of this method."""
        return Recovery(
            gamma=self.gamma, learning_rate=self.recovery_rate, batch_size=self.recovery_batch,
            num_steps=self.recovery_steps, descent=self.recovery_descent, tries=self.recovery_tries,
        )  # fmt: skip

    @property
    def memory_batch(self) -> int:
        return self.recovery_batch

    def memory_bytes(self, layers: Sequence[Layer]) -> int:
        return sum(_ENTRY_BYTES * layer.size**2 for layer in layers if layer.is_gate)

    @property
    def dependence(self) -> Dependence:
        return Dependence.INDEPENDENT

    def check_problem(self, layers: Sequence[Layer], num_labels: int, num_tasks: int) -> None:
        if not any(layer.is_gate for layer in layers):
            raise InputError("name: hop_sup_sup needs a net with gates; set, for example, net.name=hopfield_mlp")

    def learn(self, problem: Problem, index: int, task: Task, parents: States, keep: Checkpoint = NOWHERE) -> Learned:
        scores = [
            torch.zeros_like(w) for w, layer in zip(problem.weights, problem.layers, strict=True) if layer.is_gate
        ]
        remaining = iter(scores)
        layers = [
            Scored(weight, next(remaining), Threshold()) if layer.is_gate else Fixed(weight)
            for layer, weight in zip(problem.layers, problem.weights, strict=True)
        ]
        fitted = fit(problem, index, task, keep, layers)
        bits = np.concatenate([(part >= 0).flatten().cpu().numpy() for part in scores])
        blob = codec.encode(codec.pack(bits), bits.size, [part.numel() for part in scores])
        return fitted.learned({"mask": torch.frombuffer(bytearray(blob), dtype=torch.uint8)})

    def learner(self, problem: Problem, states: States) -> HopfieldLearner:
        return HopfieldLearner(problem, states, self.recovery())
