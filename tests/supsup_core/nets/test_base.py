"""The contract of nets, tested on every registered net."""

import pytest
import torch

from supsup_core.errors import InputError
from supsup_core.kernels.matmul import products_in
from supsup_core.nets import NETS, Net, draw_weights


def test_forward_has_num_outputs(net: Net, shape: tuple[int, ...]) -> None:
    weights = draw_weights(net.layers(shape), 0)
    assert net.forward(weights, torch.randn(4, *shape)).shape == (4, 15)


def test_gradients_in_bfloat16_are_close_to_those_in_float32(net: Net, shape: tuple[int, ...]) -> None:
    weights = draw_weights(net.layers(shape), 0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, *shape, generator=generator)
    y = torch.randint(0, 10, (16,), generator=generator)
    exact, whole = net.loss_gradients(weights, x, y)
    with products_in("bfloat16", x.device):
        loss, rounded = net.loss_gradients(weights, x, y)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.03, atol=0)
    whole_flat, rounded_flat = (torch.cat([g.flatten().float() for g in found]) for found in (whole, rounded))
    assert not torch.equal(whole_flat, rounded_flat)
    if not net.norm_widths():  # normalisation over a small batch amplifies rounding errors
        assert torch.cosine_similarity(whole_flat, rounded_flat, 0) > 0.999


def test_a_net_without_outputs_is_refused() -> None:
    with pytest.raises(InputError, match="num_outputs: must be at least 1"):
        NETS["lenet_300_100"](num_outputs=0)


def test_layer_sizes_of_the_papers_nets() -> None:
    def size(name: str, num_outputs: int, *shape: int) -> int:
        return sum(layer.size for layer in NETS[name](num_outputs=num_outputs).layers(shape))

    assert size("lenet_300_100", 100, 784) == 784 * 300 + 300 * 100 + 100 * 100
    assert size("fc_1024_1024", 100, 784) == 784 * 1024 + 1024 * 1024 + 1024 * 100
    # torchvision's ResNet-50 has 25,557,032 parameters, of which 53,120 are batch normalisation and 1,000 are biases.
    assert size("resnet50", 1000, 3, 224, 224) == 25_557_032 - 53_120 - 1_000
