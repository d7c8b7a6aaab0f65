"""Piggyback: a mask and a head a task over a trained backbone (Mallya et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from supsup_core.benchmarks.base import Task
from supsup_core.errors import InputError
from supsup_core.masks import Threshold, codec
from supsup_core.methods.base import (
    METHODS,
    Dependence,
    Learned,
    Learner,
    Method,
    Problem,
    States,
    WeightsLearner,
    fit,
    fresh_weights,
    named,
    taken,
)
from supsup_core.methods.bounds import fresh_head
from supsup_core.parametrizations import Dense, Scored
from supsup_core.training import NOWHERE, Checkpoint

INITIAL_SCORE, THRESHOLD = 1e-2, 5e-3
"""Every score starts at the first; a weight is kept while its score is at least the second."""


class PiggybackLearner(WeightsLearner):
    """The backbone for the first task, the backbone under a mask for every other."""

    def __init__(self, problem: Problem, states: States) -> None:
        super().__init__(problem, states)
        self._layers = problem.layers[:-1]
        self._backbone = taken(states[0], "backbone.", problem, self._layers)
        self._heads = [taken(state, "head.", problem, problem.layers[-1:]) for state in states]
        self._masks = [state.get("mask") for state in states]

    def weights(self, mask: int) -> list[Tensor]:
        blob = self._masks[mask]
        if blob is None:
            return self._backbone + self._heads[mask]
        bits, size = codec.decode(blob.numpy().tobytes())
        flat = torch.from_numpy(codec.unpack(bits, size).astype(np.float32)).to(self._problem.device)
        kept = torch.split(flat, [layer.size for layer in self._layers])
        return [w * m.view(w.shape) for w, m in zip(self._backbone, kept, strict=True)] + self._heads[mask]


@METHODS.register("piggyback")
@dataclass(frozen=True, kw_only=True)
class Piggyback(Method):
    """The first task trains the backbone; every other finds a mask over it, and trains a head of its own.

    `mask_learning_rate`: of the scores and the heads; the recipe's trains the backbone.
    """

    scenarios: ClassVar[frozenset[str]] = frozenset({"GG"})
    superposes: ClassVar[bool] = False

    mask_learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        if not self.mask_learning_rate > 0:
            raise InputError(f"mask_learning_rate: must be positive, not {self.mask_learning_rate}")

    @property
    def dependence(self) -> Dependence:
        return Dependence.AFTER_FIRST

    def learn(self, problem: Problem, index: int, task: Task, parents: States, keep: Checkpoint = NOWHERE) -> Learned:
        layers, last = problem.layers[:-1], problem.layers[-1:]
        head = fresh_head(problem, index)
        if not parents:
            backbone = fresh_weights(problem)[:-1]
            fitted = fit(problem, index, task, keep, [Dense(weight) for weight in backbone + head])
            return fitted.learned({**named("backbone.", layers, backbone), **named("head.", last, head)})
        backbone = taken(parents[0], "backbone.", problem, layers)
        rule = Threshold(THRESHOLD)
        scores = [torch.full_like(weight, INITIAL_SCORE) for weight in backbone]
        trained = [Scored(w, s, rule) for w, s in zip(backbone, scores, strict=True)]
        trained_head = [Dense(weight) for weight in head]
        fitted = fit(problem, index, task, keep, [*trained, *trained_head], learning_rate=self.mask_learning_rate)
        bits = np.concatenate([(s >= THRESHOLD).flatten().cpu().numpy() for s in scores])
        blob = codec.encode(codec.pack(bits), bits.size)
        mask = torch.frombuffer(bytearray(blob), dtype=torch.uint8)
        return fitted.learned({"mask": mask, **named("head.", last, head)})

    def learner(self, problem: Problem, states: States) -> Learner:
        return PiggybackLearner(problem, states)
