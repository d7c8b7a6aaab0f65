"""Inference rules, on learners whose right answers are known."""

import pytest
import torch
from torch import Tensor

from supsup_core.datasets import Dataset
from supsup_core.errors import InputError
from supsup_core.inference import OBJECTIVES, RULES
from supsup_core.methods import METHODS, Learner, Problem
from supsup_core.methods.learners import SuperposingLearner, superposing
from supsup_core.nets import NETS
from supsup_core.nets.base import Objective
from supsup_core.tasks import BENCHMARKS
from supsup_core.training.loop import TrainingRecipe

NUM_TASKS = 5


@pytest.fixture(scope="module")
def learned(digits: Dataset) -> tuple[Learner, Problem, list[dict[str, Tensor]]]:
    """A SupSup learner of five permutations of the digits, with its problem and task states."""
    problem = Problem(NETS["lenet_300_100"](num_outputs=60), (64,), 10, TrainingRecipe(num_batches=300), seed=1)
    method, benchmark = METHODS["supsup"](), BENCHMARKS["permuted"](base="digits")
    states = [dict(method.learn(problem, i, benchmark.task(i, digits, 1), []).state) for i in range(NUM_TASKS)]
    return method.learner(problem, states), problem, states


def images_of(digits: Dataset, task: int, count: int) -> Tensor:
    return BENCHMARKS["permuted"](base="digits").task(task, digits, 1).test_batch(torch.arange(count))[0]


@pytest.mark.parametrize("rule", [name for name in RULES.names() if name not in ("known", "hopfield")])
@pytest.mark.parametrize("objective", ["entropy", "superfluous"])
def test_every_rule_finds_the_task(
    learned: tuple[Learner, Problem, list[dict[str, Tensor]]], digits: Dataset, rule: str, objective: str
) -> None:
    if RULES[rule].compares_values and objective == "superfluous":
        return  # protocol.check refuses this combination
    x = torch.stack([images_of(digits, task, 32) for task in range(NUM_TASKS)])
    chosen = RULES[rule]().choose(learned[0], x, OBJECTIVES[objective], None)
    assert chosen.tolist() == list(range(NUM_TASKS))
    alone = torch.cat([RULES[rule]().choose(learned[0], x[i : i + 1], OBJECTIVES[objective], None) for i in range(5)])
    assert alone.tolist() == chosen.tolist()


class Alike(SuperposingLearner):
    """A learner with similar masks: the right mask has a small slope, but the largest logit in its forward pass."""

    num_labels = 2

    def __init__(self, num_masks: int, right: int) -> None:
        self.num_masks, self.right = num_masks, right
        self.gradients = 0
        self.answers: list[int] = []

    def logits(self, x: Tensor, mask: int) -> Tensor:
        self.answers.append(mask)
        return torch.tensor([4.0 if mask == self.right else 2.0, 0.0]).expand(len(x), 2)

    def alpha_gradients(self, x: Tensor, subset: Tensor | None, objective: Objective) -> Tensor:
        self.gradients += 1
        masks = torch.arange(self.num_masks) if subset is None else subset
        distance = (masks - self.right).abs().float()
        return torch.where(distance == 0, -0.9, -1 / distance.clamp(min=1))[None].expand(len(x), -1)


@pytest.mark.parametrize(("num_masks", "gradients"), [(1, 0), (3, 0), (4, 0), (5, 1), (36, 4), (64, 4)])
def test_shortlist_compares_the_last_four_masks_by_forward_passes(num_masks: int, gradients: int) -> None:
    right = num_masks // 2
    learner = Alike(num_masks, right)
    assert RULES["shortlist"]().choose(learner, torch.zeros(1, 8, 3), OBJECTIVES["entropy"], None).tolist() == [right]
    assert learner.gradients == gradients
    assert len(learner.answers) <= 4
    if num_masks > 2:
        steepest = RULES["binary"]().choose(Alike(num_masks, right), torch.zeros(1, 8, 3), OBJECTIVES["entropy"], None)
        assert steepest.tolist() != [right]


def test_known_chooses_the_given_task_and_needs_one(
    learned: tuple[Learner, Problem, list[dict[str, Tensor]]], digits: Dataset
) -> None:
    x = images_of(digits, 0, 4)[:, None]
    assert RULES["known"]().choose(learned[0], x, OBJECTIVES["entropy"], 3).tolist() == [3] * 4
    with pytest.raises(InputError, match="only scenario GG gives"):
        RULES["known"]().choose(learned[0], x, OBJECTIVES["entropy"], None)


@pytest.mark.parametrize("objective", OBJECTIVES.names())
@pytest.mark.parametrize("subset", [None, [0, 2, 3]])
def test_slopes_are_the_gradients_with_respect_to_alpha(
    learned: tuple[Learner, Problem, list[dict[str, Tensor]]],
    digits: Dataset,
    objective: str,
    subset: list[int] | None,
) -> None:
    """The reference is autograd with respect to alpha, through f(x, W * sum of alpha_i M^i) (paper, equation 3)."""
    learner, problem, states = learned
    numbers = subset or list(range(NUM_TASKS))
    bank = METHODS["supsup"]().learner(problem, states)._bank  # type: ignore[attr-defined]
    alpha = torch.full((len(numbers),), 1 / len(numbers), requires_grad=True)
    masks = [torch.stack(column) for column in zip(*(bank.mask(number) for number in numbers), strict=True)]
    weights = [
        w * torch.einsum("k,k...->...", alpha, stacked) for w, stacked in zip(problem.weights, masks, strict=True)
    ]
    x = images_of(digits, 1, 6)
    value = OBJECTIVES[objective](problem.net.forward(weights, x), 10)
    (expected,) = torch.autograd.grad(value, alpha)
    chosen = None if subset is None else torch.tensor(subset)
    found = superposing(learner).alpha_gradients(x[None], chosen, OBJECTIVES[objective])[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
