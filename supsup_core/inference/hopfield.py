"""Masks in a Hopfield network: stored by Storkey's rule, recovered by descent (paper, section 3.6: HopSupSup)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from supsup_core.errors import InputError


def storkey(memory: Tensor, z: Tensor) -> Tensor:
    """A memory (d, d) with one pattern z (d,) of -1 and +1 more (Storkey 1997).

    W_ij + (z_i z_j - z_i h_ji - h_ij z_j) / d, with the local field h_ij = sum over k other than i, j of W_ik z_k;
    the diagonal stays 0.
    """
    size = len(z)
    field = memory @ z
    local = field[:, None] - memory.diagonal()[:, None] * z[:, None] - memory * z[None, :]
    change = (torch.outer(z, z) - z[:, None] * local.t() - local * z[None, :]) / size
    return (memory + change).fill_diagonal_(0)


def energy(memories: Sequence[Tensor], z: Sequence[Tensor]) -> Tensor:
    """E(z) = -1/2 z W z, summed over the layers; low at stored patterns."""
    return torch.stack([-0.5 * torch.dot(part, memory @ part) for memory, part in zip(memories, z, strict=True)]).sum()


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """How a mask is recovered: the paper's constants.

    Descends gamma * t/T * E(z) + (1 - t/T) * H(p) by gradient descent, T = `num_steps`, on batches of `batch_size`
    images each. z, which energy and net are shown, is the `sign` of what is descended on, with a straight-through
    gradient, as in the paper; or, `real`, that itself cut to [-1, 1], whose sign is taken at the end alone: then the
    net starts under the superposition of all masks, not under the one that most of them agree on.
    """

    gamma: float = 1.5e-3
    learning_rate: float = 500.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch_size: int = 64
    num_steps: int = 30
    gates: Literal["sign", "real"] = "real"

    def __post_init__(self) -> None:
        for name in ("gamma", "learning_rate"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}: must be positive, not {getattr(self, name)}")
        for name in ("batch_size", "num_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum: must be in [0, 1), not {self.momentum}")

    def recover(
        self,
        memories: Sequence[Tensor],
        start: Sequence[Tensor],
        entropy_of: Callable[[Sequence[Tensor], Tensor], Tensor],
        x: Tensor,
        watch: Callable[[Sequence[Tensor]], None] = lambda z: None,
    ) -> list[Tensor]:
        """The pattern -1, +1 of each layer (d,) that the descent ends at.

        start: the mean of the stored patterns. entropy_of(z, images): the objective under gates z. x: images
        (count, *shape), a batch at least, taken in order and from the start again once all were seen. watch: is
        shown z before each step and the pattern at the end.
        """
        if len(x) < self.batch_size:
            raise InputError(
                f"recovery takes batches of {self.batch_size} images and {len(x)} are at hand; lower "
                "method.recovery_batch"
            )
        values = [part.clone() for part in start]
        velocities = [torch.zeros_like(part) for part in values]
        batches = torch.split(x, self.batch_size)[: len(x) // self.batch_size]
        for step in range(self.num_steps):
            share = step / self.num_steps
            images = batches[step % len(batches)]
            z = [(sign(part) if self.gates == "sign" else part.clamp(-1, 1)).requires_grad_() for part in values]
            watch(z)
            loss = self.gamma * share * energy(memories, z) + (1 - share) * entropy_of(z, images)
            for value, velocity, slope in zip(values, velocities, torch.autograd.grad(loss, z), strict=True):
                velocity.mul_(self.momentum).add_(slope + self.weight_decay * value)
                value.add_(velocity, alpha=-self.learning_rate)
        found = [sign(part) for part in values]
        watch(found)
        return found


def sign(values: Tensor) -> Tensor:
    """-1 or +1, +1 for 0."""
    return torch.where(values >= 0, 1.0, -1.0)
