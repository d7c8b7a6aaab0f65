"""HopSupSup: masks of tasks, recovered from the Hopfield network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from supsup_core.datasets import Dataset
from supsup_core.errors import CorruptError, InputError
from supsup_core.evaluation.protocol import Inference, answer, check, evaluate, order_of_test_images
from supsup_core.inference import OBJECTIVES
from supsup_core.methods import METHODS, Problem
from supsup_core.methods.hop_sup_sup import HopfieldLearner
from supsup_core.methods.hopfield_memory import storkey, storkey_of_the_authors
from supsup_core.nets import NETS
from supsup_core.scenarios import SCENARIOS, scenario
from supsup_core.tasks import BENCHMARKS
from supsup_core.training.loop import TrainingRecipe


@pytest.fixture(scope="module")
def learned(digits: Dataset) -> tuple[HopfieldLearner, Problem, list[dict[str, Tensor]]]:
    """A HopSupSup learner of five splits of the digits with the dataset's own labels, its problem and its states."""
    recipe = TrainingRecipe(optimizer="sgd", learning_rate=0.1, num_batches=60, batch_size=64)
    problem = Problem(NETS["hopfield_mlp"](num_outputs=10, width=512), (8, 8), 10, recipe, seed=0)
    method = METHODS["hop_sup_sup"](recovery_batch=32)
    benchmark = BENCHMARKS["split"](base="digits", labels="base")
    states = [dict(method.learn(problem, i, benchmark.task(i, digits, 0), []).state) for i in range(5)]
    learner = method.learner(problem, states)
    assert isinstance(learner, HopfieldLearner)
    return learner, problem, states


def test_tasks_are_recalled_from_the_memory(
    learned: tuple[HopfieldLearner, Problem, list[dict[str, Tensor]]], digits: Dataset
) -> None:
    _, problem, states = learned
    learner = METHODS["hop_sup_sup"]().learner(problem, states)
    assert isinstance(learner, HopfieldLearner)
    benchmark, objective = BENCHMARKS["split"](base="digits", labels="base"), OBJECTIVES["entropy"]
    nearest, right = [], 0
    for index in range(5):
        x, y = benchmark.task(index, digits, 0).all_test()
        found = learner.recall(x[:64], objective)
        assert found.distances.shape == (31, 5)
        nearest.append(int(found.distances[-1].argmin()))
        assert found.distances[0, index] > found.distances[-1, index] or nearest[-1] != index
        right += int((found.labels(x) == y).sum())
    assert sum(index == mask for index, mask in enumerate(nearest)) >= 4
    assert right / 360 > 0.6  # with the recovered mask; one of five tasks may be wrong
    once, again = (learner.recovered(x[:64], objective) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once.pattern, again.pattern, strict=True))
    assert learner.distances(learner.patterns[3])[3] == 0


@pytest.mark.parametrize(("descent", "rule"), [("paper", storkey_of_the_authors), ("memory", storkey)])
def test_the_papers_descent_uses_the_authors_rule_to_store_masks(
    learned: tuple[HopfieldLearner, Problem, list[dict[str, Tensor]]],
    descent: str,
    rule: Callable[[Tensor, Tensor], Tensor],
) -> None:
    _, problem, states = learned
    learner = METHODS["hop_sup_sup"](recovery_descent=descent).learner(problem, states)
    assert isinstance(learner, HopfieldLearner)
    for layer, memory in enumerate(learner.memories):
        wanted = torch.zeros_like(memory)
        for pattern in learner.patterns:
            wanted = rule(wanted, pattern[layer])
        assert torch.equal(memory, wanted)


def test_the_recalled_mask_answers_for_the_other_images(
    learned: tuple[HopfieldLearner, Problem, list[dict[str, Tensor]]], digits: Dataset
) -> None:
    learner, objective = learned[0], OBJECTIVES["entropy"]
    inference = Inference(rule="hopfield", images_per_decision=64, decision_group=2000, strict_images=0)
    for index in range(5):
        task = BENCHMARKS["split"](base="digits", labels="base").task(index, digits, 0)
        part = evaluate(learner, task, index, scenario("GNs"), inference, 0)["paper"]
        half = task.num_test // 2
        order = order_of_test_images(task, index, 0)
        recalled = learner.recall(task.test_batch(order[:half])[0], objective)
        others, y = task.test_batch(order[half:])
        assert part.sizes.tolist() == [task.num_test - half]
        assert int((recalled.labels(others) == y).sum()) == int(part.correct)
        assert part.trace is not None
        assert torch.equal(part.trace[0], recalled.distances)
        counts = part.counts([index])
        assert counts.distances == tuple(part.trace[0, :, index].tolist())
        assert counts.recovered == int(part.trace[0, -1, index] == 0) <= counts.right_task


