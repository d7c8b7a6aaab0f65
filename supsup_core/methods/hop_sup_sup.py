"""HopSupSup: masks on units, kept in a Hopfield network and recovered from it (paper, section 3.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from supsup_core.errors import CorruptError, InputError
from supsup_core.masks import Threshold, codec
from supsup_core.methods.base import METHODS, Dependence, Learned, Method, Problem, States
from supsup_core.methods.fitting import fit
from supsup_core.methods.hopfield_memory import Recovered, Recovery, sign, storkey
from supsup_core.methods.learners import Learner, Recalled
from supsup_core.methods.weights_learner import WeightsLearner
from supsup_core.nets.base import Layer, Objective
from supsup_core.tasks.base import Task
from supsup_core.training.checkpoint import NOWHERE, Checkpoint
from supsup_core.training.parametrizations import Fixed, Scored


class HopfieldLearner(WeightsLearner):
    """The frozen net under masks of its gates, and the memory that they make."""

    def __init__(self, problem: Problem, states: States, recovery: Recovery) -> None:
        super().__init__(problem, states)
        self._recovery = recovery
        self.recall_images = recovery.batch_size
        sizes = [layer.size for layer in problem.layers if layer.is_gate]
        self.patterns = [_pattern(state, sizes, problem) for state in states]
        """Each task's stored patterns, -1 and +1, one (d,) a gated layer."""
        self._memories: list[Tensor] | None = None

    def _under(self, gates: Sequence[Tensor]) -> list[Tensor]:
        left = iter(gates)
        layers = zip(self._problem.layers, self._problem.weights, strict=True)
        return [next(left).view(layer.shape) if layer.is_gate else weight for layer, weight in layers]

    def weights(self, mask: int) -> list[Tensor]:
        return self._under([(z + 1) / 2 for z in self.patterns[mask]])

    def answers(self, x: Tensor, patterns: Sequence[Tensor]) -> Tensor:
        """Labels (batch,) of images under patterns, stored or not."""
        weights = self._under([(z + 1) / 2 for z in patterns])
        logits = self._problem.net.forward(weights, x.to(self._problem.device))
        return logits[:, : self.num_labels].argmax(1).to(x.device)

    @property
    def memories(self) -> list[Tensor]:
        """One (d, d) matrix a gated layer: the patterns of all tasks, stored in order."""
        if self._memories is None:
            self._memories = []
            for column in zip(*self.patterns, strict=True):
                memory = torch.zeros(len(column[0]), len(column[0]), device=column[0].device)
                for z in column:
                    memory = storkey(memory, z)
                self._memories.append(memory)
        return self._memories

    def recovered(self, x: Tensor, objective: Objective) -> Recovered:
        """The pattern that images x of one task lead to from the mean of all that are stored."""
        start = [torch.stack(column).mean(0) for column in zip(*self.patterns, strict=True)]

        def objective_of(z: Sequence[Tensor], images: Tensor) -> Tensor:
            logits = self._problem.net.forward(self._under([(part + 1) / 2 for part in z]), images)
            return objective(logits, self.num_labels)

        images = x.to(self._problem.device)
        return self._recovery.recover(self.memories, start, self.num_masks, objective_of, images)

    def distances(self, patterns: Sequence[Tensor]) -> list[int]:
        """In how many units the signs of patterns differ from each task's."""
        found = [sign(part) for part in patterns]
        return [sum(int((a != b).sum()) for a, b in zip(stored, found, strict=True)) for stored in self.patterns]

    def recall(self, x: Tensor, objective: Objective) -> Recalled:
        recovered = self.recovered(x, objective)
        distances = torch.tensor([self.distances(z) for z in recovered.path])
        return Recalled(lambda images: self.answers(images, recovered.pattern), distances)


def _pattern(state: Mapping[str, Tensor], sizes: Sequence[int], problem: Problem) -> list[Tensor]:
    if "mask" not in state:
        raise CorruptError("what is stored of a task has no mask")
    bits, size = codec.decode(state["mask"].numpy().tobytes())
    if size != sum(sizes):
        raise CorruptError(f"a mask of {size} units does not fit a net of {sum(sizes)} gates")
    flat = torch.from_numpy(codec.unpack(bits, size).astype(np.float32)).to(problem.device)
    return list(torch.split(2 * flat - 1, list(sizes)))


@METHODS.register("hop_sup_sup")
@dataclass(frozen=True, kw_only=True)
class HopSupSup(Method):
    """One binary mask a task over the units of frozen layers, found from scores that start at zero.

    With an unknown task, `inference.rule=hopfield` recovers the mask from a Hopfield network that stores all, by up to
    `recovery_tries` descents that `recovery_descent`, `gamma`, `recovery_rate`, `recovery_batch` and `recovery_steps`
    describe (see inference.hopfield.Recovery), and answers with what it has recovered. Needs a net with gates, such as
    hopfield_mlp.
    """

    scenarios: ClassVar[frozenset[str]] = frozenset({"GG", "GNs", "GNu"})
    superposes: ClassVar[bool] = False

    gamma: float = 1.5e-3
    recovery_rate: float = 500.0
    recovery_batch: int = 64
    recovery_steps: int = 30
    recovery_descent: Literal["memory", "paper"] = "memory"
    recovery_tries: int = 3

    def __post_init__(self) -> None:
        try:
            self.recovery()
        except InputError as error:
            raise InputError(f"recovery: {error}") from error

    def recovery(self) -> Recovery:
        """The descent."""
        return Recovery(
            gamma=self.gamma, learning_rate=self.recovery_rate, batch_size=self.recovery_batch,
            num_steps=self.recovery_steps, descent=self.recovery_descent, tries=self.recovery_tries,
        )  # fmt: skip

    @property
    def recall_images(self) -> int:
        return self.recovery_batch

    @property
    def dependence(self) -> Dependence:
        return Dependence.INDEPENDENT

    def check(self, layers: Sequence[Layer], num_labels: int, num_tasks: int) -> None:
        if not any(layer.is_gate for layer in layers):
            raise InputError("name: hop_sup_sup masks units; take a net with gates, such as net.name=hopfield_mlp")

    def learn(self, problem: Problem, index: int, task: Task, parents: States, keep: Checkpoint = NOWHERE) -> Learned:
        scores = [
            torch.zeros_like(w) for w, layer in zip(problem.weights, problem.layers, strict=True) if layer.is_gate
        ]
        left = iter(scores)
        layers = [
            Scored(weight, next(left), Threshold()) if layer.is_gate else Fixed(weight)
            for layer, weight in zip(problem.layers, problem.weights, strict=True)
        ]
        fitted = fit(problem, index, task, keep, layers)
        bits = np.concatenate([(part >= 0).flatten().cpu().numpy() for part in scores])
        blob = codec.encode(codec.pack(bits), bits.size, [part.numel() for part in scores])
        return fitted.learned({"mask": torch.frombuffer(bytearray(blob), dtype=torch.uint8)})

    def learner(self, problem: Problem, states: States) -> Learner:
        return HopfieldLearner(problem, states, self.recovery())
