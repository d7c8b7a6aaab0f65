"""Networks of frozen random weights."""

from supsup_core.nets import hopfield, mlp, resnet
from supsup_core.nets.base import NETS, Layer, Net, draw_weights, weights_sha256

__all__ = ["NETS", "Layer", "Net", "draw_weights", "hopfield", "mlp", "resnet", "weights_sha256"]
