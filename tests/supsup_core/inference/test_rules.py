"""Objectives and rules, on a learner whose right answers are known."""

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
    """SupSup after five permutations of the digits."""
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
        return  # refused by evaluation.check: told apart by its slope alone
    x = torch.stack([images_of(digits, task, 32) for task in range(NUM_TASKS)])
    chosen = RULES[rule]().choose(learned[0], x, OBJECTIVES[objective], None)
    assert chosen.tolist() == list(range(NUM_TASKS))
    alone = torch.cat([RULES[rule]().choose(learned[0], x[i : i + 1], OBJECTIVES[objective], None) for i in range(5)])
    assert alone.tolist() == chosen.tolist()


class Alike(SuperposingLearner):
    """Masks that are alike: the slope along the right one is shallow, and its own forward pass is the surest."""

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
def test_a_shortlist_is_settled_by_forward_passes(num_masks: int, gradients: int) -> None:
    right = num_masks // 2
    learner = Alike(num_masks, right)
    assert RULES["shortlist"]().choose(learner, torch.zeros(1, 8, 3), OBJECTIVES["entropy"], None).tolist() == [right]
    assert learner.gradients == gradients
    assert len(learner.answers) <= 4
    if num_masks > 2:
        steepest = RULES["binary"]().choose(Alike(num_masks, right), torch.zeros(1, 8, 3), OBJECTIVES["entropy"], None)
        assert steepest.tolist() != [right]


def test_known_takes_what_it_is_given_and_nothing_else(
    learned: tuple[Learner, Problem, list[dict[str, Tensor]]], digits: Dataset
) -> None:
    x = images_of(digits, 0, 4)[:, None]
    assert RULES["known"]().choose(learned[0], x, OBJECTIVES["entropy"], 3).tolist() == [3] * 4
    with pytest.raises(InputError, match="only scenario GG gives"):
        RULES["known"]().choose(learned[0], x, OBJECTIVES["entropy"], None)


@pytest.mark.parametrize("objective", OBJECTIVES.names())
@pytest.mark.parametrize("subset", [None, [0, 2, 3]])
def test_alpha_gradients_are_the_slopes_of_the_superposition(
    learned: tuple[Learner, Problem, list[dict[str, Tensor]]],
    digits: Dataset,
    objective: str,
    subset: list[int] | None,
) -> None:
    """Against autograd in alpha itself, through f(x, W * sum of alpha_i M^i) (paper, equation 3)."""
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


def test_entropy_of_a_uniform_and_of_a_certain_answer() -> None:
    entropy = OBJECTIVES["entropy"]
    assert float(entropy(torch.zeros(3, 8), 4)) == pytest.approx(2.0794, abs=1e-4)
    assert float(entropy(torch.tensor([[100.0, 0, 0, 0]]), 4)) == pytest.approx(0, abs=1e-6)


def test_superfluous_has_no_slope_in_real_neurons() -> None:
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (slope,) = torch.autograd.grad(OBJECTIVES["G"](logits, 5), logits)
    assert torch.equal(slope[:, :5], torch.zeros(4, 5))
    torch.testing.assert_close(slope[:, 5:], torch.softmax(logits.detach(), 1)[:, 5:] / 4)


@pytest.mark.parametrize("name", ["max_logit", "energy"])
def test_confidence_objectives_look_at_real_neurons_only(name: str) -> None:
    logits = torch.tensor([[1.0, 2.0, 50.0], [0.0, 4.0, 50.0]])
    changed = torch.tensor([[1.0, 2.0, -9.0], [0.0, 4.0, 7.0]])
    objective: Objective = OBJECTIVES[name]
    assert float(objective(logits, 2)) == float(objective(changed, 2))
    assert float(OBJECTIVES["max_logit"](logits, 2)) == -3.0


@pytest.mark.parametrize("objective", OBJECTIVES.names())
def test_objectives_keep_decisions_apart(objective: str) -> None:
    logits = torch.randn(5, 3, 12, generator=torch.Generator().manual_seed(0))
    together = OBJECTIVES[objective](logits, 10)
    apart = torch.stack([OBJECTIVES[objective](part, 10) for part in logits])
    torch.testing.assert_close(together, apart)
