"""HopSupSup: the memory, the descent, and tasks found by it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import pytest
import torch
from torch import Tensor

from supsup_core.datasets import Dataset
from supsup_core.errors import CorruptError, InputError
from supsup_core.evaluation.protocol import Inference, answer, check, evaluate, order_of_test_images
from supsup_core.inference import OBJECTIVES
from supsup_core.methods import METHODS, Problem
from supsup_core.methods.hop_sup_sup import HopfieldLearner
from supsup_core.methods.hopfield_memory import Recovery, energy, sign, storkey
from supsup_core.nets import NETS
from supsup_core.scenarios import SCENARIOS, scenario
from supsup_core.tasks import BENCHMARKS
from supsup_core.training.loop import TrainingRecipe


def patterns(count: int, size: int, seed: int = 0) -> Tensor:
    return sign(torch.randn(count, size, generator=torch.Generator().manual_seed(seed)))


def test_storkeys_rule_is_the_published_sum() -> None:
    size = 7
    memory = torch.zeros(size, size)
    wanted = torch.zeros(size, size)
    for z in patterns(4, size):
        memory = storkey(memory, z)
        before = wanted.clone()
        for i, j in itertools.product(range(size), range(size)):
            if i == j:
                continue
            h_ij, h_ji = (sum(float(before[a, k] * z[k]) for k in range(size) if k not in (i, j)) for a in (i, j))
            change = float(z[i] * z[j]) - float(z[i]) * h_ji - h_ij * float(z[j])
            wanted[i, j] = before[i, j] + change / size
    torch.testing.assert_close(memory, wanted)
    torch.testing.assert_close(memory, memory.t())
    assert not memory.diagonal().any()


def test_stored_patterns_are_low_in_energy_and_attract() -> None:
    stored = patterns(6, 200)
    memory = torch.zeros(200, 200)
    for z in stored:
        memory = storkey(memory, z)
    lows = [float(energy([memory], [z])) for z in stored]
    assert max(lows) < min(float(energy([memory], [z])) for z in patterns(20, 200, seed=1))
    for z in stored:
        assert torch.equal(sign(memory @ z), z)
        spoilt = z.clone()
        spoilt[:20] *= -1
        assert torch.equal(sign(memory @ sign(memory @ spoilt)), z)


def remembered(stored: Tensor) -> Tensor:
    memory = torch.zeros(stored.shape[1], stored.shape[1])
    for z in stored:
        memory = storkey(memory, z)
    return memory


@pytest.mark.parametrize("descent", ["memory", "paper"])
def test_the_descent_ends_at_the_pattern_that_the_images_point_to(descent: Literal["memory", "paper"]) -> None:
    """An objective that prefers one of the stored patterns in half of its units; the memory adds the rest."""
    stored = patterns(4, 300)
    memory = remembered(stored)
    for z in stored:

        def agreement(found: Sequence[Tensor], images: Tensor, z: Tensor = z) -> Tensor:
            return -(found[0] * z)[:150].mean() * images.mean()

        recovery = Recovery(descent=descent, tries=1)
        recovered = recovery.recover([memory], [stored.mean(0)], 4, agreement, torch.ones(64 * 3, 1))
        assert torch.equal(recovered.pattern[0], z)
        assert len(recovered.path) == 31
        distances = [int((sign(part) != z).sum()) for (part,) in recovered.path]
        assert distances[0] > 50
        assert distances[-1] == 0


def test_a_descent_through_the_memory_stays_among_the_stored_patterns() -> None:
    """What an objective says of directions that no pattern spans is not heard."""
    stored = patterns(4, 400)
    elsewhere = patterns(1, 400, seed=1)[0]

    def astray(found: Sequence[Tensor], images: Tensor) -> Tensor:
        return -(found[0] * elsewhere).mean() - 0.5 * (found[0] * stored[2]).mean()

    ends = {}
    descents: list[Literal["memory", "paper"]] = ["memory", "paper"]
    for descent in descents:
        recovery = Recovery(descent=descent, tries=1)
        path = recovery.recover([remembered(stored)], [stored.mean(0)], 4, astray, torch.ones(64, 1)).path
        ends[descent] = (max(float(z @ elsewhere) / 400 for (z,) in path), path[-1][0])
    assert ends["paper"][0] > 0.6 > 0.3 > ends["memory"][0]
    assert torch.equal(ends["memory"][1], stored[2])


def test_another_try_goes_elsewhere_and_the_best_of_all_is_kept() -> None:
    """The slope leads to one pattern, and the objective is least at another."""
    stored = patterns(5, 400)

    def deceiving(found: Sequence[Tensor], images: Tensor) -> Tensor:
        first, second = ((found[0] * stored[index]).mean() for index in (3, 1))
        return -first - 0.5 * second - 30 * torch.relu(second - 0.9)

    def found_after(tries: int) -> list[int]:
        recovery, start = Recovery(tries=tries), [stored.mean(0)]
        recovered = recovery.recover([remembered(stored)], start, 5, deceiving, torch.ones(64, 1))
        assert torch.equal(recovered.path[-1][0], recovered.pattern[0])
        return [index for index, z in enumerate(stored) if torch.equal(z, recovered.pattern[0])]

    assert [found_after(tries) for tries in (1, 2, 9)] == [[3], [1], [1]]


def test_a_recovery_without_a_batch_of_images_is_refused() -> None:
    with pytest.raises(InputError, match="batches of 64 images and 63 are at hand"):
        Recovery().recover([], [], 1, lambda z, x: torch.zeros(()), torch.ones(63, 1))


@pytest.fixture(scope="module")
def learned(digits: Dataset) -> tuple[HopfieldLearner, Problem, list[dict[str, Tensor]]]:
    """Five splits of the digits, their labels kept."""
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
    assert right / 360 > 0.6  # by what was recalled itself, one task of five missed
    once, again = (learner.recovered(x[:64], objective) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once.pattern, again.pattern, strict=True))
    assert learner.distances(learner.patterns[3])[3] == 0


def test_what_was_recalled_answers_for_images_that_did_not_recall_it(
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


def test_a_task_takes_one_bit_a_unit(
    learned: tuple[HopfieldLearner, Problem, list[dict[str, Tensor]]], digits: Dataset
) -> None:
    _, problem, states = learned
    assert all(sum(tensor.nbytes for tensor in state.values()) == 24 + 2 * 512 // 8 for state in states)
    with pytest.raises(CorruptError, match="no mask"):
        METHODS["hop_sup_sup"]().learner(problem, [{}])
    other = Problem(NETS["hopfield_mlp"](width=9), (8, 8), 10, TrainingRecipe(), seed=0)
    with pytest.raises(CorruptError, match="does not fit"):
        METHODS["hop_sup_sup"]().learner(other, states)


def test_decisions_of_a_net_that_normalises_by_batch_stand_alone(
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


def test_one_image_left_over_is_answered_with_the_last_group(
    learned: tuple[HopfieldLearner, Problem, list[dict[str, Tensor]]], digits: Dataset
) -> None:
    task = BENCHMARKS["split"](base="digits", labels="base").task(1, digits, 0)
    inference = Inference(rule="known", images_per_decision=1, decision_group=task.num_test - 1, strict_images=0)
    found = evaluate(learned[0], task, 1, scenario("GG"), inference, 0)["paper"]
    assert found.sizes.tolist() == [task.num_test]


def test_a_rest_too_small_to_recall_anything_joins_the_last_group(
    learned: tuple[HopfieldLearner, Problem, list[dict[str, Tensor]]], digits: Dataset
) -> None:
    task = BENCHMARKS["split"](base="digits", labels="base").task(0, digits, 0)
    inference = Inference(rule="hopfield", images_per_decision=32, decision_group=64, strict_images=0)
    found = evaluate(learned[0], task, 0, scenario("GNs"), inference, 0)["paper"]
    assert 64 < task.num_test < 128
    assert found.sizes.tolist() == [task.num_test - 32]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="recovery: gamma"):
        METHODS["hop_sup_sup"](gamma=0.0)
    with pytest.raises(InputError, match="recovery: tries"):
        METHODS["hop_sup_sup"](recovery_tries=0)
    net = NETS["hopfield_mlp"]()
    for key, least in (("images_per_decision", 64), ("decision_group", 128)):
        few = Inference(**{"rule": "hopfield", "images_per_decision": 64, "decision_group": 128, key: least - 1})
        with pytest.raises(InputError, match=rf"inference\.{key}: .* set at least {least}"):
            check(SCENARIOS["GNs"], METHODS["hop_sup_sup"](), "hop_sup_sup", few, net, 10)
    with pytest.raises(InputError, match="one has no spread"):
        check(SCENARIOS["GNs"], METHODS["hop_sup_sup"](), "hop_sup_sup", Inference(rule="exhaustive"), net, 10)
