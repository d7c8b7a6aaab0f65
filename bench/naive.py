"""A straightforward PyTorch implementation of SupSup on PermutedMNIST, with which `bench.sweep` compares the platform.

    python -m bench.naive TASKS [BATCHES] [lean]

It does the work of the variant "SupSup, H" in `sweeps/fig07_permuted_lenet.yaml`: LeNet 300-100 with 100 outputs,
threshold masks, and scenario GNu with one-shot inference and the entropy objective. It uses a DataLoader with a
transform for each sample, autograd, and torch.optim.RMSprop. It stores the scores of each task as floats, and stacks
all masks as floats for inference. It shares only the reading of MNIST with the platform.

torchvision cannot be installed beside the pinned PyTorch, so `Compose` repeats the operations of its transforms. With
`lean`, the transforms use as few operations as possible. Prints accuracy and seconds as JSON.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from supsup_core.tasks import BENCHMARKS

WIDTHS = (784, 300, 100, 100)
NUM_LABELS, BATCH = 10, 128


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Images and labels; each image is transformed when it is read."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Tensor], Tensor]) -> None:
        self._images = images
        self._labels = labels
        self._transform = transform

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._transform(self._images[index]), self._labels[index]


class Compose:
    """ToTensor, Normalize and a permutation of the pixels, with torchvision's operations on a Pillow image."""

    def __init__(self, order: Tensor) -> None:
        self._order = order

    def __call__(self, pixels: Tensor) -> Tensor:
        picture = Image.fromarray(pixels.numpy())
        tensor = torch.from_numpy(np.array(picture, np.uint8, copy=True)).view(picture.size[1], picture.size[0], 1)
        tensor = tensor.permute(2, 0, 1).contiguous().to(torch.float32).div(255).clone()
        mean, std = torch.as_tensor([0.1307]), torch.as_tensor([0.3081])
        if (std == 0).any():
            raise ValueError("a standard deviation of 0")
        tensor.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))
        return tensor.flatten()[self._order]


class Lean(Compose):
    """The same transform in as few operations as possible, still for one sample at a time."""

    def __call__(self, pixels: Tensor) -> Tensor:
        return ((pixels.float() / 255 - 0.1307) / 0.3081).flatten()[self._order]


class Subnet(torch.autograd.Function):
    """Computes the mask from the scores, and passes the mask's gradient to the scores (straight-through estimator)."""

    @staticmethod
    def forward(ctx: object, scores: Tensor) -> Tensor:
        return (scores >= 0).float()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


class MultitaskMaskLinear(nn.Linear):
    """A fixed weight with scores for each task. If no task is set, it uses the superposition with `alphas`."""

    stacked: Tensor
    alphas: Tensor

    def __init__(self, fan_in: int, fan_out: int, num_tasks: int) -> None:
        super().__init__(fan_in, fan_out, bias=False)
        with torch.no_grad():
            self.weight.copy_(self.weight.sign() * math.sqrt(2 / fan_in))
        self.weight.requires_grad_(False)
        self.scores = nn.ParameterList(nn.Parameter(torch.empty_like(self.weight)) for _ in range(num_tasks))
        for scores in self.scores:
            nn.init.kaiming_uniform_(scores, a=math.sqrt(5))
        self.task: int | None = None

    def stack(self) -> None:
        """Stacks the masks of all tasks as one float tensor, for inference."""
        self.stacked = torch.stack([Subnet.apply(scores).detach() for scores in self.scores])

    def forward(self, x: Tensor) -> Tensor:
        if self.task is None:
            mask = (self.alphas[:, None, None] * self.stacked).sum(0)
        else:
            mask = Subnet.apply(self.scores[self.task])
        return F.linear(x, self.weight * mask)


class LeNet(nn.Sequential):
    """LeNet 300-100 made of MultitaskMaskLinear layers."""

    def __init__(self, num_tasks: int) -> None:
        self.masked = [MultitaskMaskLinear(*widths, num_tasks) for widths in itertools.pairwise(WIDTHS)]
        super().__init__(self.masked[0], nn.ReLU(), self.masked[1], nn.ReLU(), self.masked[2])

    def set_task(self, task: int | None, alphas: Tensor | None = None) -> None:
        """Selects the mask of one task in every layer, or the superposition of all masks if task is None."""
        for layer in self.masked:
            layer.task = task
            if alphas is not None:
                layer.alphas = alphas


def train(model: LeNet, task: int, loader: DataLoader[tuple[Tensor, Tensor]], num_batches: int) -> None:
    """Trains the scores of one task."""
    model.set_task(task)
    optimizer = torch.optim.RMSprop([layer.scores[task] for layer in model.masked], lr=1e-4)
    done = 0
    while done < num_batches:
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            done += 1
            if done == num_batches:
                break


def infer(model: LeNet, x: Tensor, num_tasks: int) -> int:
    """Returns the task whose alpha has the most negative entropy gradient (the one-shot rule)."""
    alphas = torch.full((num_tasks,), 1 / num_tasks, requires_grad=True)
    model.set_task(None, alphas)
    log_p = torch.log_softmax(model(x), 1)
    entropy = -(log_p.exp() * log_p).sum(1).mean()
    (gradient,) = torch.autograd.grad(entropy, alphas)
    return int(gradient.argmin())


def evaluate(model: LeNet, loaders: list[DataLoader[tuple[Tensor, Tensor]]]) -> float:
    """Returns the accuracy in percent in GNu. The first image of each batch decides the task for the whole batch.

    An answer is right only if both the label and the task are right.
    """
    for layer in model.masked:
        layer.stack()
    right = total = 0
    for task, loader in enumerate(loaders):
        for x, y in loader:
            found = infer(model, x[:1], len(loaders))
            model.set_task(found)
            with torch.no_grad():
                correct = int((model(x).argmax(1) == y).sum())
            right += correct * (found == task)
            total += len(y)
    return 100 * right / total


def run(num_tasks: int, num_batches: int = 1000, transform: type[Compose] = Compose) -> dict[str, float]:
    """Trains and evaluates. Returns the accuracy in percent, all seconds after MNIST is read, and those of training."""
    torch.manual_seed(0)
    data = BENCHMARKS["permuted"](base="mnist").source().load(Path(os.environ["SUPSUP_DATA"]))
    started = time.perf_counter()
    model = LeNet(num_tasks)
    tests = []
    trained = 0.0
    for task in range(num_tasks):
        permute = transform(torch.randperm(784))
        train_set = Samples(data.train.pixels, data.train.labels, permute)
        test_set = Samples(data.test.pixels, data.test.labels, permute)
        tests.append(DataLoader(test_set, BATCH, shuffle=True))
        since = time.perf_counter()
        train(model, task, DataLoader(train_set, BATCH, shuffle=True), num_batches)
        trained += time.perf_counter() - since
        print(f"task {task + 1}/{num_tasks}: {trained / (task + 1):.1f} s each", file=sys.stderr)
    accuracy = evaluate(model, tests)
    return {"accuracy": accuracy, "seconds": time.perf_counter() - started, "training_seconds": trained}


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:] if argument != "lean"]
    print(json.dumps(run(*numbers, transform=Lean if "lean" in sys.argv else Compose)))
