"""Piggyback: the backbone from a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from supsup_core.datasets import Dataset
from supsup_core.errors import InputError
from supsup_core.methods import METHODS, Dependence, Problem
from supsup_core.methods.learners import accuracy
from supsup_core.tasks import BENCHMARKS
from tests.supsup_core.methods.learning import learned


def test_piggyback_on_a_backbone_from_a_file(problem: Problem, digits: Dataset, tmp_path: Path) -> None:
    """A file with the backbone that the first task trained gives the other tasks the same states."""
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
        ({"fc1": weights["fc1"]}, "has no tensor fc2"),
        ({**weights, "fc2": weights["fc1"]}, "fc2 has shape"),
    ):
        safetensors.torch.save_file({name: w.clone() for name, w in tensors.items()}, path)
        with pytest.raises(InputError, match=words):
            METHODS["piggyback"](backbone=str(path)).check(problem.layers, 10, 2)
    path.write_bytes(b"no tensors")
    with pytest.raises(InputError, match="not a safetensors file"):
        METHODS["piggyback"](backbone=str(path)).check(problem.layers, 10, 2)
    for text, words in (("trunk.safetensors", "absolute path"), (str(tmp_path / "gone"), "does not exist")):
        with pytest.raises(InputError, match=words):
            METHODS["piggyback"](backbone=text)
