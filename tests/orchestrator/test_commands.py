"""What a launch refuses before anything waits for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orchestrator.commands import _refuse_hopeless
from orchestrator.sweep import open_sweep
from supsup_core.errors import InputError


def test_devices_are_counted_here_but_not_those_of_a_cluster(
    sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    sweep = open_sweep(sweep_file(), ["resources.device=cuda"])
    for here in (None, "local"):
        with pytest.raises(InputError, match="need a CUDA device each and 0 are here"):
            _refuse_hopeless(sweep, here)
    _refuse_hopeless(sweep, "10.0.0.5:6379")  # a head without a GPU
