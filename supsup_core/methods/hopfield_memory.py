"""Stores masks in a Hopfield network by Storkey's rule, and recovers them by gradient descent (paper, section 3.6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from supsup_core.errors import InputError
from supsup_core.field_limits import check_limits, limited


def storkey(memory: Tensor, z: Tensor) -> Tensor:
    """Returns a copy of a memory (d, d) that also stores the pattern z (d,) of -1 and +1 (Storkey 1997).

    A memory is the weight matrix W of a Hopfield network. The rule changes each entry W_ij of W to W_ij + (z_i z_j -
    z_i h_ji - h_ij z_j) / d. The local field h_ij is the sum of W_ik z_k over all k other than i and j. The diagonal
    stays 0.
    """
    size = len(z)
    field = memory @ z
    local = field[:, None] - memory.diagonal()[:, None] * z[:, None] - memory * z[None, :]
    change = (torch.outer(z, z) - z[:, None] * local.t() - local * z[None, :]) / size
    return (memory + change).fill_diagonal_(0)


def storkey_of_the_authors(memory: Tensor, z: Tensor) -> Tensor:
    """Returns a copy of a memory (d, d) that also stores the pattern z (d,) of -1 and +1, as in the authors' code.

    In contrast to `storkey`, the local field h_ij is the sum of W_ik z_k over all k. Only the product z_i z_j is left
    out on the diagonal.
    """
    outer = torch.outer(z, memory @ z)
    return memory + (torch.outer(z, z) - torch.eye(len(z), device=z.device) - outer - outer.t()) / len(z)


def energy(memories: Sequence[Tensor], z: Sequence[Tensor]) -> Tensor:
    """Returns the Hopfield energy E(z) = -1/2 z^T W z, summed over the layers. Stored patterns have low energy.

    memories: W (d, d) for each layer. z: (d,) for each layer.
    """
    return torch.stack([-0.5 * torch.dot(part, memory @ part) for memory, part in zip(memories, z, strict=True)]).sum()


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """Recovers a mask by the paper's gradient descent, or by this project's variant.

    In step t = 1, 2, … of T = `num_steps` steps, a descent minimises gamma * w * E(z) + (1 - w) * H(p) on a batch of
    `batch_size` images. E is the Hopfield energy, and H(p) the objective of the net's outputs p. `descent` selects one
    of two variants:

    - `paper`: the descent of the authors' code. w = t/T. z is the sign of the trained variable, and a gate is (z + 1) /
      2. Both signs and gates have straight-through gradients, and a gate moves z by 2, so the gradients are twice those
      with respect to z. The gradient of H can move z along any of the d dimensions, so the descent may leave the
      span of the stored patterns, and end at another pattern than the right one.
    - `memory`: this project's descent. w = (t - 1)/T. z is the trained variable itself, clamped to [-1, 1]. The net
      therefore starts with the superposition of all masks. The gradient of H is multiplied by each layer's memory.
      Multiplying by the memory projects the gradient onto the span of the stored patterns.

    For some tasks, a descent ends at a wrong pattern, for any choice of the task's images. `recover` therefore makes up
    to `tries` descents. After each descent, `recover` removes the recovered pattern from the memories and from the
    starting point of the next descent. `recover` returns the recovered pattern with the smallest objective over all
    images.
    """

    gamma: float = 1.5e-3
    learning_rate: float = 500.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch_size: int = limited(64, least=1)
    num_steps: int = limited(30, least=1)
    descent: Literal["memory", "paper"] = "memory"
    tries: int = limited(3, least=1)

    def __post_init__(self) -> None:
        for name in ("gamma", "learning_rate"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}: must be positive, not {getattr(self, name)}")
        check_limits(self)
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum: must be in [0, 1), not {self.momentum}")

    def recover(
        self,
        memories: Sequence[Tensor],
        start: Sequence[Tensor],
        num_patterns: int,
        objective_of: Callable[[Sequence[Tensor], Tensor], Tensor],
        x: Tensor,
    ) -> Recovered:
        """Recovers a pattern from images x (count, *shape) of one task. Each descent cycles through batches of x.

        memories: a Hopfield weight matrix (d, d) for each gate layer. start: the mean of the `num_patterns` stored
        patterns, (d,) for each gate layer. objective_of(z, images): a function that returns the objective of the net's
        outputs on `images` under the pattern z. Raises InputError if x has fewer than `batch_size` images.
        """
        if len(x) < self.batch_size:
            raise InputError(
                f"recovering a mask needs at least {self.batch_size} images, but only {len(x)} are given; lower "
                "method.recovery_batch"
            )
        found: list[tuple[float, Recovered]] = []
        for left in range(num_patterns, max(0, num_patterns - self.tries), -1):
            recovered = self._descend(memories, start, objective_of, x)
            pattern = recovered.pattern
            with torch.no_grad():
                found.append((float(objective_of(pattern, x)), recovered))
            if left > 1:
                memories = [_forget(memory, z) for memory, z in zip(memories, pattern, strict=True)]
                start = [(left * mean - z) / (left - 1) for mean, z in zip(start, pattern, strict=True)]
        return min(found, key=lambda one: one[0])[1]

    def _descend(
        self,
        memories: Sequence[Tensor],
        start: Sequence[Tensor],
        objective_of: Callable[[Sequence[Tensor], Tensor], Tensor],
        x: Tensor,
    ) -> Recovered:
        values = [part.clone() for part in start]
        velocities = [torch.zeros_like(part) for part in values]
        batches = torch.split(x, self.batch_size)[: len(x) // self.batch_size]
        path = []
        is_paper = self.descent == "paper"
        scale = 2 if is_paper else 1
        for step in range(self.num_steps):
            share = (step + is_paper) / self.num_steps
            z = [sign(part) if is_paper else part.clone() for part in values]
            path.append(z)
            leaves = [part.detach().requires_grad_() for part in z]
            slopes = torch.autograd.grad(objective_of(leaves, batches[step % len(batches)]), leaves)
            for memory, value, velocity, now, slope in zip(memories, values, velocities, z, slopes, strict=True):
                downhill = slope if is_paper else memory @ slope
                velocity.mul_(self.momentum).add_(downhill, alpha=scale * (1 - share))
                velocity.add_(memory @ now, alpha=-scale * self.gamma * share)  # the gradient of the energy
                value.add_(velocity.add_(value, alpha=self.weight_decay), alpha=-self.learning_rate)
                if not is_paper:
                    value.clamp_(-1, 1)
        pattern = [sign(part) for part in values]
        return Recovered(pattern, [*path, pattern])


@dataclass(frozen=True)
class Recovered:
    """`pattern`: the recovered pattern, one tensor (d,) of -1 and +1 for each gate layer.

    `path`: the values of z before each step of the descent, followed by `pattern`.
    """

    pattern: list[Tensor]
    path: list[list[Tensor]]


def _forget(memory: Tensor, z: Tensor) -> Tensor:
    """Returns a copy of a memory (d, d) from which the pattern z (d,) is removed ("unlearned"). The diagonal stays 0.

    Source: Hopfield, Feinstein and Palmer 1983.
    """
    return (memory - torch.outer(z, z) / len(z)).fill_diagonal_(0)


def sign(values: Tensor) -> Tensor:
    """Returns the sign of each value, -1 or +1. The sign of 0 is +1."""
    return torch.where(values >= 0, 1.0, -1.0)
