"""What sets each baseline apart from the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from supsup_core.datasets import Dataset
from supsup_core.errors import CorruptError, InputError
from supsup_core.evaluation.protocol import Inference, evaluate
from supsup_core.inference import OBJECTIVES
from supsup_core.methods import METHODS, Dependence, Method, Problem
from supsup_core.methods.base import SHARED
from supsup_core.methods.baselines.ewc import fisher
from supsup_core.methods.baselines.icarl import herd
from supsup_core.methods.baselines.psp import rotations
from supsup_core.methods.fitting import fresh_head, fresh_weights
from supsup_core.methods.learners import accuracy
from supsup_core.nets import NETS
from supsup_core.scenarios import scenario
from supsup_core.tasks import BENCHMARKS, Augments, Task
from supsup_core.training.loop import TrainingRecipe

TASKS = 4


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem(
        NETS["lenet_300_100"](num_outputs=10), (64,), 10, TrainingRecipe(num_batches=200, learning_rate=1e-3), seed=0
    )


def learned(method: Method, problem: Problem, digits: Dataset, count: int = TASKS) -> list[Mapping[str, Tensor]]:
    benchmark = BENCHMARKS["permuted"](base="digits")
    states: list[Mapping[str, Tensor]] = []
    for index in range(count):
        parents = [states[parent] for parent in method.dependence.parents(index)]
        states.append(method.learn(problem, index, benchmark.task(index, digits, 0), parents).state)
    return states


def accuracies(method: Method, problem: Problem, digits: Dataset) -> list[float]:
    learner = method.learner(problem, learned(method, problem, digits))
    benchmark = BENCHMARKS["permuted"](base="digits")
    return [accuracy(learner, benchmark.task(index, digits, 0), index) for index in range(TASKS)]


def test_the_bounds_lie_where_their_names_say_and_what_protects_between(problem: Problem, digits: Dataset) -> None:
    lower, ewc, psp, upper = (
        sum(accuracies(METHODS[name](), problem, digits)) / TASKS
        for name in ("lower_bound", "ewc", "psp", "upper_bound")
    )
    assert lower + 0.02 < ewc < upper
    assert lower + 0.02 < psp < upper + 0.02  # its net has trained on four tasks, which may help as well as harm


def test_piggyback_over_a_backbone_from_a_file(problem: Problem, digits: Dataset, tmp_path: Path) -> None:
    """A file with what the first task would have trained gives the other tasks what that gave them."""
    trained = learned(METHODS["piggyback"](), problem, digits, 2)
    layers = problem.layers[:-1]
    weights = {layer.name: trained[0][f"backbone.{layer.name}"] for layer in layers}
    path = tmp_path / "trunk.safetensors"
    safetensors.torch.save_file(weights, path)
    method = METHODS["piggyback"](backbone=str(path))
    method.check(problem.layers, 10, 2)
    assert method.dependence is Dependence.INDEPENDENT
    found = learned(method, problem, digits, 2)
    assert found[1].keys() == trained[1].keys()
    assert all(torch.equal(found[1][name], trained[1][name]) for name in found[1])
    task = BENCHMARKS["permuted"](base="digits").task(0, digits, 0)
    assert accuracy(method.learner(problem, found), task, 0) > 0.6
    assert "mask" in found[0]

    named = METHODS["piggyback"](backbone=str(path), backbone_sha256=method.backbone_sha256)
    assert named == method
    safetensors.torch.save_file({name: w + 1 for name, w in weights.items()}, path)
    with pytest.raises(InputError, match="has changed since the sweep was planned"):
        METHODS["piggyback"](backbone=str(path), backbone_sha256=method.backbone_sha256)
    for tensors, words in (
        ({"fc1": weights["fc1"]}, "has no fc2"),
        ({**weights, "fc2": weights["fc1"]}, "fc2 has shape"),
    ):
        safetensors.torch.save_file({name: w.clone() for name, w in tensors.items()}, path)
        with pytest.raises(InputError, match=words):
            METHODS["piggyback"](backbone=str(path)).check(problem.layers, 10, 2)
    path.write_bytes(b"no tensors")
    with pytest.raises(InputError, match="not a safetensors file"):
        METHODS["piggyback"](backbone=str(path)).check(problem.layers, 10, 2)
    for text, words in (("trunk.safetensors", "absolute path"), (str(tmp_path / "gone"), "is not there")):
        with pytest.raises(InputError, match=words):
            METHODS["piggyback"](backbone=text)


def test_ewc_without_strength_is_the_lower_bound(problem: Problem, digits: Dataset) -> None:
    free, lower = (
        learned(method, problem, digits, 2)[1] for method in (METHODS["ewc"](strength=0.0), METHODS["lower_bound"]())
    )
    for name, tensor in lower.items():
        assert torch.equal(free[name], tensor)


def test_fisher_is_the_mean_square_of_single_gradients(problem: Problem, digits: Dataset) -> None:
    """Against autograd, image by image, over many drawn labels and against their exact expectation."""
    task = BENCHMARKS["permuted"](base="digits").task(0, digits, 0)
    weights = fresh_weights(problem)
    found = fisher(problem, weights, [], task, 0, task.num_train)
    wanted = [torch.zeros_like(w) for w in weights]
    for index in range(0, task.num_train, 8):
        x, _ = task.train_batch(torch.tensor([index]))
        leaves = [w.clone().requires_grad_() for w in weights]
        log_p = F.log_softmax(problem.net.forward(leaves, x), 1)[0]
        for label in range(10):
            gradients = torch.autograd.grad(log_p[label], leaves, retain_graph=True)
            for total, gradient in zip(wanted, gradients, strict=True):
                total.addcmul_(gradient, gradient, value=float(log_p[label].detach().exp()))
    for one, total in zip(found, wanted, strict=True):
        expected = total / len(range(0, task.num_train, 8))
        assert torch.corrcoef(torch.stack([one.flatten(), expected.flatten()]))[0, 1] > 0.9
        assert float(one.sum() / expected.sum()) == pytest.approx(1, abs=0.15)


def test_rotations_are_orthogonal_and_each_tasks_own(problem: Problem) -> None:
    first, second = rotations(problem, 0), rotations(problem, 1)
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one @ one.t(), torch.eye(len(one)), atol=1e-5, rtol=0)
        assert float((one - other).abs().max()) > 0.1
    assert all(torch.equal(a, b) for a, b in zip(first, rotations(problem, 0), strict=True))


@pytest.mark.parametrize(("rule", "share"), [("one_shot", 0.4), ("exhaustive", 0.8)])
def test_batch_e_finds_the_task_by_its_rank_one_masks(digits: Dataset, rule: str, share: float) -> None:
    """Better than the quarter that chance would find, by far where each mask is tried."""
    recipe = TrainingRecipe(optimizer="adam", num_batches=300, learning_rate=1e-2)
    problem = Problem(NETS["lenet_300_100"](num_outputs=10), (64,), 10, recipe, seed=0)
    method = METHODS["batch_e"](weight_learning_rate=1e-3)
    learner = method.learner(problem, learned(method, problem, digits))
    benchmark = BENCHMARKS["permuted"](base="digits")
    inference = Inference(rule=rule, images_per_decision=60, decision_group=60, strict_images=0)
    right = total = 0
    for index in range(TASKS):
        found = evaluate(learner, benchmark.task(index, digits, 0), index, scenario("GNu"), inference, 0)["paper"]
        right += int((found.chosen == index).sum())
        total += len(found.chosen)
    assert right / total > share


@pytest.mark.parametrize(
    ("name", "fields"),
    [("batch_e", {}), ("separate_heads", {}), ("piggyback", {})],
)
def test_only_the_first_task_stores_what_all_share(
    problem: Problem, digits: Dataset, name: str, fields: dict[str, object]
) -> None:
    sizes = [sum(t.nbytes for t in state.values()) for state in learned(METHODS[name](**fields), problem, digits, 3)]
    assert sizes[0] > 10 * sizes[1]
    assert sizes[1] == pytest.approx(sizes[2], rel=0.01)  # a coded mask's length is its entropy


def test_what_is_missing_from_a_state_is_named(problem: Problem, digits: Dataset) -> None:
    for name in METHODS.names():
        if name not in ("supsup", "hop_sup_sup"):
            with pytest.raises(CorruptError, match="what is stored of a task has"):
                METHODS[name]().learner(problem, [{}])


def test_herding_keeps_the_running_mean_near_the_mean() -> None:
    rows = F.normalize(torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) + 1, dim=1)
    chosen = herd(rows, 12)
    assert len(set(chosen.tolist())) == 12
    away = float((rows[chosen].mean(0) - rows.mean(0)).norm())
    assert away < float((rows[:12].mean(0) - rows.mean(0)).norm()) / 3
    assert torch.equal(herd(rows, 5), chosen[:5])
    assert sorted(herd(rows, 99).tolist()) == list(range(60))


def test_icarl_keeps_its_budget_and_tells_all_classes_apart(digits: Dataset) -> None:
    recipe = TrainingRecipe(num_batches=300, learning_rate=1e-3)
    problem = Problem(NETS["lenet_300_100"](num_outputs=10), (64,), 10, recipe, seed=0)
    method = METHODS["icarl"](num_exemplars=200)
    states = learned(method, problem, digits, 3)
    for count, state in enumerate(states, start=1):
        assert state["shared.classes"].unique().tolist() == list(range(10 * count))
        assert len(state["shared.classes"]) == 10 * count * (200 // (10 * count))
    inference = Inference(rule="exhaustive", objective="max_logit", decision_group=1, strict_images=0)
    benchmark = BENCHMARKS["permuted"](base="digits")
    learner = method.learner(problem, states)
    right = 0
    for index in range(3):
        found = evaluate(learner, benchmark.task(index, digits, 0), index, scenario("GNu"), inference, 0)["paper"]
        right += int(found.correct[found.chosen == index].sum())
    assert right / (3 * 360) > 0.5
    with pytest.raises(InputError, match="num_exemplars"):
        METHODS["icarl"](num_exemplars=15).learn(problem, 1, benchmark.task(1, digits, 0), states[:1])
    with pytest.raises(InputError, match="not one for each of 20 classes"):
        METHODS["icarl"](num_exemplars=15).check(problem.layers, 10, 2)
    kept = BENCHMARKS["split"](base="digits", labels="base").task(1, digits, 0)
    with pytest.raises(InputError, match="labels=own"):
        method.learn(problem, 0, kept, [])


def test_icarl_keeps_images_as_they_are_and_rehearses_them_augmented(digits: Dataset) -> None:
    class Mirrored(Task, Augments):
        """The digits, whose augmentation mirrors every training image."""

        def __init__(self) -> None:
            self._task = BENCHMARKS["permuted"](base="digits").task(0, digits, 0)
            self.num_train, self.num_test = self._task.num_train, self._task.num_test

        def train_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
            x, y = self.plain_train_batch(indices)
            return self.augment(x, indices), y

        def test_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
            return self._task.test_batch(indices)

        def unaugmented_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
            return self._task.train_batch(indices)

        def augment_images(self, x: Tensor, indices: Tensor) -> Tensor:
            seen.append(len(x))
            return x.flip(1)

    seen: list[int] = []
    recipe = TrainingRecipe(num_batches=6, batch_size=50)
    problem = Problem(NETS["lenet_300_100"](num_outputs=10), (64,), 10, recipe, seed=0)
    task = Mirrored()
    first = METHODS["icarl"](num_exemplars=40).learn(problem, 0, task, []).state
    everything = {row.tobytes() for row in task.plain_train_batch(torch.arange(task.num_train))[0].numpy()}
    assert all(row.numpy().tobytes() in everything for row in first["shared.exemplars"])
    METHODS["icarl"](num_exemplars=40).learn(problem, 1, task, [first])
    assert seen == [50] * 12


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("batch_e", {"weight_learning_rate": 0.0}, "weight_learning_rate"),
        ("separate_heads", {"trunk": "random", "trunk_learning_rate": 0.1}, "leave it out"),
        ("separate_heads", {"trunk_learning_rate": -1.0}, "must be positive"),
        ("ewc", {"strength": -1.0}, "strength"),
        ("ewc", {"decay": 0.0}, "decay"),
        ("ewc", {"fisher_images": 0}, "fisher_images"),
        ("icarl", {"num_exemplars": 0}, "num_exemplars"),
        ("piggyback", {"mask_learning_rate": 0.0}, "mask_learning_rate"),
    ],
)
def test_impossible_fields_are_refused(name: str, fields: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        METHODS[name](**fields)


def test_objectives_of_the_exhaustive_rule_take_what_icarl_answers() -> None:
    logits = -torch.rand(2, 3, 10)
    for name in ("entropy", "max_logit", "energy"):
        assert OBJECTIVES[name](logits, 10).shape == (2,)


def test_a_lower_bound_with_one_head_has_one_net_for_all(problem: Problem, digits: Dataset) -> None:
    method = METHODS["lower_bound"](head="shared")
    states = learned(method, problem, digits, 2)
    learner = method.learner(problem, states)
    x = torch.rand(5, 64)
    assert torch.equal(learner.logits(x, 0), learner.logits(x, 1))
    assert all(name.startswith(SHARED) for name in states[1])
    own = learned(METHODS["lower_bound"](), problem, digits, 2)
    other = METHODS["lower_bound"]().learner(problem, own)
    assert not torch.equal(other.logits(x, 0), other.logits(x, 1))


def test_mlps_are_trained_from_signs_of_their_own(problem: Problem) -> None:
    weights = fresh_weights(problem)
    for found, frozen in zip(weights, problem.weights, strict=True):
        torch.testing.assert_close(found.abs(), frozen.abs() / 2**0.5)
        assert 0.4 < (found.sign() == frozen.sign()).float().mean() < 0.6
    (head,) = fresh_head(problem, 3)
    assert torch.equal(head.abs(), weights[-1].abs())
    conv = replace(problem, net=NETS["gem_resnet18"](width=4), input_shape=(3, 32, 32))
    assert len(fresh_weights(conv)[0].abs().unique()) > 50


@pytest.mark.parametrize("name", ["upper_bound", "lower_bound", "separate_heads", "piggyback", "icarl"])
def test_gates_stay_open_where_weights_are_trained(digits: Dataset, name: str) -> None:
    net = NETS["hopfield_mlp"](num_outputs=20, width=32)
    problem = Problem(net, (64,), 10, TrainingRecipe(num_batches=3, learning_rate=1e-2), seed=0)
    states = learned(METHODS[name](), problem, digits, 2)
    found = [tensor for state in states for key, tensor in state.items() if "gate" in key]
    assert found
    assert all(torch.equal(gate, torch.ones_like(gate)) for gate in found)
