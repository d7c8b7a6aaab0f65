"""The contract of methods, tested on every registered method."""

from dataclasses import replace

import pytest
import torch

from supsup_core.datasets import Dataset
from supsup_core.errors import CorruptError, InputError
from supsup_core.inference import OBJECTIVES
from supsup_core.methods import METHODS, SHARED, Dependence, Method, Problem
from supsup_core.methods.learners import accuracy, superposing
from supsup_core.nets import NETS
from supsup_core.scenarios import SCENARIOS
from supsup_core.tasks import BENCHMARKS
from supsup_core.training.loop import TrainingRecipe
from tests.supsup_core.memory_checkpoint import MemoryCheckpoint


@pytest.fixture(params=METHODS.names())
def method(request: pytest.FixtureRequest) -> Method:
    """Every registered method with its defaults."""
    return METHODS[request.param]()


def fitting(method: Method, problem: Problem) -> Problem:
    """Returns the problem. For a method that masks gates, the problem gets a net with gates."""
    return replace(problem, net=NETS["hopfield_mlp"](num_outputs=20, width=256)) if method.recall_images else problem


def learn(method: Method, problem: Problem, digits: Dataset, count: int) -> list[dict[str, torch.Tensor]]:
    benchmark = BENCHMARKS["permuted"](base="digits")
    states: list[dict[str, torch.Tensor]] = []
    for index in range(count):
        parents = [states[parent] for parent in method.dependence.parents(index)]
        learned = method.learn(problem, index, benchmark.task(index, digits, problem.seed), parents)
        states.append(dict(learned.state))
    return states


