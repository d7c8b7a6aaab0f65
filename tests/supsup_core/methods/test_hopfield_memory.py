"""The Hopfield network: Storkey's learning rule, and recovery by gradient descent."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import pytest
import torch
from torch import Tensor

from supsup_core.errors import InputError
from supsup_core.methods.hopfield_memory import Recovery, energy, sign, storkey, storkey_of_the_authors


def patterns(count: int, size: int, seed: int = 0) -> Tensor:
    return sign(torch.randn(count, size, generator=torch.Generator().manual_seed(seed)))


def test_storkeys_rule_equals_the_published_formula() -> None:
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


def test_stored_patterns_have_low_energy_and_are_attractors() -> None:
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
def test_the_descent_ends_at_the_pattern_that_the_objective_prefers(descent: Literal["memory", "paper"]) -> None:
    """The objective prefers one stored pattern, but only in half of its units. The Hopfield network completes it."""
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


def test_the_memory_descent_stays_in_the_span_of_the_stored_patterns() -> None:
    """The part of the objective's gradient outside the span of the patterns has no effect."""
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


def test_further_tries_find_other_patterns_and_the_best_is_returned() -> None:
    """The gradient leads to one pattern, but the objective is smallest at another pattern."""
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
    with pytest.raises(InputError, match="needs at least 64 images, but only 63 are given"):
        Recovery().recover([], [], 1, lambda z, x: torch.zeros(()), torch.ones(63, 1))


class _Signs(torch.autograd.Function):
    """A gate of 1 where the score is not negative, else 0, with a straight-through gradient."""

    @staticmethod
    def forward(ctx: object, score: Tensor) -> Tensor:
        return (score >= 0).float()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient


def test_the_papers_descent_takes_the_steps_of_torchs_sgd_on_scores_of_gates() -> None:
    """A second implementation, in the form of the authors' code: autograd on scores, and torch.optim.SGD."""
    generator = torch.Generator().manual_seed(3)
    stored, direction = patterns(4, 80), torch.randn(80, 10, generator=generator)
    memory = torch.zeros(80, 80)
    for z in stored:
        memory = storkey_of_the_authors(memory, z)
    images = torch.randn(64 * 2, 80, generator=generator)

    def entropy(gate: Tensor, batch: Tensor) -> Tensor:
        log_p = torch.log_softmax((batch * gate) @ direction, 1)
        return -(log_p.exp() * log_p).sum(1).mean()

    recovery = Recovery(descent="paper", tries=1)
    found = recovery.recover(
        [memory], [stored.mean(0)], 4, lambda z, batch: entropy((z[0] + 1) / 2, batch), images
    )  # fmt: skip

    score = stored.mean(0).clone().requires_grad_()
    optimizer = torch.optim.SGD([score], lr=500, momentum=0.9, weight_decay=1e-4)
    path = []
    for step in range(30):
        path.append(2 * (score >= 0).float() - 1)
        gate = _Signs.apply(score)
        weight = (step + 1) / 30
        z = 2 * gate - 1
        loss = (1 - weight) * entropy(gate, images[64 * (step % 2) :][:64]) + weight * 1.5e-3 * -0.5 * z @ memory @ z
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    path.append(2 * (score >= 0).float() - 1)
    assert len({tuple(z.tolist()) for z in path}) > 3  # the descent moves
    for (ours,), theirs in zip(found.path, path, strict=True):
        assert torch.equal(ours, theirs)


def test_the_authors_rule_stores_patterns_with_local_fields_over_all_units() -> None:
    stored = patterns(3, 6)
    memory = torch.zeros(6, 6)
    for z in stored:
        wanted = memory.clone()
        field = [sum(float(memory[i, k] * z[k]) for k in range(6)) for i in range(6)]
        for i in range(6):
            for j in range(6):
                own = float(z[i] * z[j]) if i != j else 0.0
                wanted[i, j] += (own - float(z[i]) * field[j] - field[i] * float(z[j])) / 6
        memory = storkey_of_the_authors(memory, z)
        torch.testing.assert_close(memory, wanted)
