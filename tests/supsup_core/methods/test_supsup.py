"""SupSup: the density of each layer, stacked tasks, and transfer from earlier tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from supsup_core.datasets import Dataset
from supsup_core.errors import InputError
from supsup_core.masks import codec, erdos_renyi_density, num_kept
from supsup_core.methods import METHODS, Method, Problem
from supsup_core.methods.learners import accuracy
from supsup_core.methods.supsup import sort_like
from supsup_core.nets import NETS
from supsup_core.tasks import BENCHMARKS
from supsup_core.training.loop import TrainingRecipe
from tests.supsup_core.memory_checkpoint import MemoryCheckpoint


def kept_by_layer(state: Mapping[str, Tensor], problem: Problem) -> list[int]:
    bits, size = codec.decode(state["mask"].numpy().tobytes())
    flat = torch.from_numpy(codec.unpack(bits, size).astype(int))
    return [int(part.sum()) for part in torch.split(flat, [layer.size for layer in problem.layers])]


def test_an_erdos_renyi_budget_gives_small_layers_a_higher_density(small_problem: Problem, digits: Dataset) -> None:
    method = METHODS["supsup"](mask="top_k", erdos_renyi=4.0)
    task = BENCHMARKS["permuted"](base="digits").task(0, digits, 0)
    found = kept_by_layer(method.learn(small_problem, 0, task, []).state, small_problem)
    shapes = [layer.shape for layer in small_problem.layers]
    shares = [4 * (out + into) / (out * into) for out, into in shapes]
    wanted = [round(min(0.5, share) * out * into) for share, (out, into) in zip(shares, shapes, strict=True)]
    assert found == wanted
    assert erdos_renyi_density(2.0, (64, 32, 3, 3)) == pytest.approx(2 * 96 / (64 * 32 * 9))
    assert erdos_renyi_density(1000.0, (10, 10)) == 0.5


@pytest.mark.parametrize(
    "fields",
    [
        {"erdos_renyi": 2.0},
        {"mask": "top_k", "erdos_renyi": 0.0},
        {"mask": "top_k", "erdos_renyi": 2.0, "density": 0.1},
    ],
)
def test_invalid_erdos_renyi_budgets_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InputError, match="erdos_renyi"):
        METHODS["supsup"](**fields)


VARIANTS = [{}, {"mask": "top_k", "density": 0.3}, {"mask": "top_k", "density": 0.3, "rank": "raw"}]


def learned(method: Method, problem: Problem, digits: Dataset, tasks: list[int]) -> list[Mapping[str, Tensor]]:
    benchmark = BENCHMARKS["permuted"](base="digits")
    states: list[Mapping[str, Tensor]] = []
    for index, task in enumerate(tasks):
        parents = [states[parent] for parent in method.dependence.parents(index)]
        states.append(method.learn(problem, index, benchmark.task(task, digits, 0), parents).state)
    return states


@pytest.mark.parametrize("fields", [{}, {"mask": "top_k", "density": 0.3}, {"mask": "top_k", "rank": "raw"}])
def test_stacked_tasks_have_exact_densities_and_resume_after_a_crash(
    fields: dict[str, object], small_problem: Problem, digits: Dataset
) -> None:
    """Four tasks are interrupted while a checkpoint is saved. Resuming from the previous one gives the same bits."""
    method = METHODS["supsup"](**fields)
    tasks = [BENCHMARKS["permuted"](base="digits").task(index, digits, 0) for index in range(4)]
    wanted = method.learn_together(small_problem, range(4), tasks)
    keep = MemoryCheckpoint()
    with pytest.raises(KeyboardInterrupt):
        method.learn_together(small_problem, range(4), tasks, keep)
    keep.interrupts = False
    found = method.learn_together(small_problem, range(4), tasks, keep)
    for one, other in zip(found, wanted, strict=True):
        assert one.curve == other.curve
        assert torch.equal(one.state["mask"], other.state["mask"])
        if fields:
            kept = kept_by_layer(one.state, small_problem)
            sizes = [layer.size for layer in small_problem.layers]
            share = fields.get("density", 0.5)
            assert kept == [num_kept(share, size) for size in sizes]


@pytest.mark.parametrize("transfer", ["masks", "scores"])
@pytest.mark.parametrize("fields", VARIANTS)
def test_transfer_helps_a_task_that_is_similar_to_the_earlier_ones(
    digits: Dataset, fields: dict[str, object], transfer: str
) -> None:
    """After three trainings of the same task, a short fourth training with transfer is more accurate than without."""
    long, short = TrainingRecipe(num_batches=150, learning_rate=1e-3), TrainingRecipe(num_batches=4, learning_rate=1e-3)
    problem = Problem(NETS["lenet_300_100"](num_outputs=10), (64,), 10, long, seed=0)
    brief = replace(problem, recipe=short)
    task = BENCHMARKS["permuted"](base="digits").task(0, digits, 0)
    ahead = METHODS["supsup"](transfer=transfer, **fields)
    before = learned(ahead, problem, digits, [0, 0, 0])
    scores = []
    for method, parents in ((ahead, before[-1:]), (METHODS["supsup"](**fields), [])):
        state = method.learn(brief, 3, task, parents).state
        scores.append(accuracy(method.learner(problem, [*before, state]), task, 3))
    assert scores[0] > scores[1] + 0.05


@pytest.mark.parametrize("fields", VARIANTS)
def test_transfer_keeps_exact_densities_and_stores_the_sum_of_the_masks(
    small_problem: Problem, digits: Dataset, fields: dict[str, object]
) -> None:
    states = learned(METHODS["supsup"](transfer="masks", **fields), small_problem, digits, [0, 1, 2])
    masks = []
    for state in states:
        bits, size = codec.decode(state["mask"].numpy().tobytes())
        masks.append(torch.from_numpy(codec.unpack(bits, size).astype(int)))
    carried = torch.cat([states[-1][f"shared.{layer.name}"].flatten() for layer in small_problem.layers])
    assert torch.equal(carried, torch.stack(masks).sum(0).int())
    if fields:
        wanted = [num_kept(0.3, layer.size) for layer in small_problem.layers]
        assert all(kept_by_layer(state, small_problem) == wanted for state in states)


@pytest.mark.parametrize("by_size", [True, False])
def test_sort_like_keeps_the_values_and_sorts_them_like_the_mean(by_size: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(6, 50, generator=generator)
    mean = torch.randint(0, 4, (6, 50), generator=generator) / 3
    found = sort_like(drawn, mean, by_size)
    ranked, values = (found.abs(), drawn.abs()) if by_size else (found, drawn)
    assert torch.equal(ranked.flatten().sort().values, values.flatten().sort().values)
    for low, high in ((0, 1), (1, 2), (2, 3)):
        assert float(ranked[mean == low / 3].max()) <= float(ranked[mean == high / 3].min())
    tied = mean == 0
    assert torch.equal(ranked[tied].argsort(), values[tied].argsort())
    if by_size:
        assert torch.equal(found.sign(), drawn.sign())


def test_transfer_is_refused_in_nns(small_problem: Problem) -> None:
    with pytest.raises(InputError, match="transfer"):
        METHODS["supsup"](transfer="masks").begin(small_problem, 0)