def test_learning_is_a_pure_function(method: Method, small_problem: Problem, digits: Dataset) -> None:
    small_problem = fitting(method, small_problem)
    first, second = (learn(method, small_problem, digits, 2) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_interrupted_task_resumes_to_the_same_bits(method: Method, small_problem: Problem, digits: Dataset) -> None:
    """The test interrupts the second task, which may depend on the first. A checkpoint of another program version is
    skipped."""
    problem = fitting(method, small_problem)
    states = learn(method, problem, digits, 1)
    parents = [states[parent] for parent in method.dependence.parents(1)]
    task = BENCHMARKS["permuted"](base="digits").task(1, digits, problem.seed)
    wanted = method.learn(problem, 1, task, parents)
    keep = MemoryCheckpoint()
    with pytest.raises(KeyboardInterrupt):
        method.learn(problem, 1, task, parents, keep)
    keep.interrupts = False
    keep.states.append({**keep.states[-1], "trained.0": torch.zeros(3)})
    found = method.learn(problem, 1, task, parents, keep)
    assert found.curve == wanted.curve
    assert found.state.keys() == wanted.state.keys()
    assert all(torch.equal(found.state[name], wanted.state[name]) for name in wanted.state)
    assert len(keep.states) == 3 + (problem.recipe.num_batches - 14 - 1) // 7


def test_tasks_learned_together_equal_tasks_learned_alone(
    method: Method, small_problem: Problem, digits: Dataset
) -> None:
    """Mask bits may differ for scores near the threshold. Methods that cannot learn tasks together raise an error."""
    problem = replace(fitting(method, small_problem), recipe=TrainingRecipe(num_batches=5, learning_rate=1e-3))
    tasks = [BENCHMARKS["permuted"](base="digits").task(index, digits, problem.seed) for index in (4, 1, 2)]
    if not method.stacks:
        with pytest.raises(InputError, match="tasks_at_once=1"):
            method.learn_together(problem, (4, 1, 2), tasks)
        return
    found = method.learn_together(problem, (4, 1, 2), tasks)
    for index, task, learned in zip((4, 1, 2), tasks, found, strict=True):
        alone = method.learn(problem, index, task, [])
        assert learned.curve.batches == alone.curve.batches
        assert learned.curve.losses == pytest.approx(alone.curve.losses, rel=1e-4)
        assert learned.state.keys() == alone.state.keys()
        for name, tensor in learned.state.items():
            assert float((tensor != alone.state[name]).double().mean()) < 0.002


def test_seeds_learn_differently(method: Method, digits: Dataset) -> None:
    problems = [
        fitting(
            method, Problem(NETS["lenet_300_100"](num_outputs=20), (64,), 10, TrainingRecipe(num_batches=3), seed=seed)
        )
        for seed in (0, 1)
    ]
    (one,), (other,) = (learn(method, problem, digits, 1) for problem in problems)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_learner_answers_for_every_task(method: Method, small_problem: Problem, digits: Dataset) -> None:
    small_problem = fitting(method, small_problem)
    learner = method.learner(small_problem, learn(method, small_problem, digits, 3))
    assert (learner.num_masks, learner.num_labels) == (3, 10)
    x, _ = BENCHMARKS["permuted"](base="digits").task(1, digits, small_problem.seed).test_batch(torch.arange(9))
    for mask in range(3):
        logits = learner.logits(x, mask)
        assert len(logits) == 9
        assert logits.shape[1] in (10, 20)
        assert torch.equal(learner.predict(x, mask), logits[:, :10].argmax(1))


def test_training_reaches_a_good_accuracy_on_digits(method: Method, digits: Dataset) -> None:
    recipe = TrainingRecipe(num_batches=300, learning_rate=2e-3)
    problem = fitting(method, Problem(NETS["lenet_300_100"](num_outputs=20), (64,), 10, recipe, seed=0))
    states = learn(method, problem, digits, 2)
    last = BENCHMARKS["permuted"](base="digits").task(1, digits, 0)
    assert accuracy(method.learner(problem, states), last, 1) > 0.6


def test_the_declared_dependence_of_tasks_is_correct(method: Method, small_problem: Problem, digits: Dataset) -> None:
    """The answers for an independent task do not depend on the other tasks that were learned."""
    small_problem = fitting(method, small_problem)
    states = learn(method, small_problem, digits, 3)
    x, _ = BENCHMARKS["permuted"](base="digits").task(1, digits, small_problem.seed).test_batch(torch.arange(50))
    early, late = (method.learner(small_problem, states[:n]).logits(x, 1) for n in (2, 3))
    if method.dependence is not Dependence.SEQUENTIAL:
        torch.testing.assert_close(early, late)
        assert not any(name.startswith(SHARED) for state in states for name in state)
    else:
        assert not torch.allclose(early, late)
        assert any(name.startswith(SHARED) for name in states[0])


def test_alpha_gradients_equal_autograd_through_the_superposed_weights(
    method: Method, small_problem: Problem, digits: Dataset
) -> None:
    """The test compares d objective / d alpha with autograd through the weighted sum of the single masks' weights."""
    small_problem = fitting(method, small_problem)
    learner = method.learner(small_problem, learn(method, small_problem, digits, 3))
    x, _ = BENCHMARKS["permuted"](base="digits").task(1, digits, small_problem.seed).test_batch(torch.arange(8))
    if not method.superposes:
        with pytest.raises(InputError, match="cannot superpose"):
            superposing(learner)
        return
    learner = superposing(learner)
    weights = [[w.clone() for w in learner.weights_of(mask)] for mask in range(3)]  # type: ignore[attr-defined]
    for chosen in ([0, 1, 2], [0, 2]):
        alpha = torch.full((len(chosen),), 1 / len(chosen), requires_grad=True)
        mixed = [sum(a * weights[m][layer] for a, m in zip(alpha, chosen, strict=True)) for layer in range(3)]
        value = OBJECTIVES["entropy"](small_problem.net.forward(mixed, x), 10)
        (wanted,) = torch.autograd.grad(value, alpha)
        subset = None if len(chosen) == 3 else torch.tensor(chosen)
        found = learner.alpha_gradients(x[None], subset, OBJECTIVES["entropy"])
        torch.testing.assert_close(found, wanted[None], rtol=1e-3, atol=1e-5)


def test_the_scenarios_of_a_method_exist(method: Method) -> None:
    assert method.scenarios
    assert method.scenarios <= set(SCENARIOS.names())


def test_supsup_stores_one_bit_a_weight(small_problem: Problem, digits: Dataset) -> None:
    (state,) = learn(METHODS["supsup"](), small_problem, digits, 1)
    num_weights = 64 * 300 + 300 * 100 + 100 * 20
    assert sum(tensor.nbytes for tensor in state.values()) == num_weights // 8 + 24


def test_supsup_refuses_a_mask_of_another_net(small_problem: Problem, digits: Dataset) -> None:
    states = learn(METHODS["supsup"](), small_problem, digits, 1)
    other = Problem(NETS["lenet_300_100"](num_outputs=30), (64,), 10, TrainingRecipe(), seed=3)
    with pytest.raises(CorruptError, match="does not fit a net"):
        METHODS["supsup"]().learner(other, states)


@pytest.mark.parametrize("fields", [{"density": 1.5, "mask": "top_k"}, {"density": 0.1}, {"rank": "raw"}])
def test_supsup_refuses_invalid_densities(fields: dict[str, object]) -> None:
    with pytest.raises(InputError, match="density"):
        METHODS["supsup"](**fields)
