"""Properties of all baselines: stored sizes, and invalid fields that are refused."""

from __future__ import annotations

import pytest

from supsup_core.datasets import Dataset
from supsup_core.errors import CorruptError, InputError
from supsup_core.methods import METHODS, Problem
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
