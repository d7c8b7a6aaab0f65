"""The Hopfield network: Storkey's learning rule, and recovery by gradient descent."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import pytest
import torch
from torch import Tensor

from supsup_core.errors import InputError
from supsup_core.methods.hopfield_memory import Recovery, energy, sign, storkey


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
