"""Rules that choose a mask for images of an unknown task (paper, section 3.3, algorithms 1 and 2)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, final

import torch
from torch import Tensor

from supsup_core.errors import InputError
from supsup_core.methods.learners import Learner, Recalled, recalling, superposing
from supsup_core.nets.base import Objective
from supsup_core.registry import Registry


class Rule(ABC):
    """Chooses one of a learner's masks for each of D groups of images.

    A rule that uses an associative memory also derives from RecallingRule.
    """

    needs_superposition: ClassVar[bool]
    """Whether the learner must be able to superpose its masks."""
    compares_values: ClassVar[bool] = False
    """Whether the rule compares the objective's values under different masks, rather than its slopes."""

    needs_memory: ClassVar[bool] = False
    """Whether the learner must recall a mask from an associative memory. A rule that needs a memory uses at most half
    of a group's images for the recall. The recalled mask is scored on the other images."""

    @abstractmethod
    def choose(self, learner: Learner, x: Tensor, objective: Objective, given: int | None) -> Tensor:
        """Chooses a mask for each of D groups of images x (D, images, *shape). Returns mask numbers (D,), int64.

        The choice for a group does not depend on the other groups. objective: the objective to minimise. given: the
        task identity, or None in scenarios that do not give the task identity at inference.
        """

    def decide(
        self, learner: Learner, x: Tensor, objective: Objective, given: int | None
    ) -> tuple[Tensor, list[Recalled]]:
        """Returns the number of the mask that each of the D decisions chooses, shape (D,), and the recalled masks.

        Only a RecallingRule recalls masks: one for each decision. The caller then labels the images with the recalled
        masks, not with the stored masks. For other rules, the list of recalled masks is empty. The arguments are those
        of `choose`.
        """
        if isinstance(self, RecallingRule):
            return self.recall(learner, x, objective)
        return self.choose(learner, x, objective, given), []


class RecallingRule(ABC):
    """A rule that recalls a mask from an associative memory of all masks."""

    @abstractmethod
    def recall(self, learner: Learner, x: Tensor, objective: Objective) -> tuple[Tensor, list[Recalled]]:
        """Recalls a mask for each of D groups of images x (D, images, *shape).

        Returns two results for the D groups: the number of the stored mask that is nearest to the recalled mask, (D,),
        int64, and the recalled masks.
        """


RULES: Registry[type[Rule]] = Registry("inference rule")


@final
@RULES.register("known")
class Known(Rule):
    """The rule of scenario GG: the task identity is given, so nothing is inferred."""

    needs_superposition = False

    def choose(self, learner: Learner, x: Tensor, objective: Objective, given: int | None) -> Tensor:
        if given is None:
            raise InputError("rule known needs the task identity, which only scenario GG gives")
        return torch.full((len(x),), given)


@torch.no_grad()
def _values(learner: Learner, x: Tensor, masks: Sequence[int], objective: Objective) -> Tensor:
    """The objective's values (D, k) for D groups x (D, images, *shape), by one forward pass under each of k masks."""
    values = []
    for mask in masks:
        parts = x if learner.normalises_by_batch else x.flatten(0, 1)[None]
        logits = torch.cat([learner.logits(part, mask) for part in parts]).view(*x.shape[:2], -1)
        values.append(objective(logits, learner.num_labels))
    return torch.stack(values, 1)


def _halved(learner: Learner, x: Tensor, objective: Objective, at_most: int) -> Tensor:
    """Halves the set of masks, separately for each of D groups, until at most `at_most` masks remain.

    Returns the numbers of the remaining masks, ascending, (D, at_most or fewer). Each halving keeps the masks with the
    largest slopes. Groups with the same remaining masks are computed together. x: (D, images, *shape).
    """
    superposition = superposing(learner)
    kept = torch.arange(learner.num_masks).expand(len(x), -1)
    while kept.shape[1] > at_most:
        half = (kept.shape[1] + 1) // 2
        left = torch.empty(len(x), half, dtype=torch.int64)
        subsets, numbers = torch.unique(kept, dim=0, return_inverse=True)
        for number, subset in enumerate(subsets):
            own = (numbers == number).nonzero().flatten()
            whole = len(subset) == learner.num_masks
            slopes = superposition.alpha_gradients(x[own], None if whole else subset, objective)
            steepest = torch.sort(slopes, stable=True).indices[:, :half].sort().values
            left[own] = subset[steepest.to(subset.device)]
        kept = left
    return kept


@final
@RULES.register("exhaustive")
class Exhaustive(Rule):
    """Chooses the mask with the smallest objective, by one forward pass per mask. A tie goes to the lowest number."""

    needs_superposition = False
    compares_values = True

    def choose(self, learner: Learner, x: Tensor, objective: Objective, given: int | None) -> Tensor:
        return _values(learner, x, range(learner.num_masks), objective).argmin(1)


@final
@RULES.register("one_shot")
class OneShot(Rule):
    """Chooses the mask with the largest slope at alpha = 1/k, by one backward pass for all masks (algorithm 1)."""

    needs_superposition = True

    def choose(self, learner: Learner, x: Tensor, objective: Objective, given: int | None) -> Tensor:
        return superposing(learner).alpha_gradients(x, None, objective).argmin(1)


@final
@RULES.register("binary")
class Binary(Rule):
    """Repeatedly keeps the half of the masks with the largest slopes, and renormalises alpha (algorithm 2).

    The rule computes ceil(log2 k) gradients for k masks. Of an odd number of masks, the rule keeps the larger half.
    """

    needs_superposition = True

    def choose(self, learner: Learner, x: Tensor, objective: Objective, given: int | None) -> Tensor:
        return _halved(learner, x, objective, at_most=1)[:, 0]


@final
@RULES.register("shortlist")
class Shortlist(Rule):
    """Halves the masks as `binary` does until at most four remain, then chooses among them as `exhaustive` does.

    `shortlist` is not from the paper. `shortlist` corrects an error of `binary`. Suppose that three masks are similar
    (as for three neighbouring rotations), and that the middle mask is right. The two outer masks together have the
    effect of the middle mask, so the middle mask has the smallest slope of the three. `binary` then drops the middle
    mask, although a forward pass under each mask would show that it is right. For k masks, `shortlist` computes
    ceil(log2(k / 4)) gradients and at most four forward passes.
    """

    needs_superposition = True
    compares_values = True

    def choose(self, learner: Learner, x: Tensor, objective: Objective, given: int | None) -> Tensor:
        lists = _halved(learner, x, objective, at_most=4)
        chosen = torch.empty(len(x), dtype=torch.int64)
        subsets, numbers = torch.unique(lists, dim=0, return_inverse=True)
        for number, subset in enumerate(subsets):
            own = (numbers == number).nonzero().flatten()
            chosen[own] = subset[_values(learner, x[own], subset.tolist(), objective).argmin(1).cpu()]
        return chosen


@final
@RULES.register("hopfield")
class Hopfield(Rule, RecallingRule):
    """Chooses the stored mask nearest to the mask that a Hopfield network recalls (paper, section 3.6)."""

    needs_superposition = False
    needs_memory = True

    def choose(self, learner: Learner, x: Tensor, objective: Objective, given: int | None) -> Tensor:
        return self.recall(learner, x, objective)[0]

    def recall(self, learner: Learner, x: Tensor, objective: Objective) -> tuple[Tensor, list[Recalled]]:
        memory = recalling(learner)
        found = [memory.recall(images, objective) for images in x]
        return torch.stack([recalled.distances[-1] for recalled in found]).argmin(1), found
