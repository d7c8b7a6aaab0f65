"""Describes the machine kind of this process."""

from __future__ import annotations

import functools
import platform

import torch

from orchestrator.base.environment import processor, versions
from orchestrator.records.machine_kind import MachineKind
from supsup_core.kernels.chosen import chosen_kernels


@functools.cache
def this_machine(device: str, threads: int, deterministic: bool = False, tf32: bool = False) -> MachineKind:
    """Returns the kind of this machine. The arguments are those of a sweep file's `resources`.

    Raises RuntimeError if the device is not available.
    """
    on_gpu = torch.device(device).type != "cpu"
    return MachineKind(
        processor=torch.cuda.get_device_name(device) if on_gpu else processor(),
        threads=threads,
        kernels=chosen_kernels(device, deterministic, tf32),
        torch=str(torch.__version__),  # a plain str, because unpickling a TorchVersion loads torch
        numpy=versions()["numpy"],
        numba=versions()["numba"],
        python=platform.python_version(),
        cuda=f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}" if on_gpu else "",  # type: ignore[no-untyped-call]
    )
