"""One step of RMSprop as a compiled loop."""

from __future__ import annotations

import numpy as np

from supsup_core.kernels.compilation import Floats, compile_exact


@compile_exact
def step_rmsprop(parameter: Floats, gradient: Floats, square_mean: Floats, rate: np.float32) -> None:
    """Update the flat arrays `parameter` and `square_mean` in place by one step of RMSprop, in a single pass.

    rate: the learning rate. The decay of `square_mean` is 0.99 (`alpha` of torch.optim.RMSprop), and eps is 1e-8.
    """
    for i in range(len(parameter)):
        g = gradient[i]
        mean = square_mean[i] * np.float32(0.99) + np.float32(0.01) * g * g
        square_mean[i] = mean
        parameter[i] -= rate * g / (np.sqrt(mean) + np.float32(1e-8))
