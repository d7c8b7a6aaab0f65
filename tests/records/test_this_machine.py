"""The description of this machine's kind, on a CPU and on a GPU."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import fields

import pytest
import torch

from orchestrator.base.environment import processor
from orchestrator.base.plain_values import from_node, to_node
from orchestrator.records.machine_kind import MachineKind
from orchestrator.records.this_machine import this_machine


def test_this_machine_is_recorded_with_its_processor_kernels_threads_and_versions() -> None:
    found = this_machine("cpu", 3)
    assert all(getattr(found, field.name) for field in fields(found) if field.name != "cuda")
    assert all(getattr(found.kernels, field.name) for field in fields(found.kernels))
    assert (found.processor, found.threads, found.python) == (processor(), 3, platform.python_version())
    assert (found.torch, found.cuda) == (torch.__version__, "")
    assert found.numba == importlib.metadata.version("numba")
    assert this_machine("cpu", 3) is found  # described once
    assert this_machine("cpu", 1) != found
    assert from_node(to_node(found), MachineKind) == found


def test_on_cuda_the_gpu_and_its_libraries_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91300)
    this_machine.cache_clear()
    found = this_machine("cuda", 1, tf32=True)
    this_machine.cache_clear()
    assert (found.processor, found.cuda) == ("NVIDIA H200", "13.0, cuDNN 91300")
    assert (found.kernels.instructions, found.kernels.matmul) == ("sm_90", "torch+TF32")
    assert "CUDA 13.0, cuDNN 91300" in str(found)
