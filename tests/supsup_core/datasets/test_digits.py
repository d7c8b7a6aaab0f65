"""The digits dataset of scikit-learn."""

import pytest
import torch

from supsup_core.datasets import BASES, Dataset
from supsup_core.errors import InputError


def test_normalised_pixels_are_centred(digits: Dataset) -> None:
    x = digits.normalise(digits.train.pixels)
    assert abs(float(x.mean())) < 0.01
    assert abs(float(x.std()) - 1) < 0.01


def test_enlarged_digits_show_the_same_digits(digits: Dataset) -> None:
    base = BASES["digits"](enlarge=4, channels=3)
    large = base.load(None)
    assert large.test.pixels.shape[1:] == base.shape == (3, 32, 32)
    assert torch.equal(large.test.pixels[:, 2, 3::4, ::4], digits.test.pixels)
    small, enlarged = (data.normalise(data.test.pixels[:5]) for data in (digits, large))
    torch.testing.assert_close(enlarged[:, 1, ::4, ::4], small)
    with pytest.raises(InputError, match="enlarge: must be at least 1"):
        BASES["digits"](enlarge=0)
