"""The kernels that a process says it uses are those that it calls."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from supsup_core.kernels import mask_products, onednn
from supsup_core.kernels.chosen import Kernels, chosen_kernels
from supsup_core.kernels.matmul import linear
from supsup_core.masks import selection
from supsup_core.masks.edge_popup import top_k_mask
from supsup_core.training.optimizers import OPTIMIZERS


@pytest.mark.parametrize("faster", [True, False])
def test_a_product_is_computed_by_the_named_kernel(faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(onednn, "is_faster", lambda: faster)
    monkeypatch.setattr(onednn, "linear", lambda x, weight: called.append("oneDNN"))
    monkeypatch.setattr(torch.nn.functional, "linear", lambda x, weight: called.append("torch"))
    linear(torch.ones(2, 3), torch.ones(4, 3))
    assert called == [chosen_kernels("cpu").matmul]


@pytest.mark.parametrize("has_permutation", [True, False])
def test_mask_products_are_computed_by_the_named_loop(has_permutation: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    for module in (mask_products, selection):
        monkeypatch.setattr(module, "HAS_PERMUTATION", has_permutation)

    def product_by(name: str) -> Callable[..., torch.Tensor]:
        return lambda rows, some: called.append(name) or torch.zeros(1, 2)

    for name in ("permutation", "planes"):
        monkeypatch.setattr(selection, f"products_by_{name}", product_by(name))
    selection.select_products(np.zeros((2, 1), np.uint8), torch.ones(1, 8))
    lanes = f" of {mask_products.REGISTER_LANES}" if has_permutation else ""
    assert [f"{name}{lanes}" for name in called] == [chosen_kernels("cpu").mask_products]


def test_the_loops_for_optimiser_steps_and_top_k_are_compiled_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr("supsup_core.kernels.rmsprop.step_rmsprop", lambda *_: called.append("rmsprop"))
    monkeypatch.setattr("supsup_core.kernels.top_k.keep_largest", lambda *_: called.append("top_k"))
    OPTIMIZERS["rmsprop"]([torch.zeros(3)], 0.0).step([torch.ones(3)], 0.1)
    top_k_mask(torch.ones(3), 1)
    assert called == ["rmsprop", "top_k"]
    assert (chosen_kernels("cpu").rmsprop, chosen_kernels("cpu").top_k) == ("compiled", "compiled")


def test_instruction_sets_that_torch_may_not_use_are_not_named() -> None:
    """torch obeys ATEN_CPU_CAPABILITY, so this is a second machine kind on the same machine."""
    program = "from supsup_core.kernels.chosen import chosen_kernels; print(chosen_kernels('cpu'))"
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "instructions='AVX2', matmul='torch'" in found.stdout


@pytest.mark.parametrize(
    ("deterministic", "tf32", "matmul"),
    [(False, False, "torch"), (False, True, "torch+TF32"), (True, True, "torch+TF32+deterministic")],
)
def test_on_cuda_torch_computes_everything(
    deterministic: bool, tf32: bool, matmul: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    wanted = Kernels(instructions="sm_90", matmul=matmul, rmsprop="torch", top_k="torch", mask_products="torch")
    assert chosen_kernels("cuda", deterministic, tf32) == wanted
