"""Residual networks without biases, whose batch normalisation has affine parameters only on request."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, final

import torch
from torch import Tensor

from supsup_core.errors import InputError
from supsup_core.field_limits import limited
from supsup_core.later_fields import added_later
from supsup_core.nets.base import MOST_UNITS, NETS, KeepsStatistics, Layer, Net, Objective
from supsup_core.nets.gradients import Autograd, Gradients, map_loss_gradients

Normalise: TypeAlias = "Callable[[Tensor], Tensor]"


@dataclass(frozen=True)
class Convolution:
    """A convolution with `width` output feature maps. The image is padded, so only the stride shrinks the image."""

    width: int
    kernel: int
    stride: int


@dataclass(frozen=True)
class Block:
    """Convolutions with batch normalisation, and a shortcut that adds the block's input to their output.

    A ReLU follows the sum, and every convolution except the last. If the block changes the shape of the image, a 1 x 1
    convolution with batch normalisation projects the block's input to the new shape.
    """

    convolutions: tuple[Convolution, ...]

    @property
    def width(self) -> int:
        """The number of the block's output feature maps."""
        return self.convolutions[-1].width

    @property
    def stride(self) -> int:
        """The factor by which the block shrinks the height and the width of an image."""
        return max(convolution.stride for convolution in self.convolutions)


