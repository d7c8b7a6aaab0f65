"""The training loop, its recipe, and the loss curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from supsup_core import seeding
from supsup_core.errors import CorruptError, DivergedError, InputError
from supsup_core.field_limits import MOST_IMAGES, MOST_RATE, check_limits, limited
from supsup_core.kernels.matmul import Precision, products_in
from supsup_core.tasks.base import TrainingPart
from supsup_core.training.checkpoint import NOWHERE, Checkpoint
from supsup_core.training.optimizers import OPTIMIZERS
from supsup_core.training.parametrizations import Parametrization

MOST_TASK_IMAGES = 500_000_000
"""The largest number of training images of one task over all epochs. The order of these images is drawn before training
starts, and needs memory. 90 epochs of ImageNet have 115 million images."""

LossGradients: TypeAlias = "Callable[[Sequence[Tensor], Tensor, Tensor], tuple[Tensor, list[Tensor]]]"
"""A function from the weights of all layers, images and labels to the mean loss and its gradient for each weight."""


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How one task is trained. The defaults are the paper's values for MNIST.

    `num_batches`: the number of optimiser steps, of `batch_size` images each. `schedule`: with `constant`, the learning
    rate stays `learning_rate`; with `cosine`, the rate falls along a half cosine to 0 after the last batch. With either
    schedule, the learning rate first rises linearly during the first `warmup_batches` batches. `weight_decay`: this
    number times the parameter is added to the parameter's gradient (an L2 penalty). `momentum`: the momentum of sgd.
    `precision`: the number format of matrix products and convolutions in the forward and backward pass. All other
    numbers, such as the scores and the optimiser's state, are float32.
    """

    optimizer: str = "rmsprop"
    learning_rate: float = limited(1e-4, most=MOST_RATE)
    num_batches: int = limited(1000, least=1, most=10_000_000)
    batch_size: int = limited(128, least=1, most=MOST_IMAGES)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_batches: int = 0
    weight_decay: float = limited(0.0, most=MOST_RATE)
    momentum: float = 0.0
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        check_limits(self)
        optimizer = OPTIMIZERS.under("optimizer", self.optimizer)
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate: must be positive, not {self.learning_rate}")
        if self.num_batches * self.batch_size > MOST_TASK_IMAGES:
            raise InputError(
                f"num_batches: {self.num_batches:,} batches of {self.batch_size:,} images are more than "
                f"{MOST_TASK_IMAGES:,} images for a task; lower num_batches or batch_size"
            )
        if not 0 <= self.warmup_batches < self.num_batches:
            raise InputError(
                f"warmup_batches: must be from 0 to below num_batches={self.num_batches}, not {self.warmup_batches}"
            )
        if not self.weight_decay >= 0:
            raise InputError(f"weight_decay: must not be negative, not {self.weight_decay}")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum: must be in [0, 1), not {self.momentum}")
        if self.momentum and not optimizer.has_momentum:
            raise InputError(
                f"momentum: optimizer {self.optimizer} has no momentum; remove momentum, or set optimizer=sgd"
            )

    @property
    def changes_rate(self) -> bool:
        """Whether the learning rate changes in the course of a training."""
        return self.schedule != "constant" or self.warmup_batches > 0

    def rate(self, done: int) -> float:
        """The learning rate of the optimiser step that follows `done` batches."""
        if done < self.warmup_batches:
            return self.learning_rate * (done + 1) / self.warmup_batches
        if self.schedule == "constant":
            return self.learning_rate
        share = (done - self.warmup_batches) / (self.num_batches - self.warmup_batches)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


@dataclass(frozen=True)
class LossCurve:
    """The training loss over time, measured on consecutive intervals of batches.

    `batches`: the number of batches done at the end of each interval. `losses`: the mean loss of each interval.
    """

    batches: list[int]
    losses: list[float]


NUM_POINTS = 10
"""The default for the largest number of points of a loss curve. Short curves keep the records of thousands of tasks
small."""


def batch_order(recipe: TrainingRecipe, task: TrainingPart, seed: int) -> Tensor:
    """Draws from `seed` which training images each batch has.

    Returns the indices of these images, (num_batches, batch_size).
    """
    return torch.from_numpy(seeding.batches(seed, task.num_train, recipe.num_batches, recipe.batch_size))


