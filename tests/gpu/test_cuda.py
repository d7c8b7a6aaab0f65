"""Training and inference on a CUDA device, compared with the CPU. Run with `pytest -m gpu tests/gpu`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from orchestrator.execution.worker import Worker
from orchestrator.records.this_machine import this_machine
from supsup_core.datasets import Dataset
from supsup_core.inference import OBJECTIVES
from supsup_core.kernels.matmul import set_algorithms
from supsup_core.methods import METHODS, Method, Problem
from supsup_core.methods.learners import accuracy, superposing
from supsup_core.methods.norm_statistics import measure_norms
from supsup_core.nets import NETS
from supsup_core.tasks import BENCHMARKS
from supsup_core.training.loop import TrainingRecipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch finds none"),
]

DEVICES = ("cpu", "cuda")


@pytest.fixture(params=METHODS.names())
def method(request: pytest.FixtureRequest) -> Method:
    return METHODS[request.param]()


@pytest.fixture(autouse=True)
def as_workers_compute() -> Iterator[None]:
    set_algorithms()
    yield
    set_algorithms()


def problem_on(device: str, method: Method, num_batches: int, **changes: Any) -> Problem:
    recipe = TrainingRecipe(**{"num_batches": num_batches, "learning_rate": 1e-3, **changes})
    net = (
        NETS["hopfield_mlp"](num_outputs=20, width=256)
        if method.recall_images
        else NETS["lenet_300_100"](num_outputs=20)
    )
    return Problem(net, (64,), 10, recipe, seed=3, device=device)


def learned(method: Method, problem: Problem, digits: Dataset, count: int) -> list[dict[str, torch.Tensor]]:
    benchmark = BENCHMARKS["permuted"](base="digits")
    states: list[dict[str, torch.Tensor]] = []
    for index in range(count):
        parents = [states[parent] for parent in method.dependence.parents(index)]
        state = method.learn(problem, index, benchmark.task(index, digits, problem.seed), parents).state
        states.append({name: tensor.cpu() for name, tensor in state.items()})
    return states


def test_a_few_steps_of_training_agree_with_the_cpu(method: Method, digits: Dataset) -> None:
    """Floats agree within a tolerance. Bits of a mask may differ for scores near the threshold.

    The optimiser is SGD. RMSprop's first step has the same length for every gradient, even for one that is only a
    rounding error.
    """
    plain = {"optimizer": "sgd", "learning_rate": 0.1}
    ours, theirs = (learned(method, problem_on(device, method, 5, **plain), digits, 2) for device in DEVICES)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name, tensor in one.items():
            if tensor.dtype == torch.uint8:
                assert float((tensor != other[name]).double().mean()) < 0.01
            else:
                torch.testing.assert_close(tensor, other[name], rtol=1e-3, atol=1e-4)


def test_training_reaches_the_same_accuracy(method: Method, digits: Dataset) -> None:
    task = BENCHMARKS["permuted"](base="digits").task(1, digits, 3)
    found = []
    for device in DEVICES:
        problem = problem_on(device, method, 300)
        found.append(accuracy(method.learner(problem, learned(method, problem, digits, 2)), task, 1))
    assert abs(found[0] - found[1]) < 0.03


def test_the_same_masks_give_the_same_answers_and_superpositions(method: Method, digits: Dataset) -> None:
    problem = problem_on("cpu", method, 40)
    states = learned(method, problem, digits, 3)
    x, _ = BENCHMARKS["permuted"](base="digits").task(1, digits, 3).test_batch(torch.arange(64))
    ours, theirs = (method.learner(replace(problem, device=device), states) for device in DEVICES)
    for mask in range(3):
        torch.testing.assert_close(ours.logits(x, mask), theirs.logits(x, mask), rtol=1e-3, atol=1e-4)
    if method.superposes:
        for subset in (None, torch.tensor([0, 2])):
            slopes = [
                superposing(learner).alpha_gradients(x[None], subset, OBJECTIVES["entropy"])
                for learner in (ours, theirs)
            ]
            torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-3, atol=1e-4)


def gradients_on(device: str, name: str, dtype: torch.dtype, side: int = 64) -> list[Tensor]:
    net, shape = NETS[name](num_outputs=10), (3, side, side)
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    weights = [w.to(dtype) for w in Problem(net, shape, 10, TrainingRecipe(), seed=0, device=device).weights]
    loss, gradients = net.loss_gradients(weights, x, torch.tensor([0, 3, 5, 9], device=device))
    return [found.cpu().double() for found in (loss, *gradients)]


def largest_error(found: list[Tensor], wanted: list[Tensor]) -> float:
    return max(float((one - other).norm() / other.norm()) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("name", ["gem_resnet18", "resnet50"])
def test_gradients_of_nets_agree_with_the_cpu(name: str) -> None:
    """The test uses float64, because a random ResNet-50 amplifies rounding errors of float32 ten thousand times."""
    ours, theirs = (gradients_on(device, name, torch.float64) for device in DEVICES)
    assert largest_error(theirs, ours) < 1e-8


def test_convolutions_are_as_exact_as_on_the_cpu_without_tensorfloat32() -> None:
    wanted = gradients_on("cpu", "gem_resnet18", torch.float64, side=32)
    errors = []
    for asked in (False, True):
        set_algorithms(tf32=asked)
        errors.append(largest_error(gradients_on("cuda", "gem_resnet18", torch.float32, side=32), wanted))
    on_cpu = largest_error(gradients_on("cpu", "gem_resnet18", torch.float32, side=32), wanted)
    assert errors[0] < 10 * on_cpu
    if torch.cuda.get_device_capability() >= (8, 0):
        assert errors[1] > 100 * on_cpu


@pytest.mark.parametrize("changes", [{}, {"mask": "top_k", "density": 0.3}])
def test_stacked_tasks_on_the_device_equal_single_tasks_on_the_cpu(digits: Dataset, changes: dict[str, Any]) -> None:
    method, benchmark = METHODS["supsup"](**changes), BENCHMARKS["permuted"](base="digits")
    tasks = [benchmark.task(index, digits, 3) for index in range(4)]
    ours, theirs = (problem_on(device, method, 5) for device in DEVICES)
    together = method.learn_together(theirs, range(4), tasks)
    for index, task in enumerate(tasks):
        alone = method.learn(ours, index, task, [])
        masks = [learned.state["mask"].cpu() for learned in (alone, together[index])]
        assert len(masks[0]) == len(masks[1])
        assert float((masks[0] != masks[1]).double().mean()) < 0.01
        torch.testing.assert_close(
            torch.tensor(alone.curve.losses), torch.tensor(together[index].curve.losses), rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("name", ["supsup", "upper_bound", "batch_e", "separate_heads"])
def test_a_resnet_stores_the_same_statistics_and_gives_the_same_answers(digits: Dataset, name: str) -> None:
    base = {"name": "digits", "enlarge": 4, "channels": 3}
    benchmark = BENCHMARKS["split"](base=base, num_tasks=2, labels_per_task=2)
    data = benchmark.source().load(None)
    task = benchmark.task(0, data, 0)
    method = METHODS[name](**({"mask": "top_k", "density": 0.3} if name == "supsup" else {}))
    recipe = TrainingRecipe(num_batches=3, batch_size=16, optimizer="sgd", learning_rate=1e-3)
    ours, theirs = (
        Problem(NETS["gem_resnet18"](num_outputs=2, width=8), (3, 32, 32), 2, recipe, seed=1, device=device)
        for device in DEVICES
    )
    alone, on_device = (method.learn(problem, 0, task, []) for problem in (ours, theirs))
    torch.testing.assert_close(
        torch.tensor(alone.curve.losses), torch.tensor(on_device.curve.losses), rtol=1e-2, atol=1e-3
    )
    learners = [method.learner(problem, [alone.state]) for problem in (ours, theirs)]
    statistics = [
        measure_norms(problem, 0, task, learner.weights_of(0))
        for problem, learner in zip((ours, theirs), learners, strict=True)
    ]
    assert statistics[0].keys() == statistics[1].keys() == {key for key in on_device.state if key.startswith("norm.")}
    for key, tensor in statistics[0].items():
        torch.testing.assert_close(tensor, alone.state[key], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(tensor, statistics[1][key].cpu(), rtol=1e-3, atol=1e-3)
    x, _ = task.test_batch(torch.arange(16))
    answers = [learner.logits(x, 0).cpu() for learner in learners]
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-2, atol=1e-2)


def test_a_hopfield_recovery_from_the_same_images_gives_the_same_mask(digits: Dataset) -> None:
    method = METHODS["hop_sup_sup"](recovery_batch=32)
    problem = problem_on("cpu", method, 40)
    states = learned(method, problem, digits, 2)
    x, _ = BENCHMARKS["permuted"](base="digits").task(1, digits, 3).test_batch(torch.arange(64))
    ours, theirs = (
        method.learner(replace(problem, device=device), states).recall(x, OBJECTIVES["entropy"]) for device in DEVICES
    )
    assert torch.equal(ours.distances[0], theirs.distances[0])  # the start is the mean of the stored masks
    assert int(ours.distances[-1].argmin()) == int(theirs.distances[-1].argmin())
    assert theirs.labels(x).device == x.device
    assert float((ours.labels(x) == theirs.labels(x)).double().mean()) > 0.9


def test_deterministic_algorithms_give_the_same_bits_for_every_method(
    monkeypatch: pytest.MonkeyPatch, method: Method, digits: Dataset
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    set_algorithms(deterministic=True)
    first, second = (learned(method, problem_on("cuda", method, 5), digits, 2) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_the_machine_kind_of_a_worker_names_the_gpu_and_its_libraries() -> None:
    found = this_machine("cuda", 1)
    assert found.processor == torch.cuda.get_device_name()
    assert found.kernels.instructions.startswith("sm_")
    assert found.cuda.startswith(f"{torch.version.cuda}, cuDNN ")
    assert found != this_machine("cpu", 1)
    assert found != this_machine("cuda", 1, tf32=True)


@pytest.mark.parametrize("asked", [False, True])
def test_a_worker_uses_tensorfloat32_as_its_settings_say(tmp_path: Path, asked: bool) -> None:
    settings = {
        "store": str(tmp_path), "versions": str(tmp_path), "storage": None,
        "threads": 1, "deterministic": False, "tf32": asked, "imports": [], "folder": str(tmp_path),
    }  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(512, 512, generator=generator) for _ in range(2))
    Worker(settings)
    error = float(((one.cuda() @ other.cuda()).cpu() - one @ other).abs().max())
    assert torch.backends.cuda.matmul.allow_tf32 is asked
    if torch.cuda.get_device_capability() >= (8, 0):
        assert (error > 1e-3) is asked
