"""Images held out for validation."""

import pytest
import torch

from supsup_core.datasets import BASES, Dataset
from supsup_core.datasets.base import Images
from supsup_core.errors import InputError
from supsup_core.tasks import held_out


def test_held_out_images_come_from_the_training_images_and_both_parts_have_every_class(digits: Dataset) -> None:
    base = BASES["held_out"](of="digits", share=0.2, seed=3)
    found = base.load(None)
    assert base.shape == (8, 8)
    assert base.num_labels == 10
    rows = sorted(image.numpy().tobytes() for image in digits.train.pixels)
    parts = [part.gather(torch.arange(len(part.labels))) for part in (found.train, found.test)]
    assert sorted(image.numpy().tobytes() for pixels, _ in parts for image in pixels) == rows
    labels = {
        image.numpy().tobytes(): int(label)
        for image, label in zip(*digits.train.gather(torch.arange(len(rows))), strict=True)
    }
    assert all(labels[image.numpy().tobytes()] == label for part in parts for image, label in zip(*part, strict=True))
    assert found.train.pixels is found.test.pixels  # both parts share one pixel array
    assert base.resident_images == BASES["digits"]().resident_images
    assert len(found.train.labels) + len(found.test.labels) == len(digits.train.labels)
    share = found.test.labels.bincount() / digits.train.labels.bincount()
    torch.testing.assert_close(share, torch.full((10,), 0.2), atol=0.01, rtol=0)
    again, other = (BASES["held_out"](of={"name": "digits"}, share=0.2, seed=seed) for seed in (3, 4))
    assert torch.equal(again.load(None).test.places, found.test.places)
    assert not torch.equal(other.load(None).test.places, found.test.places)
    assert base == again
    assert len({base, again, other}) == len({base.checksum(), again.checksum(), other.checksum()}) == 2


def test_images_are_held_out_correctly_if_the_pixel_array_contains_more_images() -> None:
    """In a user's dataset, the pixel array may contain more images than the training set uses."""
    shown = Images(torch.arange(10, dtype=torch.uint8)[:, None], torch.tensor([7, 8, 9]), torch.tensor([7, 8, 9]))
    pixels, labels = held_out._part(shown, torch.tensor([True, False, True])).gather(torch.tensor([0, 1]))
    assert pixels.flatten().tolist() == labels.tolist() == [7, 9]


def test_shares_that_cannot_be_held_out_are_refused() -> None:
    with pytest.raises(InputError, match=r"base\.share .*: 0\.001 of the \d+ training images of class 0 is 0"):
        BASES["held_out"](of="digits", share=0.001).load(None)
    with pytest.raises(InputError, match="share: must be between 0 and 1, not 1"):
        BASES["held_out"](of="digits", share=1)
    with pytest.raises(InputError, match="of: held_out cannot be nested"):
        BASES["held_out"](of={"name": "held_out", "of": "digits"})
