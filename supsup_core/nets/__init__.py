"""Networks as pure functions of weights and images, their frozen random weights, and their gradients."""

from supsup_core.nets import hopfield, mlp, resnet
from supsup_core.nets.base import NETS, KeepsStatistics, Layer, Net
from supsup_core.nets.gradients import Autograd, Gradients
from supsup_core.nets.weights import draw_weights, weights_sha256

__all__ = [
    "NETS", "Autograd", "Gradients", "KeepsStatistics", "Layer", "Net",
    "draw_weights", "hopfield", "mlp", "resnet", "weights_sha256",
]  # fmt: skip
