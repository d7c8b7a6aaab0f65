"""Properties of all baselines: stored sizes, and invalid fields that are refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from supsup_core.datasets import Dataset
from supsup_core.errors import CorruptError, InputError
from supsup_core.methods import METHODS, Problem
from supsup_core.nets import NETS
from supsup_core.tasks import Task
from supsup_core.training.loop import TrainingRecipe
from tests.supsup_core.methods.learning import learned


@pytest.mark.parametrize(
    ("name", "fields"),
    [("batch_e", {}), ("separate_heads", {}), ("piggyback", {})],
)
def test_only_the_first_task_stores_the_shared_weights(
    problem: Problem, digits: Dataset, name: str, fields: dict[str, object]
) -> None:
    sizes = [sum(t.nbytes for t in state.values()) for state in learned(METHODS[name](**fields), problem, digits, 3)]
    assert sizes[0] > 10 * sizes[1]
    assert sizes[1] == pytest.approx(sizes[2], rel=0.01)  # the length of an encoded mask depends on its entropy


def test_a_missing_tensor_of_a_state_is_named(problem: Problem, digits: Dataset) -> None:
    for name in METHODS.names():
        if name not in ("supsup", "hop_sup_sup"):
            with pytest.raises(CorruptError, match="the stored state of a task has"):
                METHODS[name]().learner(problem, [{}])


class Pictures(Task):
    """A task whose training and test images are the same, with labels 0 to 9."""

    def __init__(self, images: Tensor) -> None:
        self._images = images
        self.num_train = self.num_test = len(images)

    def train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self._images[indices], indices % 10

    test_batch = train_batch


@pytest.mark.parametrize("name", METHODS.names())
def test_affine_batch_normalisation_is_trained_or_refused(name: str) -> None:
    net = NETS["gem_resnet18"](num_outputs=10, width=4, affine=True)
    method = METHODS[name]()
    images = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    layers = net.layers((3, 32, 32))
    if not method.trains_layers:
        with pytest.raises(InputError, match=r"set net.affine=false|works only with|needs a net"):
            method.check(layers, 10, 2)
        return
    method.check(layers, 10, 2)
    recipe = TrainingRecipe(num_batches=3, batch_size=8, learning_rate=1e-2)
    problem = Problem(net, (3, 32, 32), 10, recipe, seed=0)
    task = Pictures(images)
    state = method.learn(problem, 0, task, []).state
    norms = [tensor for key, tensor in state.items() if "stem.norm" in key and "fisher" not in key]
    assert norms
    assert all((tensor[0] != 1).any() and (tensor[1] != 0).any() for tensor in norms)


@pytest.mark.parametrize("name", ["upper_bound", "lower_bound", "separate_heads", "piggyback", "icarl"])
def test_a_net_that_normalises_by_the_batch_makes_its_learner_do_so(digits: Dataset, name: str) -> None:
    """The groups of such a learner must not share a batch."""
    net = NETS["hopfield_mlp"](num_outputs=20, width=32)
    problem = Problem(net, (64,), 10, TrainingRecipe(num_batches=2), seed=0)
    assert METHODS[name]().learner(problem, learned(METHODS[name](), problem, digits, 2)).normalises_by_batch


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("batch_e", {"weight_learning_rate": 0.0}, "weight_learning_rate"),
        ("separate_heads", {"trunk": "random", "trunk_learning_rate": 0.1}, "has no effect"),
        ("separate_heads", {"trunk_learning_rate": -1.0}, "must be positive"),
        ("ewc", {"strength": -1.0}, "strength"),
        ("ewc", {"decay": 0.0}, "decay"),
        ("ewc", {"fisher_images": 0}, "fisher_images"),
        ("icarl", {"num_exemplars": 0}, "num_exemplars"),
        ("piggyback", {"mask_learning_rate": 0.0}, "mask_learning_rate"),
    ],
)
def test_invalid_fields_are_refused(name: str, fields: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        METHODS[name](**fields)
