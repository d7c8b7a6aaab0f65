"""Evaluation of a learner by the paper's protocol and by the strict protocol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.errors import InputError, prefix_errors
from supsup_core.evaluation.counts import ProtocolCounts
from supsup_core.field_limits import MOST_IMAGES, check_limits, limited
from supsup_core.inference.objectives import OBJECTIVES, SLOPE_ONLY, superfluous
from supsup_core.inference.rules import RULES, Rule
from supsup_core.methods.base import Dependence, Method
from supsup_core.methods.learners import Learner, Recalled, recalling
from supsup_core.nets.base import Net, Objective
from supsup_core.scenarios import Scenario
from supsup_core.tasks.base import Task

EVALUATION_VERSION = 7
"""Part of the content key of every evaluation. Raise this number whenever a change of the code alters the result of an
evaluation."""


@dataclass(frozen=True, kw_only=True)
class Inference:
    """The settings of task inference.

    `rule`: the name of the inference rule. `objective`: the name of the objective that the rule minimises.

    The paper's protocol shuffles the test images with the run's seed and cuts them into groups of `decision_group`
    images. The mask for a group is inferred from the group's first `images_per_decision` images. If masks are recovered
    from a Hopfield network, at most half of a group is used for the recovery, and only the other images are scored. The
    strict protocol draws `strict_images` test images of each task with the run's seed, and infers a mask for each image
    alone. If `strict_images` is 0, the strict protocol is skipped.
    """

    rule: str = "one_shot"
    objective: str = "entropy"
    images_per_decision: int = limited(1, least=1, most=MOST_IMAGES)
    decision_group: int = limited(128, most=MOST_IMAGES)
    strict_images: int = limited(200, least=0, most=MOST_IMAGES)

    def __post_init__(self) -> None:
        check_limits(self)
        RULES.under("rule", self.rule)
        OBJECTIVES.under("objective", self.objective)
        if self.decision_group < self.images_per_decision:
            raise InputError(
                f"decision_group: must be at least images_per_decision ({self.images_per_decision}), "
                f"not {self.decision_group}"
            )


def check(
    scenario: Scenario, method: Method, method_name: str, inference: Inference, net: Net, num_labels: int
) -> None:
    """Raise InputError if scenario, method, inference and net cannot be combined."""
    if scenario.name not in method.scenarios:
        raise InputError(
            f"scenario: method {method_name} does not support scenario {scenario.name}; "
            f"it supports {', '.join(sorted(method.scenarios))}"
        )
    if not scenario.given_in_training and method.dependence is not Dependence.INDEPENDENT:
        raise InputError(
            f"scenario: method {method_name}, as configured, builds on the previous task, which is unknown in "
            f"scenario {scenario.name}; set method.transfer=none"
        )
    if not scenario.given_in_training and (net.norm_widths() or net.normalises_by_batch):
        raise InputError(
            f"scenario: {scenario.name} does not support nets with batch normalisation; use a net without batch "
            "normalisation"
        )
    num_outputs = net.num_outputs
    if num_outputs < num_labels:
        raise InputError(
            f"net.num_outputs: {num_outputs} outputs cannot tell {num_labels} labels apart; set at least {num_labels}"
        )
    if not scenario.given_at_inference:
        _check_inference(scenario, method, method_name, inference, net, num_labels)


def _check_inference(
    scenario: Scenario, method: Method, method_name: str, inference: Inference, net: Net, num_labels: int
) -> None:
    """Raise InputError if the task cannot be inferred with these settings."""
    if inference.rule == "known":
        raise InputError(
            f"inference.rule: rule known needs the task identity, which {scenario.name} does not give; "
            "use scenario GG, or rule one_shot, binary or exhaustive"
        )
    if RULES[inference.rule].needs_superposition and not method.superposes:
        raise InputError(
            f"inference.rule: method {method_name} cannot superpose its masks, "
            f"which rule {inference.rule} needs; use rule exhaustive"
        )
    if RULES[inference.rule].needs_memory and not method.recall_images:
        raise InputError(
            f"inference.rule: method {method_name} does not store its masks in a Hopfield network, which "
            f"rule {inference.rule} needs; use method hop_sup_sup, or another rule"
        )
    if RULES[inference.rule].needs_memory:
        for key, least in (("images_per_decision", method.recall_images), ("decision_group", 2 * method.recall_images)):
            if getattr(inference, key) < least:
                raise InputError(
                    f"inference.{key}: recovering a mask needs at least {method.recall_images} images, and at most "
                    f"half of a decision group is used for the recovery; set at least {least}"
                )
    if net.normalises_by_batch or (RULES[inference.rule].needs_superposition and net.norm_widths()):
        for key, alone in (("images_per_decision", inference.images_per_decision), ("strict_images", 1)):
            if alone == 1 and getattr(inference, key):
                raise InputError(
                    f"inference.{key}: batch normalisation without stored statistics cannot process a single image; "
                    f"set inference.{key}={128 if key == 'images_per_decision' else 0}"
                    + ("" if net.normalises_by_batch else ", or inference.rule=exhaustive")
                )
    objective = OBJECTIVES[inference.objective]
    if objective in SLOPE_ONLY and RULES[inference.rule].compares_values:
        raise InputError(
            f"inference.objective: rule {inference.rule} compares values of the objective, but "
            f"{inference.objective} can be compared only by its gradient; use rule one_shot or binary, "
            "or objective entropy"
        )
    with prefix_errors("inference."):
        check_objective(inference.objective, (net.num_outputs, num_labels))


def check_objective(name: str, outputs: tuple[int, int]) -> None:
    """Raise InputError if objective `name` needs superfluous neurons and the net has none.

    outputs: (num_outputs, num_labels).
    """
    num_outputs, num_labels = outputs
    if OBJECTIVES[name] is superfluous and num_outputs == num_labels:
        raise InputError(
            f"objective: objective superfluous (G) needs superfluous neurons; "
            f"set net.num_outputs above {num_labels}, or use objective entropy"
        )


@dataclass(frozen=True)
class Decisions:
    """The results of task inference on D groups of one task's test images.

    `chosen`: the number of the mask chosen for each group. `sizes`: the number of scored images in each group.
    `correct`: the number of scored images in each group that the chosen or recalled mask labels correctly. `chosen`,
    `sizes` and `correct` are int64, (D,). `trace`: for a RecallingRule, `Recalled.distances` of each group, (D, steps +
    1, k), else None.
    """

    chosen: Tensor
    sizes: Tensor
    correct: Tensor
    trace: Tensor | None = None

    def counts(self, right_masks: Sequence[int]) -> ProtocolCounts:
        """Sums the results of all groups. right_masks: the numbers of the masks that belong to the task."""
        right = torch.isin(self.chosen, torch.tensor(right_masks, dtype=torch.int64))
        chosen = Counter(self.chosen.tolist())
        recovered, distances = None, None
        if self.trace is not None:
            nearest = self.trace[:, :, list(right_masks)].amin(2)
            recovered = int((nearest[:, -1] == 0).sum())
            distances = tuple(nearest.double().mean(0).tolist())
        return ProtocolCounts(
            images=int(self.sizes.sum()),
            correct=int(self.correct.sum()),
            correct_and_right_task=int(self.correct[right].sum()),
            decisions=len(self.chosen),
            right_task=int(right.sum()),
            confusion={str(mask): chosen[mask] for mask in sorted(chosen)},
            recovered=recovered,
            distances=distances,
        )


Choose = tuple[Rule, Objective, int | None]
"""An inference rule, the objective that it minimises, and the number of the mask to use if the task identity is given
(else None)."""


@dataclass(frozen=True)
class _Chosen:
    """The choice of a mask for each of D groups.

    `masks`: the number of the chosen mask of each group, (D,), int64. `recalled`: the recalled mask of each group if
    the rule is a RecallingRule, else an empty list.
    """

    masks: Tensor
    recalled: list[Recalled]

    def answering(self, learner: Learner) -> Iterator[tuple[list[int], Callable[[Tensor], Tensor]]]:
        """Yields lists of groups that can be labelled in one batch, each with the function that labels their images."""
        if self.recalled or learner.normalises_by_batch:  # each group needs a separate batch
            together = [[number] for number in range(len(self.masks))]
        else:
            together = [(self.masks == mask).nonzero().flatten().tolist() for mask in sorted(set(self.masks.tolist()))]
        for numbers in together:
            first = numbers[0]
            if self.recalled:
                yield numbers, self.recalled[first].labels
            else:
                yield numbers, partial(learner.predict, mask=int(self.masks[first]))

    @property
    def trace(self) -> Tensor | None:
        """`Recalled.distances` of each group, (D, steps + 1, k), for a RecallingRule, else None."""
        return torch.stack([found.distances for found in self.recalled]) if self.recalled else None


def _chosen(learner: Learner, deciding: Sequence[Tensor], choose: Choose) -> _Chosen:
    """Choose a mask for each group. deciding: for each group, the images (images, *shape) that determine the choice."""
    rule, objective, given = choose
    masks = torch.empty(len(deciding), dtype=torch.int64)
    recalled: dict[int, Recalled] = {}
    by_size: dict[int, list[int]] = {}
    for number, images in enumerate(deciding):
        by_size.setdefault(len(images), []).append(number)
    for numbers in by_size.values():
        x = torch.stack([deciding[number] for number in numbers])
        with torch.enable_grad():
            masks[numbers], found = rule.decide(learner, x, objective, given)
        recalled |= dict(zip(numbers, found, strict=bool(found)))
    return _Chosen(masks, [recalled[number] for number in sorted(recalled)])


def _deciding(group: Tensor, num_deciding: int, rule: Rule) -> Tensor:
    """The part of a group's indices whose images determine the mask for the whole group. group: (images,), int64."""
    return group[: min(num_deciding, len(group) // 2) if rule.needs_memory else num_deciding]


@torch.no_grad()
def _decide(learner: Learner, task: Task, groups: Sequence[Tensor], num_deciding: int, choose: Choose) -> Decisions:
    """Infer a mask for each group from the group's first `num_deciding` images, and score the mask's labels.

    groups: the indices of the test images of each group.
    """
    rule = choose[0]
    deciding = [_deciding(group, num_deciding, rule) for group in groups]
    scored = groups
    if rule.needs_memory:
        scored = [group[len(part) :] for group, part in zip(groups, deciding, strict=True)]
    chosen = _chosen(learner, [task.test_batch(part)[0] for part in deciding], choose)
    correct = torch.zeros(len(groups), dtype=torch.int64)
    for numbers, labels_of in chosen.answering(learner):
        x, y = task.test_batch(torch.cat([scored[number] for number in numbers]))
        hits = (labels_of(x) == y).long()
        sizes = [len(scored[number]) for number in numbers]
        correct[numbers] = torch.stack([part.sum() for part in torch.split(hits, sizes)])
    return Decisions(chosen.masks, torch.tensor([len(group) for group in scored]), correct, chosen.trace)


def _groups(learner: Learner, order: Tensor, inference: Inference) -> list[Tensor]:
    """Cuts indices (images,) into the decision groups of the paper's protocol, in order.

    If the last group has too few images to infer a mask, its images are added to the group before.
    """
    least = 2 if learner.normalises_by_batch else min(2, inference.images_per_decision)
    if RULES[inference.rule].needs_memory:
        least = 2 * recalling(learner).recall_images
    groups = list(torch.split(order, inference.decision_group))
    if len(groups) > 1 and len(groups[-1]) < least:
        groups[-2:] = [torch.cat(groups[-2:])]
    return groups


def order_of_test_images(task: Task, index: int, seed: int) -> Tensor:
    """The int64 indices of the test images of task `index`, in the shuffled order of the paper's protocol.

    Neighbouring images of a dataset are often similar, for example digits of one writer. The task is inferred less
    accurately from similar images, so the images are shuffled.
    """
    return torch.from_numpy(seeding.permutation(seeding.child_seed(seed, "groups", index), task.num_test))


@torch.no_grad()
def answer(learner: Learner, x: Tensor, inference: Inference, given: int | None = None) -> tuple[Tensor, Tensor]:
    """Labels images x (images, *shape) by the paper's protocol. Returns labels (images,) and mask numbers (images,).

    Each group of `decision_group` consecutive images must belong to one task. The mask for a group is inferred from the
    group's first `images_per_decision` images. given: the number of the mask if the task identity is given, else None.
    """
    groups = _groups(learner, torch.arange(len(x)), inference)
    rule = RULES[inference.rule]()
    choose = (rule, OBJECTIVES[inference.objective], given)
    deciding = [x[_deciding(group, inference.images_per_decision, rule)] for group in groups]
    chosen = _chosen(learner, deciding, choose)
    masks = torch.cat([mask.expand(len(group)) for mask, group in zip(chosen.masks, groups, strict=True)])
    labels = torch.empty(len(x), dtype=torch.int64)
    for numbers, labels_of in chosen.answering(learner):
        indices = torch.cat([groups[number] for number in numbers])
        labels[indices] = labels_of(x[indices])
    return labels, masks


def evaluate(
    learner: Learner, task: Task, index: int, scenario: Scenario, inference: Inference, seed: int
) -> dict[str, Decisions]:
    """Evaluate a learner on the test images of task `index`. Returns the results of each protocol, by its name.

    The names of the protocols are "paper" and "strict". The strict protocol is left out if `strict_images` is 0, or if
    the scenario gives the task identity at inference. If the scenario gives the task identity, nothing is inferred: the
    task's own mask labels every image.
    """
    given = index if scenario.given_at_inference else None
    choose = (RULES[inference.rule](), OBJECTIVES[inference.objective], given)
    groups = _groups(learner, order_of_test_images(task, index, seed), inference)
    results = {"paper": _decide(learner, task, groups, inference.images_per_decision, choose)}
    if inference.strict_images and given is None:
        child = seeding.child_seed(seed, "strict", index)
        drawn = torch.from_numpy(seeding.permutation(child, task.num_test))[: inference.strict_images]
        results["strict"] = _decide(learner, task, list(torch.split(drawn, 1)), 1, choose)
    return results