def test_a_task_is_stored_with_one_bit_for_each_unit(
    learned: tuple[HopfieldLearner, Problem, list[dict[str, Tensor]]], digits: Dataset
) -> None:
    _, problem, states = learned
    assert all(sum(tensor.nbytes for tensor in state.values()) == 24 + 2 * 512 // 8 for state in states)
    with pytest.raises(CorruptError, match="no mask"):
        METHODS["hop_sup_sup"]().learner(problem, [{}])
    other = Problem(NETS["hopfield_mlp"](width=9), (8, 8), 10, TrainingRecipe(), seed=0)
    with pytest.raises(CorruptError, match="does not fit"):
        METHODS["hop_sup_sup"]().learner(other, states)


def test_inferences_with_batch_normalisation_do_not_influence_each_other(
    learned: tuple[HopfieldLearner, Problem, list[dict[str, Tensor]]], digits: Dataset
) -> None:
    learner = learned[0]
    task = BENCHMARKS["split"](base="digits", labels="base").task(1, digits, 0)
    for rule, given, scene in (("exhaustive", None, "GNs"), ("known", 1, "GG")):
        inference = Inference(rule=rule, images_per_decision=16, decision_group=16, strict_images=0)
        together = evaluate(learner, task, 1, scenario(scene), inference, 0)["paper"]
        for number, (indices, size) in enumerate(
            zip(order_of_test_images(task, 1, 0).split(16), together.sizes, strict=True)
        ):
            x, y = task.test_batch(indices)
            assert len(x) == size
            labels, masks = answer(learner, x, inference, given)
            assert set(masks.tolist()) == {int(together.chosen[number])}
            assert int((labels == y).sum()) == int(together.correct[number])


def test_a_single_remaining_image_joins_the_last_group(
    learned: tuple[HopfieldLearner, Problem, list[dict[str, Tensor]]], digits: Dataset
) -> None:
    task = BENCHMARKS["split"](base="digits", labels="base").task(1, digits, 0)
    inference = Inference(rule="known", images_per_decision=1, decision_group=task.num_test - 1, strict_images=0)
    found = evaluate(learned[0], task, 1, scenario("GG"), inference, 0)["paper"]
    assert found.sizes.tolist() == [task.num_test]


def test_remaining_images_too_few_for_a_recovery_join_the_last_group(
    learned: tuple[HopfieldLearner, Problem, list[dict[str, Tensor]]], digits: Dataset
) -> None:
    task = BENCHMARKS["split"](base="digits", labels="base").task(0, digits, 0)
    inference = Inference(rule="hopfield", images_per_decision=32, decision_group=64, strict_images=0)
    found = evaluate(learned[0], task, 0, scenario("GNs"), inference, 0)["paper"]
    assert 64 < task.num_test < 128
    assert found.sizes.tolist() == [task.num_test - 32]


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(InputError, match="recovery: gamma"):
        METHODS["hop_sup_sup"](gamma=0.0)
    with pytest.raises(InputError, match="recovery: tries"):
        METHODS["hop_sup_sup"](recovery_tries=0)
    net = NETS["hopfield_mlp"]()
    for key, least in (("images_per_decision", 64), ("decision_group", 128)):
        few = Inference(**{"rule": "hopfield", "images_per_decision": 64, "decision_group": 128, key: least - 1})
        with pytest.raises(InputError, match=rf"inference\.{key}: .* set at least {least}"):
            check(SCENARIOS["GNs"], METHODS["hop_sup_sup"](), "hop_sup_sup", few, net, 10)
    with pytest.raises(InputError, match="cannot process a single image"):
        check(SCENARIOS["GNs"], METHODS["hop_sup_sup"](), "hop_sup_sup", Inference(rule="exhaustive"), net, 10)