@final
class ResNetGradients(Gradients["ResNet"]):
    """Computes gradients by autograd, and the gradients of several tasks together by vmap.

    `loss` returns contiguous gradients.
    """

    def loss(self, net: ResNet, weights: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        loss, gradients = Autograd().loss(net, weights, x, y)
        return loss, [gradient.contiguous() for gradient in gradients]

    def rotated_loss(
        self, net: ResNet, rotations: Sequence[Tensor], weights: Sequence[Tensor], x: Tensor, y: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        return Autograd().rotated_loss(net, rotations, weights, x, y)

    def stacked_loss(self, net: ResNet, weights: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        return map_loss_gradients(net.logits, weights, x, y)  # vmap cannot change a tensor's memory format

    def decisions(
        self, net: ResNet, weights: Sequence[Tensor], x: Tensor, objective: Objective, num_labels: int
    ) -> Iterator[list[Tensor]]:
        return Autograd().decisions(net, weights, x, objective, num_labels)


@dataclass(frozen=True, kw_only=True)
class ResNet(Net, KeepsStatistics):
    """An abstract residual network: a first convolution, blocks, the mean over the image, and a linear layer.

    `affine`: whether each batch normalisation has a trained scale and shift, as in the authors' Upper Bound.
    """

    gradients: ClassVar[Gradients[Any]] = ResNetGradients()

    affine: bool = added_later(False)

    @property
    @abstractmethod
    def stem(self) -> Convolution:
        """The first convolution."""

    @property
    @abstractmethod
    def blocks(self) -> tuple[Block, ...]:
        """The blocks, in order."""

    @abstractmethod
    def after_stem(self, x: Tensor) -> Tensor:
        """Applies the operations between the stem (convolution, batch normalisation, ReLU) and the first block."""

    def layers(self, input_shape: tuple[int, ...]) -> tuple[Layer, ...]:
        if len(input_shape) != 3:
            raise InputError(
                f"a residual network needs images of shape (channels, height, width), not {input_shape}; "
                "use an MLP, or set benchmark.base to cifar10 or cifar100"
            )
        found = self._normalised("stem", input_shape[0], self.stem)
        width = self.stem.width
        for number, block in enumerate(self.blocks, start=1):
            into = width
            for index, convolution in enumerate(block.convolutions, start=1):
                found += self._normalised(f"block{number}.conv{index}", width, convolution)
                width = convolution.width
            if _needs_projection(into, block):
                found += self._normalised(f"block{number}.around", into, Convolution(block.width, 1, block.stride))
        found.append(Layer("fc", (self.num_outputs, width), width))
        return tuple(found)

    def _normalised(self, name: str, into: int, convolution: Convolution) -> list[Layer]:
        """Returns the layers of a convolution and its batch normalisation. into: the number of input feature maps."""
        kernel, width = convolution.kernel, convolution.width
        found = [Layer(name, (width, into, kernel, kernel), into * kernel * kernel)]
        return [*found, Layer(f"{name}.norm", (2, width), 1, is_norm=True)] if self.affine else found

    def statistics_widths(self) -> tuple[int, ...]:
        widths, into = [self.stem.width], self.stem.width
        for block in self.blocks:
            widths += [convolution.width for convolution in block.convolutions]
            widths += [block.width] if _needs_projection(into, block) else []
            into = block.width
        return tuple(widths)

    def forward(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        return self.logits(weights, _channels_last(x))

    def logits(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Computes `forward` without changing the images' memory format."""
        num_layers = sum(w.dim() > 1 for w in weights)
        kept = iter(weights[num_layers:])

        def normalise(maps: Tensor) -> Tensor:
            if len(weights) == num_layers:
                return torch.nn.functional.batch_norm(maps, None, None, training=True)
            return torch.nn.functional.batch_norm(maps, next(kept), next(kept), training=False)

        return self._run(weights[:num_layers], x, normalise)

    @torch.no_grad()
    def batch_statistics(self, weights: Sequence[Tensor], x: Tensor) -> list[Tensor]:
        found: list[Tensor] = []

        def normalise(maps: Tensor) -> Tensor:
            mean, variance = maps.new_zeros(2, maps.shape[1])
            found.extend((mean, variance))
            return torch.nn.functional.batch_norm(maps, mean, variance, training=True, momentum=1.0)

        self._run(weights, _channels_last(x), normalise)
        return found

    def _run(self, weights: Sequence[Tensor], x: Tensor, normalise: Normalise) -> Tensor:
        remaining = iter(weights)

        def normalised(maps: Tensor) -> Tensor:
            if not self.affine:
                return normalise(maps)
            both = next(remaining).view(2, -1, 1, 1)
            return torch.addcmul(both[1], normalise(maps), both[0])

        x = self.after_stem(normalised(_convolve(x, remaining, self.stem)).relu())
        into = self.stem.width
        for block in self.blocks:
            inner = x
            for index, convolution in enumerate(block.convolutions):
                inner = normalised(_convolve(inner.relu() if index else inner, remaining, convolution))
            if _needs_projection(into, block):
                x = normalised(_convolve(x, remaining, Convolution(block.width, 1, block.stride)))
            x = (inner + x).relu()
            into = block.width
        return x.mean((2, 3)) @ next(remaining).t()


def _channels_last(x: Tensor) -> Tensor:
    """Returns the images in the channels-last memory format if they are on a CPU, else unchanged.

    On a CPU, channels last is faster than torch's default format. The convolutions of a GEM ResNet-18 take half the
    time, and the convolutions of a ResNet-50 take 0.9 of the time (measured on one thread with AVX-512).
    """
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


_ONEDNN_BLOCK = 16
"""The number of floats in an AVX-512 register. If a channels-last image has fewer channels, oneDNN writes past the end
of a buffer in the backward pass of a strided 1 × 1 convolution. See uxlfoundation/oneDNN issue 6035, which reports the
error on AVX2."""


def _convolve(x: Tensor, weights: Iterator[Tensor], convolution: Convolution) -> Tensor:
    stride = convolution.stride
    if convolution.kernel == 1 and stride > 1 and x.shape[1] < _ONEDNN_BLOCK:
        x, stride = x[:, :, ::stride, ::stride], 1  # the stride is applied to the image instead
    return torch.nn.functional.conv2d(x, next(weights), stride=stride, padding=convolution.kernel // 2)


def _needs_projection(into: int, block: Block) -> bool:
    """Whether the shortcut around a block needs a convolution, because the block changes the shape of its input.

    into: the number of the block's input feature maps.
    """
    return block.stride > 1 or into != block.width


def _stages(
    numbers: Sequence[int], make: Callable[[int, int], Block], first: int, doublings: Sequence[int]
) -> tuple[Block, ...]:
    """Returns the blocks of all stages, in order.

    Stage i has numbers[i] blocks of first * doublings[i] feature maps. The first block of every stage after the first
    stage has stride 2. make: a function that returns a block of a given width and stride.
    """
    return tuple(
        make(first * doubling, 2 if stage and index == 0 else 1)
        for stage, (number, doubling) in enumerate(zip(numbers, doublings, strict=True))
        for index in range(number)
    )


@final
@NETS.register("gem_resnet18")
@dataclass(frozen=True, kw_only=True)
class GemResNet18(ResNet):
    """The ResNet-18 of GEM (Gradient Episodic Memory) for images of 32 x 32 pixels: four stages of two basic blocks.

    `width`: the number of feature maps in the first stage. Each later stage has twice as many as the previous stage.
    """

    width: int = limited(20, least=1, most=MOST_UNITS)

    @property
    def stem(self) -> Convolution:
        return Convolution(self.width, 3, 1)

    @property
    def blocks(self) -> tuple[Block, ...]:
        def basic(width: int, stride: int) -> Block:
            return Block((Convolution(width, 3, stride), Convolution(width, 3, 1)))

        return _stages((2, 2, 2, 2), basic, self.width, (1, 2, 4, 8))

    def after_stem(self, x: Tensor) -> Tensor:
        return x


@final
@NETS.register("resnet50")
@dataclass(frozen=True, kw_only=True)
class ResNet50(ResNet):
    """ResNet-50 for images of 224 x 224 pixels. The middle convolution of a bottleneck block applies the stride."""

    @property
    def stem(self) -> Convolution:
        return Convolution(64, 7, 2)

    @property
    def blocks(self) -> tuple[Block, ...]:
        def bottleneck(width: int, stride: int) -> Block:
            return Block((Convolution(width, 1, 1), Convolution(width, 3, stride), Convolution(4 * width, 1, 1)))

        return _stages((3, 4, 6, 3), bottleneck, 64, (1, 2, 4, 8))

    def after_stem(self, x: Tensor) -> Tensor:
        return torch.nn.functional.max_pool2d(x, 3, stride=2, padding=1)
