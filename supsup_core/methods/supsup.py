"""SupSup: one mask per task over one frozen random network (paper, section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from supsup_core.benchmarks.base import Task
from supsup_core.errors import CorruptError, InputError
from supsup_core.masks import MaskBank, MaskRule, Threshold, TopK, codec, draw_scores
from supsup_core.methods.base import METHODS, Dependence, Learned, Learner, Method, Problem, Trainee, WeightsLearner
from supsup_core.nets.base import Objective
from supsup_core.parametrizations import Scored
from supsup_core.training import NUM_POINTS, LossCurve, Step, batch_order, train

_GRADIENT_BYTES = 256 << 20
"""Bytes of gradients held at a time when many decisions are taken together."""


class SupSupLearner(WeightsLearner):
    """The frozen net under a bank of masks."""

    def __init__(self, problem: Problem, bank: MaskBank) -> None:
        super().__init__(problem, bank.num_masks)
        self._bank = bank

    def _masked(self, mask: Sequence[Tensor]) -> list[Tensor]:
        weights = self._problem.weights
        return [w * m.to(w.device) for w, m in zip(weights, mask, strict=True)]

    def weights(self, mask: int) -> list[Tensor]:
        return self._masked(self._bank.mask(mask))

    def alpha_gradients(self, x: Tensor, subset: Tensor | None, objective: Objective) -> Tensor:
        mean = self._masked(self._bank.mean() if subset is None else self._bank.subset_mean(subset))
        problem = self._problem
        at_once = max(1, _GRADIENT_BYTES // (4 * self._bank.size))
        columns = []
        for decisions in torch.split(x.to(problem.device), at_once):
            gradients = problem.net.decision_gradients(mean, decisions, objective, problem.num_labels)
            slopes = [(g * w).flatten(1) for g, w in zip(gradients, problem.weights, strict=True)]
            columns.append(self._bank.products(torch.cat(slopes, 1).cpu(), subset))
        return torch.cat(columns)


class ScoreTrainee(Trainee):
    """The scores of one mask, and their optimiser."""

    def __init__(self, problem: Problem, index: int, rule: MaskRule) -> None:
        self._rule = rule
        self._scores = [s.to(problem.device) for s in draw_scores(problem.layers, problem.seed, index)]
        layers = [Scored(w, s, rule) for w, s in zip(problem.weights, self._scores, strict=True)]
        self._step = Step(layers, problem.recipe, problem.net.loss_gradients)

    def train(self, task: Task, order: Tensor, num_points: int = NUM_POINTS) -> LossCurve:
        return train(task, order, self._step, num_points)

    @property
    def state(self) -> dict[str, Tensor]:
        return self._step.state

    def learned(self) -> dict[str, Tensor]:
        kept = [self._rule.mask(s, torch.empty_like(s)).flatten().bool().cpu().numpy() for s in self._scores]
        bits = np.concatenate(kept)
        blob = codec.encode(codec.pack(bits), bits.size)
        return {"mask": torch.frombuffer(bytearray(blob), dtype=torch.uint8)}


@METHODS.register("supsup")
@dataclass(frozen=True, kw_only=True)
class SupSup(Method):
    """One binary mask a task, found by edge-popup.

    `mask`: `threshold` keeps score >= 0; `top_k` keeps exactly the share `density` of each layer, ranked
    by |score| (`rank: abs`) or by the raw score (`rank: raw`).
    """

    scenarios: ClassVar[frozenset[str]] = frozenset({"GG", "GNs", "GNu", "NNs"})
    superposes: ClassVar[bool] = True

    mask: Literal["threshold", "top_k"] = "threshold"
    density: float = 0.5
    rank: Literal["abs", "raw"] = "abs"

    def __post_init__(self) -> None:
        rule = TopK(self.density, self.rank == "abs")
        if self.mask == "threshold" and rule != TopK(0.5, True):
            raise InputError("density, rank: only method.mask=top_k uses them; set it, or leave them out")

    @property
    def dependence(self) -> Dependence:
        return Dependence.INDEPENDENT

    def mask_rule(self) -> MaskRule:
        """The rule that turns scores into a mask."""
        return Threshold() if self.mask == "threshold" else TopK(self.density, self.rank == "abs")

    def begin(self, problem: Problem, index: int) -> Trainee:
        return ScoreTrainee(problem, index, self.mask_rule())

    def learn(self, problem: Problem, index: int, task: Task, parents: Sequence[Mapping[str, Tensor]]) -> Learned:
        trainee = self.begin(problem, index)
        order = batch_order(problem.recipe, task, problem.order_seed(index))
        return Learned(curve=trainee.train(task, order), state=trainee.learned())

    def learner(self, problem: Problem, states: Sequence[Mapping[str, Tensor]]) -> Learner:
        bank = MaskBank(problem.layers)
        for state in states:
            bits, size = codec.decode(state["mask"].numpy().tobytes())
            if size != bank.size:
                raise CorruptError(f"a mask of {size} weights does not fit a net of {bank.size}")
            bank.add(bits)
        return SupSupLearner(problem, bank)
