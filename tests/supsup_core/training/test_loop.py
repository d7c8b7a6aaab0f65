"""The training loop: its update rule, its accuracy on the digits, and the exact bits of its result."""

import hashlib
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from supsup_core import RECIPE_VERSION
from supsup_core.datasets import Dataset
from supsup_core.errors import InputError, SupSupError
from supsup_core.kernels.matmul import Precision
from supsup_core.masks import Threshold, TopK, draw_scores
from supsup_core.methods import METHODS, Problem
from supsup_core.methods.learners import accuracy
from supsup_core.nets import NETS, draw_weights
from supsup_core.tasks import BENCHMARKS
from supsup_core.training.loop import Step, TrainingRecipe, batch_order, train
from supsup_core.training.parametrizations import Scored


@pytest.mark.parametrize("rule", ["threshold", "top_k"])
def test_a_step_equals_edge_popup_with_torchs_rmsprop(rule: str) -> None:
    """The reference is 25 steps of autograd through W * mask with torch.optim.RMSprop."""
    net = NETS["lenet_300_100"](num_outputs=12)
    layers = net.layers((30,))
    weights = draw_weights(layers, 0)
    scores = draw_scores(layers, 0, 0)
    mask_rule = Threshold() if rule == "threshold" else TopK(0.3, True)
    plain = [s.clone().requires_grad_() for s in scores]
    optimizer = torch.optim.RMSprop(plain, lr=1e-3)
    layers_in_training = [Scored(w, s, mask_rule) for w, s in zip(weights, scores, strict=True)]
    step = Step(layers_in_training, TrainingRecipe(learning_rate=1e-3), net.loss_gradients)
    generator = torch.Generator().manual_seed(0)
    for _ in range(25):
        x = torch.randn(16, 30, generator=generator)
        y = torch.randint(0, 10, (16,), generator=generator)
        masks = [mask_rule.mask(s.detach(), torch.empty_like(s)) for s in plain]
        signs = [s.detach().sign() if rule == "top_k" else torch.ones_like(s) for s in plain]
        effective = [(m * w).requires_grad_() for m, w in zip(masks, weights, strict=True)]
        loss = F.cross_entropy(net.forward(effective, x), y)
        for parameter, gradient, weight, sign in zip(
            plain, torch.autograd.grad(loss, effective), weights, signs, strict=True
        ):
            parameter.grad = gradient * weight * sign
        torch.testing.assert_close(step(x, y), loss.detach())
        optimizer.step()
    for found, wanted in zip(scores, plain, strict=True):
        torch.testing.assert_close(found, wanted.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", [{}, {"mask": "top_k", "density": 0.3}, {"mask": "top_k", "rank": "raw"}])
def test_training_reaches_a_good_accuracy_on_digits(
    digits: Dataset, method: dict[str, object], precision: Precision
) -> None:
    benchmark = BENCHMARKS["permuted"](base="digits")
    recipe = TrainingRecipe(num_batches=400, precision=precision)
    problem = Problem(NETS["lenet_300_100"](num_outputs=20), (64,), 10, recipe, seed=0)
    learner_of = METHODS["supsup"](**method)
    task = benchmark.task(0, digits, 0)
    learned = learner_of.learn(problem, 0, task, [])
    assert learned.curve.losses[-1] < 0.2 * learned.curve.losses[0]
    assert accuracy(learner_of.learner(problem, [learned.state]), task, 0) > 0.85


GOLDEN = "5fe028e36763141a"


def test_the_bits_of_a_trained_mask_equal_golden_values(digits: Dataset, small_problem: Problem) -> None:
    """If a change of the code changes these bits on purpose, raise RECIPE_VERSION.

    Five batches are enough to show any change of the recipe, and too few for rounding differences between processors to
    flip a bit.
    """
    small_problem = replace(small_problem, recipe=TrainingRecipe(num_batches=5, learning_rate=1e-3))
    task = BENCHMARKS["permuted"](base="digits").task(2, digits, small_problem.seed)
    state = METHODS["supsup"]().learn(small_problem, 2, task, []).state
    assert (RECIPE_VERSION, hashlib.sha256(state["mask"].numpy().tobytes()).hexdigest()[:16]) == (7, GOLDEN)


def test_a_loss_that_is_not_finite_stops_with_a_remedy(digits: Dataset) -> None:
    task = BENCHMARKS["permuted"](base="digits").task(0, digits, 0)
    with pytest.raises(SupSupError, match="lower the learning rate"):
        train(task, batch_order(TrainingRecipe(num_batches=5), task, 0), lambda x, y: torch.tensor(float("nan")))


@pytest.mark.parametrize(
    ("field", "value"), [("learning_rate", 0.0), ("num_batches", 0), ("batch_size", -1), ("optimizer", "adamm")]
)
def test_invalid_recipes_are_refused(field: str, value: object) -> None:
    with pytest.raises(InputError):
        TrainingRecipe(**{field: value})


def test_a_curve_ends_with_the_last_batch(digits: Dataset) -> None:
    task = BENCHMARKS["permuted"](base="digits").task(0, digits, 0)
    recipe = TrainingRecipe(num_batches=47, batch_size=4)
    curve = train(task, batch_order(recipe, task, 0), lambda x, y: torch.tensor(float(len(x))))
    assert curve.batches[-1] == 47
    assert len(curve.batches) <= 10
    assert curve.losses == [4.0] * len(curve.batches)