@torch.no_grad()
def restore(live: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
    """Copy the tensors of `stored` into the tensors of `live` with the same names.

    Raises CorruptError, before any copy, if the names or shapes differ.
    """
    if {name: t.shape for name, t in live.items()} != {name: t.shape for name, t in stored.items()}:
        raise CorruptError("the checkpoint's tensors do not fit the net and the optimiser")
    for name, tensor in live.items():
        tensor.copy_(stored[name])


class _Progress:
    """The progress of a training: batches done, the tasks' loss curves, and the losses since the last curve point."""

    def __init__(self, num_tasks: int, num_batches: int, num_points: int) -> None:
        self.done = self._since = 0
        self._total = torch.zeros(num_tasks, dtype=torch.float64)
        self._batches: list[int] = []
        self._losses: list[list[float]] = []
        self._num_batches = num_batches
        self._interval = -(-num_batches // num_points)

    @property
    def complete(self) -> bool:
        """Whether all batches are done."""
        return self.done == self._num_batches

    def add(self, loss: Tensor) -> None:
        """Add the losses of one batch, a scalar or (tasks,).

        Raises DivergedError if the mean loss since the last curve point is NaN or infinite.
        """
        self._total = self._total.to(loss.device) + loss.double()
        self._since += 1
        self.done += 1
        if self.done % self._interval == 0 or self.complete:
            means = [total / self._since for total in self._total.tolist()]
            infinite = [mean for mean in means if not math.isfinite(mean)]
            if infinite:
                raise DivergedError(
                    f"the training loss is {infinite[0]} after {self.done} batches; lower the learning rate"
                )
            self._batches.append(self.done)
            self._losses.append(means)
            self._total, self._since = torch.zeros_like(self._total), 0

    def curves(self) -> list[LossCurve]:
        """The loss curve of each task."""
        return [
            LossCurve(list(self._batches), [point[task] for point in self._losses]) for task in range(len(self._total))
        ]

    @property
    def state(self) -> dict[str, Tensor]:
        """The progress as float64 tensors, by name, in the form in which a checkpoint stores it."""
        return {
            "progress.counts": torch.tensor([self.done, self._since], dtype=torch.float64),
            "progress.total": self._total.cpu(),
            "progress.batches": torch.tensor(self._batches, dtype=torch.float64),
            "progress.losses": torch.tensor(self._losses, dtype=torch.float64),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore the progress from a stored `state`."""
        self.done, self._since = (int(count) for count in state["progress.counts"])
        self._total = state["progress.total"]
        self._batches = [int(count) for count in state["progress.batches"]]
        self._losses = state["progress.losses"].tolist()


def train(
    task: TrainingPart, order: Tensor, step: Step, num_points: int = NUM_POINTS, checkpoint: Checkpoint = NOWHERE
) -> LossCurve:
    """Call `step(x, y)` for each batch of a task. Returns the loss curve, with at most `num_points` points.

    order: the image indices of each batch, (batches, batch_size). Training resumes from the newest stored state in
    `checkpoint` that fits `step`. The result has the same bits as without interruption. Raises DivergedError if the
    loss becomes NaN or infinite.
    """
    progress = _Progress(1, len(order), num_points)
    (curve,) = _run(lambda done: task.train_batch(order[done]), step, progress, checkpoint)
    return curve


def train_together(
    tasks: Sequence[TrainingPart],
    orders: Tensor,
    step: Step,
    num_points: int = NUM_POINTS,
    checkpoint: Checkpoint = NOWHERE,
) -> list[LossCurve]:
    """Trains T tasks at once, as `train` does for one task. Returns the loss curve of each task.

    orders: image indices, (T, batches, batch_size). step: takes x (T, batch, *shape) and y (T, batch), and returns the
    losses (T,).
    """
    progress = _Progress(len(tasks), orders.shape[1], num_points)

    def batch(done: int) -> tuple[Tensor, Tensor]:
        parts = [task.train_batch(order[done]) for task, order in zip(tasks, orders, strict=True)]
        return torch.stack([x for x, _ in parts]), torch.stack([y for _, y in parts])

    return _run(batch, step, progress, checkpoint)


def _run(
    batch: Callable[[int], tuple[Tensor, Tensor]], step: Step, progress: _Progress, checkpoint: Checkpoint
) -> list[LossCurve]:
    """Call `step` with `batch(0)`, `batch(1)`, … until `progress` is complete. Returns the loss curve of each task.

    Training resumes from the newest stored state in `checkpoint` that fits `step`.
    """
    for state in checkpoint.stored_states():
        of_step = {name: tensor for name, tensor in state.items() if name not in progress.state}
        try:
            restore(step.state, of_step)
        except CorruptError:
            continue  # written by a different program version; resuming from an older state costs only time
        progress.restore(state)
        break
    while not progress.complete:
        progress.add(step(*batch(progress.done)))
        if checkpoint.due() and not progress.complete:
            checkpoint.save(progress.done, {**step.state, **progress.state})
    return progress.curves()


class Step:
    """One optimiser step: computes the weights of all layers and their gradients, then updates the trained tensors.

    layers: the parametrizations, whose trained tensors each step updates in place. loss_gradients: `Net.loss_gradients`
    or a function with the same signature.
    """

    def __init__(
        self, layers: Sequence[Parametrization], recipe: TrainingRecipe, loss_gradients: LossGradients
    ) -> None:
        self._layers = layers
        self._recipe = recipe
        self._loss_gradients = loss_gradients
        self._trained = [tensor for layer in layers for tensor in layer.tensors]
        self._optimizer = OPTIMIZERS[recipe.optimizer](self._trained, recipe.momentum)
        self._done = torch.zeros((), dtype=torch.int64)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Train on images x (batch, *shape) and labels y (batch,). Returns the mean loss before the update."""
        device = self._trained[0].device
        weights = [layer.weight() for layer in self._layers]
        with products_in(self._recipe.precision, device):
            loss, products = self._loss_gradients(weights, x.to(device), y.to(device))
        gradients = [gradient.float() for gradient in products]
        found = [g for layer, gradient in zip(self._layers, gradients, strict=True) for g in layer.gradients(gradient)]
        if self._recipe.weight_decay:
            for tensor, gradient in zip(self._trained, found, strict=True):
                gradient.add_(tensor, alpha=self._recipe.weight_decay)
        self._optimizer.step(found, self._recipe.rate(int(self._done)))
        self._done += 1
        return loss

    @property
    def state(self) -> dict[str, Tensor]:
        """The tensors that an exact resume needs, by name: the step count, the trained tensors, the optimiser's state.

        The tensors are not copies: each step changes them in place.
        """
        trained = {f"trained.{index}": tensor for index, tensor in enumerate(self._trained)}
        return {"done": self._done, **trained, **self._optimizer.state}
